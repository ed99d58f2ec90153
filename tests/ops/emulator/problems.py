"""Problems for the emulated kernels, and their solutions in float64 by the readable reference."""

import torch
from torch import Tensor

from tests.ops.emulator.driver import Case
from vision.ops.selective_scan import reference

SCAN_INPUTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
IMAGE_INPUTS = ("x", "dts", "dt_weight", "dt_bias", "A", "B", "C", "D")
ROWS = ("u", "delta", "z", "grad_y")
OPTIONAL = ("D", "z", "delta_bias", "initial_state", "grad_last_state")
EXACT = 1e-6  # relative, of every tensor, in float32
ROUNDED = {torch.float32: EXACT, torch.float16: 4e-4, torch.bfloat16: 3e-3}


def scan(
    seed: int,
    batch: int = 1,
    length: int = 70,
    channels: int = 40,
    states: int = 3,
    groups: int = 1,
    dtype: torch.dtype = torch.float32,
    without: tuple[str, ...] = (),
    by_rows: tuple[str, ...] = (),
    softplus: bool = True,
    slow: bool = False,
    **options: int,
) -> Case:
    """A selective scan with all optional inputs but ``without``; tensors ``by_rows`` lie as (B, D, L) in memory.

    A ``slow`` one hardly decays over a chunk (``|A| * step * 64`` is well below 1), so that a state that comes from the
    wrong place is not forgotten before it shows.
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    sequence = (batch, length, channels)
    delta = normal(*sequence) - (4 if slow else 1)
    tensors = {
        "u": normal(*sequence).to(dtype),
        "delta": (delta if softplus else delta.sigmoid()).to(dtype),
        "A": -torch.exp(normal(channels, states) - (2.5 if slow else 0)),
        "B": normal(batch, length, groups, states).to(dtype),
        "C": normal(batch, length, groups, states).to(dtype),
        "D": normal(channels),
        "z": normal(*sequence).to(dtype),
        "delta_bias": normal(channels) / 2 if softplus else normal(channels).abs() / 50,
        "initial_state": normal(batch, channels, states),
        "grad_y": normal(*sequence).to(dtype),
        "grad_last_state": normal(batch, channels, states),
    }
    for name in without:
        del tensors[name]
    for name in by_rows:
        tensors[name] = tensors[name].transpose(1, 2).contiguous().transpose(1, 2)
    return Case("scan", tensors, {"softplus": int(softplus), **options})


def image(
    seed: int,
    batch: int = 1,
    height: int = 5,
    width: int = 7,
    channels: int = 40,
    states: int = 2,
    rank: int = 3,
    dtype: torch.dtype = torch.float32,
    slow: bool = False,
    **options: int,
) -> Case:
    """A four-direction scan of an image."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    length, directions = height * width, 4
    tensors = {
        "x": normal(batch, length, channels).to(dtype),
        "dts": normal(batch, length, directions, rank).to(dtype),
        "dt_weight": normal(directions, channels, rank) / rank**0.5,
        "dt_bias": normal(directions, channels) - (4 if slow else 1),
        "A": -torch.exp(normal(directions, channels, states) - (2.5 if slow else 0)),
        "B": normal(batch, length, directions, states).to(dtype),
        "C": normal(batch, length, directions, states).to(dtype),
        "D": normal(directions, channels),
        "grad_y": normal(batch, length, channels).to(dtype),
    }
    return Case("ss2d", tensors, {"height": height, "width": width, **options})


def solve(case: Case) -> dict[str, Tensor]:
    """Every output and gradient in float64, by the names that the driver gives them."""
    inputs = SCAN_INPUTS if case.kind == "scan" else IMAGE_INPUTS
    tensors = {name: tensor.double().requires_grad_(name in inputs) for name, tensor in case.tensors.items()}
    given = [tensors.get(name) for name in inputs]
    if case.kind == "scan":
        softplus = bool(case.options["softplus"])
        y, last = reference.selective_scan(*given, delta_softplus=softplus)
        sequence = [tensors.get(name) for name in ("u", "delta", "A", "B", "delta_bias", "initial_state")]
        states = reference.chunk_states(reference.all_states(*sequence, delta_softplus=softplus))
        results = {"y": y, "last_state": last, "states": states}
        objective = (y * tensors["grad_y"]).sum()
        if "grad_last_state" in tensors:
            objective = objective + (last * tensors["grad_last_state"]).sum()
    else:
        size = case.options["height"], case.options["width"]
        y = reference.ss2d(*given, *size)
        results = {"y": y, "states": reference.ss2d_chunk_states(*given[:6], *size)}
        objective = (y * tensors["grad_y"]).sum()
    wanted = [name for name in inputs if name in tensors]
    gradients = torch.autograd.grad(objective, [tensors[name] for name in wanted])
    results |= {f"d{name}": gradient for name, gradient in zip(wanted, gradients, strict=True)}
    return {name: result.detach() for name, result in results.items()}


