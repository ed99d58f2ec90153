"""Which path computes a scan, what a user is told of it, and libraries that cannot be used."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops.problems import close, small
from vision.ops.selective_scan import (
    BackendError,
    backend,
    backends,
    facts,
    force_backend,
    library,
    reference,
    selective_scan,
)
from vision.ops.selective_scan.library import LIBRARY, Library


def test_the_path_is_told_and_chosen() -> None:
    with force_backend("reference"):
        assert backend() == "reference"
        with force_backend(None):
            assert backend() == automatic()
        assert backend() == "reference"
    assert backend() == automatic()


def automatic() -> str:
    return f"cpu-{library.cpu_isa()}" if "cpu" in LIBRARY.devices else "reference"


def test_a_choice_outside_of_a_block_stays_until_the_next() -> None:
    try:
        force_backend("reference")
        assert backend() == "reference"
    finally:
        force_backend(None)
    assert backend() == automatic()


def test_the_choice_of_a_call_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    one = torch.ones(1, 1, 1)

    def instead(*arguments: Any) -> tuple[Tensor, None]:
        taken.append("reference")
        return one, None

    monkeypatch.setattr(reference, "selective_scan", instead)
    selective_scan(one, one, torch.ones(1, 1), one, one, force_backend="reference")
    assert taken == ["reference"]
    with force_backend("reference"):
        selective_scan(one, one, torch.ones(1, 1), one, one)
    assert taken == ["reference"] * 2


@pytest.mark.parametrize("wish", ["compilde", "cpu-sse9", "triton"])
def test_an_unknown_path_is_refused(wish: str) -> None:
    with pytest.raises(BackendError, match="expected one of"):
        force_backend(wish)
    one = torch.ones(1, 1, 1)
    with pytest.raises(BackendError, match="expected one of"):
        selective_scan(one, one, torch.ones(1, 1), one, one, force_backend=wish)
    assert backend() == automatic()


@pytest.mark.skipif("cpu" not in LIBRARY.devices, reason="no compiled kernels")
def test_an_instruction_set_is_chosen_and_given_back() -> None:
    before = backend()
    with force_backend("cpu-baseline"):
        assert backend() == "cpu-baseline"
        close(*(selective_scan(**small(), delta_softplus=True, force_backend=p) for p in (None, "reference")))  # type: ignore[arg-type,misc]
    assert backend() == before


def without(monkeypatch: pytest.MonkeyPatch, found: Library) -> None:
    monkeypatch.setattr(backends, "LIBRARY", found)
    monkeypatch.setattr(backends, "_said", set())


def test_without_kernels_the_reference_runs_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "_build.json").write_text('{"asked": "auto", "built": "none", "reason": "there is no C++ compiler"}')
    without(monkeypatch, library.load(tmp_path))
    one = torch.ones(1, 1, 1)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            selective_scan(one, one, torch.ones(1, 1), one, one)
    assert len(caplog.records) == 1
    said = caplog.records[0].getMessage()
    assert "reference runs" in said
    assert "there is no C++ compiler" in said
    assert library.BUILD in said
    assert backend() == "reference"
    with pytest.raises(BackendError, match="not built"):
        selective_scan(one, one, torch.ones(1, 1), one, one, force_backend="compiled")
    with pytest.raises(BackendError, match="not built"):
        force_backend("cpu-avx2")
    told = facts()
    assert (told["cpu"], told["cuda"], told["library"]) == ("reference", "reference", None)
    assert "not built" in told["reason"]
    assert library.BUILD in told["fix"]


def test_a_library_for_another_platform_is_an_error_until_the_reference_is_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "_kernels.abi3.so").write_bytes(b"MZ" + bytes(4096))
    found = library.load(tmp_path)
    assert found.broken
    without(monkeypatch, found)
    one = torch.ones(1, 1, 1)
    with pytest.raises(BackendError, match=r"_kernels.abi3.so cannot be loaded: it was built for another platform"):
        selective_scan(one, one, torch.ones(1, 1), one, one)
    y = selective_scan(one, one, torch.ones(1, 1), one, one, force_backend="reference")
    assert isinstance(y, Tensor) and y.item() == 1
    told = facts()
    assert (told["cpu"], told["library"]) == ("none", str(tmp_path / "_kernels.abi3.so"))
    assert "another platform" in told["reason"]
    assert library.BUILD in told["fix"]


@pytest.mark.parametrize(
    ("raised", "explained"),
    [
        ("/x/_kernels.so: invalid ELF header", "built for another platform"),
        ("/x/_kernels.so: wrong ELF class: ELFCLASS32", "built for another platform"),
        ("/x/_kernels.so: cannot open shared object file: No such file or directory", "built for another platform"),
        ("dlopen(/x/_kernels.so): mach-o file, but is an incompatible architecture", "built for another platform"),
        ("libstdc++.so.6: cannot open shared object file: No such file", "a library it needs is missing"),
        ("/lib/libc.so.6: version `GLIBC_2.38' not found", "built on a newer system"),
        ("/x/_kernels.so: undefined symbol: torch_call_dispatcher", "does not fit torch"),
    ],
)
def test_why_a_library_does_not_load_is_explained(raised: str, explained: str) -> None:
    assert explained in library.explain(OSError(raised), Path("/x/_kernels.so"))


@pytest.mark.skipif(not LIBRARY.loaded or sys.platform != "linux", reason="no compiled kernels to change")
def test_our_library_for_another_processor(tmp_path: Path) -> None:
    assert LIBRARY.path is not None
    content = bytearray(LIBRARY.path.read_bytes())
    content[18:20] = (0xF3).to_bytes(2, "little")  # the machine that an ELF file is for: RISC-V
    (tmp_path / "_kernels.abi3.so").write_bytes(content)
    assert "built for another platform" in library.load(tmp_path).reason


@pytest.mark.skipif(not LIBRARY.loaded, reason="no compiled kernels")
def test_a_library_of_another_version_is_told_from_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(library.SCHEMAS, "ss2d", "(Tensor x, int new) -> Tensor y")
    found = library.load()
    assert found.broken
    assert "another version" in found.reason
    assert "ss2d" in found.reason


@pytest.mark.skipif("cuda" not in LIBRARY.devices, reason="no compiled CUDA kernels")
def test_more_states_than_the_cuda_kernels_take_go_to_the_reference(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backends, "_said", set())
    assert backend("cuda", states=256) == "cuda"
    with caplog.at_level(logging.WARNING):
        assert backend("cuda", states=257) == "reference"
        assert backend("cuda", states=257) == "reference"
    assert [record.getMessage().count("257 states") for record in caplog.records] == [1]


def test_a_device_without_kernels_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(backends, "_said", set())
    without_cuda = Library(LIBRARY.path, ("cpu",), left_out="no CUDA toolkit")
    monkeypatch.setattr(backends, "LIBRARY", without_cuda)
    with caplog.at_level(logging.WARNING):
        assert backend("cuda") == "reference"
    assert "no kernels for cuda (no CUDA toolkit)" in caplog.text
    assert "TRIPTYCH_BUILD=cuda" in caplog.text
    assert "no CUDA toolkit" in facts()["cuda_reason"]


def test_facts_are_plain_and_complete() -> None:
    told = facts()
    assert set(told) == {"cpu", "cuda", "library", "reason", "fix", "cuda_reason", "mamba"}
    assert told["cpu"] == automatic()
    assert bool(told["reason"]) == bool(told["fix"]) == (not LIBRARY.loaded)
