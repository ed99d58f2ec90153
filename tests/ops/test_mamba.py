"""mamba-ssm as a path: when it is imported, when it is chosen, what it is given; by a stand-in for its two modules."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.ops.problems import close, expected_of, small
from vision.ops.selective_scan import BackendError, backend, facts, force_backend, mamba, selective_scan, ss2d

COMPILED, INTERFACE = "selective_scan_cuda", "mamba_ssm.ops.selective_scan_interface"
REAL = pytest.mark.skipif(
    not torch.cuda.is_available() or bool(mamba.unavailable()), reason="no GPU, or mamba-ssm is not installed"
)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What is known of mamba-ssm is found out anew, before and after."""
    mamba.unavailable.cache_clear()
    yield
    mamba.unavailable.cache_clear()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A stand-in for mamba-ssm that computes by the written-out recurrence; what it was called with."""
    seen: list[dict[str, Any]] = []

    def selective_scan_fn(
        u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None,
        delta_bias: Tensor | None = None, delta_softplus: bool = False, return_last_state: bool = False,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        seen.append({name: value for name, value in locals().items() if isinstance(value, Tensor)})
        assert return_last_state
        state, rows = torch.zeros(*u.shape[:2], A.shape[1]), []
        step = delta if delta_bias is None else delta + delta_bias[:, None]
        step = torch.nn.functional.softplus(step) if delta_softplus else step

        def at(shared: Tensor, index: int) -> Tensor:
            return (
                shared if shared.ndim == 2 else shared[..., index].repeat_interleave(u.shape[1] // shared.shape[1], 1)
            )

        for index in range(u.shape[2]):
            now = step[..., index, None]
            state = torch.exp(now * A) * state + now * u[..., index, None] * at(B, index)
            rows.append((state * at(C, index)).sum(-1))
        y = torch.stack(rows, -1) + (0 if D is None else D[:, None] * u)
        return (y if z is None else y * torch.nn.functional.silu(z)), state

    stand_in(monkeypatch, selective_scan_fn)
    return seen


def stand_in(monkeypatch: pytest.MonkeyPatch, function: Any) -> None:
    for name in (COMPILED, "mamba_ssm", "mamba_ssm.ops", INTERFACE):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules[INTERFACE].selective_scan_fn = function  # type: ignore[attr-defined]


def by_mamba(p: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The path itself, which runs where its tensors are: the choice asks for cuda, the arithmetic does not."""
    u, delta, z = (p[name].transpose(1, 2) if name in p else None for name in ("u", "delta", "z"))
    B, C = (t if t.ndim == 2 else t.permute(0, 3, 1, 2) for t in (p["B"], p["C"]))
    assert u is not None and delta is not None
    return mamba.selective_scan(u, delta, p["A"], B, C, p.get("D"), z, p.get("delta_bias"), True)


# ---- when it is imported --------------------------------------------------------------------------------------------

WATCHED = """
import importlib.abc, sys

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("mamba_ssm", "selective_scan_cuda"):
            raise SystemExit(f"looked for {name}")

sys.meta_path.insert(0, Watch())
import torch
from vision.ops.selective_scan import backend, force_backend, selective_scan
one = torch.ones(1, 1, 1)
selective_scan(one, one, torch.ones(1, 1), one, one)
with force_backend("reference"):
    selective_scan(one, one, torch.ones(1, 1), one, one)
backend("cuda"), backend("cpu")
"""


def test_it_is_not_even_looked_for_until_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_on_a_cpu_it_is_refused_without_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mamba, "unavailable", lambda: pytest.fail("looked for mamba-ssm"))
    p = small()
    with pytest.raises(
        BackendError, match="force_backend='mamba': mamba-ssm's kernels run on cuda, the inputs are on cpu"
    ):
        selective_scan(**p, force_backend="mamba")  # type: ignore[arg-type]
    for dtype, states, said in ((torch.float64, 1, "the inputs are float64"), (torch.float32, 257, "257 states")):
        with force_backend("mamba"), pytest.raises(BackendError, match=said):
            backend("cuda", dtype, states)


def test_absent_it_is_refused_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, COMPILED, None)
    monkeypatch.setattr(mamba.importlib.util, "find_spec", lambda name: None)
    with force_backend("mamba"), pytest.raises(BackendError, match=r"not installed.*pip install 'triptych\[mamba\]'"):
        backend("cuda")
    assert "not installed" in facts()["mamba"]


def test_built_for_another_torch_it_is_refused_with_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, None)

    def broken(name: str) -> ModuleType:
        raise ImportError("undefined symbol:\n _ZN3c10")

    monkeypatch.setattr(mamba.importlib, "import_module", broken)
    with force_backend("mamba"), pytest.raises(BackendError, match=r"cannot be imported \(undefined symbol: _ZN3c10\)"):
        backend("cuda")