def worst_error(found: dict[str, Tensor], solution: dict[str, Tensor]) -> dict[str, float]:
    """The relative error, in the Euclidean norm, of every tensor; infinite where something is not a number."""
    assert set(found) == set(solution)
    errors = {}
    for name, exact in solution.items():
        result = found[name].double()
        assert result.shape == exact.shape, name
        error = ((result - exact).norm() / exact.norm().clamp_min(1e-30)).item()
        errors[name] = error if torch.isfinite(result).all() else float("inf")
    return errors


def bound(case: Case, name: str) -> float:
    """What 16-bit inputs leave: their outputs and gradients are rounded to 16 bits, the parameters' are not."""
    shaped = {"y": "u" if case.kind == "scan" else "x"}.get(name, name.removeprefix("d"))
    source = case.tensors.get(shaped)
    return ROUNDED[source.dtype if source is not None else torch.float32]


CASES = {
    "one step": scan(1, length=1, states=2),
    "less than a tile, nothing optional": scan(2, batch=2, length=7, channels=5, states=1, without=OPTIONAL),
    "a tile": scan(3, length=8, states=4, without=("z", "initial_state")),
    "a chunk, slow": scan(4, length=64, states=5, slow=True, without=("grad_last_state",)),
    "a chunk and a step, groups": scan(5, batch=2, length=65, channels=36, states=8, groups=2),
    "14 x 14, 16 states, idle lanes": scan(6, length=196, channels=33, states=16, softplus=False),
    "two blocks of channels, slow": scan(7, length=130, channels=140, states=2, slow=True),
    "20 states in two windows": scan(8, length=70, channels=8, states=20, segments=2),
    "256 states": scan(9, length=9, channels=3, states=256),
    "segments, slow": scan(10, batch=2, length=301, channels=20, states=3, segments=4, slow=True),
    "segments, 16 states": scan(11, length=200, channels=20, states=16, segments=3, softplus=False),
    "by rows, groups": scan(12, batch=2, length=67, channels=40, states=3, groups=2, by_rows=ROWS),
    "by rows, windows and segments, slow": scan(
        13, length=133, channels=9, states=18, by_rows=ROWS, segments=3, slow=True
    ),
    "some by rows": scan(14, length=70, channels=70, states=6, by_rows=("delta", "z")),
    "a group for each channel": scan(15, length=20, channels=3, states=4, groups=3),
    "deterministic": scan(16, batch=2, length=70, channels=140, states=3, deterministic=1),
    "float16": scan(17, length=70, states=3, dtype=torch.float16),
    "bfloat16, by rows": scan(18, length=70, states=16, dtype=torch.bfloat16, by_rows=ROWS),
    "bfloat16, windows": scan(19, length=20, channels=8, states=17, dtype=torch.bfloat16),
    "768 steps": scan(50, length=768, channels=20, states=8, without=("z",)),
    "3072 steps, slow": scan(51, length=3072, channels=5, states=1, slow=True, segments=7),
    "little shared memory": scan(52, channels=140, states=16, shared_per_block=32 * 1024),
    "image": image(20, batch=2),
    "image of one row": image(21, height=1, width=19, states=1),
    "image of one column": image(22, height=19, width=1, states=5),
    "image, segments, slow": image(23, height=9, width=16, states=1, segments=3, slow=True),
    "image, one plane, two blocks": image(24, channels=140, separate_planes=0, rank=9),
    "image, windows and segments": image(25, height=8, width=10, channels=8, states=18, segments=2),
    "image, deterministic": image(26, batch=2, channels=140, deterministic=1),
    "image, float16, one plane": image(27, states=6, dtype=torch.float16, separate_planes=0),
}