# ---- when it is chosen ----------------------------------------------------------------------------------------------


def test_it_is_chosen_by_name_only(calls: list[dict[str, Any]]) -> None:
    assert backend("cuda") != "mamba"
    with force_backend("mamba"):
        assert backend("cuda") == "mamba"
        with pytest.raises(BackendError, match="run on cuda"):
            backend("cpu")
    assert facts()["mamba"] == ""
    assert not calls


def test_a_scan_takes_it_when_asked_to(calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the front, with the question for a GPU answered by a yes."""
    monkeypatch.setattr(mamba, "obstacle", lambda *asked: "")
    p = small()
    first = p.pop("initial_state")
    y, last = selective_scan(**p, delta_softplus=True, return_last_state=True, force_backend="mamba")  # type: ignore[arg-type]
    close((y.double(), last.double()), expected_of(p), 5e-6)
    with force_backend("mamba"):
        selective_scan(**p, delta_softplus=True, force_backend=None)  # type: ignore[arg-type]
    assert len(calls) == 2
    with pytest.raises(BackendError, match="take no initial state"):
        selective_scan(**p, initial_state=first, force_backend="mamba")  # type: ignore[arg-type]


def test_an_image_takes_it_over_copies(calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mamba, "obstacle", lambda *asked: "")
    make = torch.Generator().manual_seed(0)
    shapes = [(2, 30, 8), (2, 30, 4, 3), (4, 8, 3), (4, 8), (4, 8, 2), (2, 30, 4, 2), (2, 30, 4, 2), (4, 8)]
    tensors = [torch.randn(*shape, generator=make) for shape in shapes]
    tensors[4] = -tensors[4].exp()
    close(ss2d(*tensors, 5, 6, force_backend="mamba"), ss2d(*tensors, 5, 6, force_backend="reference"), 1e-5)
    assert len(calls) == 1
    with pytest.raises(BackendError, match="fused=True, but mamba-ssm has no fused scan"):
        ss2d(*tensors, 5, 6, fused=True, force_backend="mamba")


# ---- what it is given -----------------------------------------------------------------------------------------------


def test_it_is_given_its_own_layout(calls: list[dict[str, Any]]) -> None:
    p = small()
    del p["initial_state"]
    y, last = by_mamba(p)
    close((y.transpose(1, 2).double(), last.double()), expected_of(p), 5e-6)
    for name, t in calls[0].items():
        assert torch.equal(t, p[name]), name  # [N, D, L] and [N, G, S, L], as ours with layout="bdl"
        assert t.is_contiguous(), name


@pytest.mark.parametrize("constant", ["B", "C", "BC"])
def test_it_is_given_parameters_that_do_not_vary_as_they_are(calls: list[dict[str, Any]], constant: str) -> None:
    p = {name: t for name, t in small().items() if name in ("u", "delta", "A", "B", "C")}
    p |= {name: torch.randn(6, 3, generator=torch.Generator().manual_seed(5)) for name in constant}
    y, _ = by_mamba(p)
    expected = selective_scan(**p, delta_softplus=True, force_backend="reference")  # type: ignore[arg-type]
    close(y.transpose(1, 2), expected, 5e-6)  # type: ignore[arg-type]
    assert set(calls[0]) == {"u", "delta", "A", "B", "C"}


def test_on_a_cuda_that_is_not_there_the_front_hands_over(calls: list[dict[str, Any]]) -> None:
    """Nothing but the device is asked of the inputs; the last state comes back from it."""
    with FakeTensorMode():
        u = torch.empty(2, 6, 4, device="cuda")
        A, B = torch.empty(6, 3, device="cuda"), torch.empty(2, 3, 4, device="cuda")
        sys.modules[INTERFACE].selective_scan_fn = lambda u, delta, A, B, C, **rest: (  # type: ignore[attr-defined]
            calls.append(rest) or torch.empty_like(u), u.new_empty(2, 6, 3)
        )  # fmt: skip
        y, last = selective_scan(u, u, A, B, B, return_last_state=True, force_backend="mamba")
    assert (y.shape, last.shape, len(calls)) == (u.shape, (2, 6, 3), 1)


@REAL
def test_both_agree_on_a_gpu() -> None:
    p = {name: t.cuda() for name, t in small().items() if name != "initial_state"}
    found, ours = (selective_scan(**p, delta_softplus=True, force_backend=path) for path in ("mamba", "compiled"))  # type: ignore[arg-type]
    close(found, ours, 1e-5)  # type: ignore[arg-type]
