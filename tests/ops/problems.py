"""Problems for the fronts of the scans, their float64 solutions, and how wrong another solution is."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vision.ops.selective_scan import reference
from vision.ops.selective_scan.library import LIBRARY

PATHS = ["reference", *(["compiled"] if "cpu" in LIBRARY.devices else [])]
TOLERANCE = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}


def small(dtype: torch.dtype = torch.float32, length: int = 9, groups: int = 2) -> dict[str, Tensor]:
    """Arguments with ``layout="bdl"`` and every optional one."""
    make = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make)

    return {
        "u": normal(2, 6, length).to(dtype), "delta": normal(2, 6, length).to(dtype), "A": -normal(6, 3).exp(),
        "B": normal(2, groups, 3, length).to(dtype), "C": normal(2, groups, 3, length).to(dtype), "D": normal(6),
        "z": normal(2, 6, length).to(dtype), "delta_bias": normal(6), "initial_state": normal(2, 6, 3),
    }  # fmt: skip


def close(found: Tensor | tuple[Tensor, ...], expected: Tensor | tuple[Tensor, ...], tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, check_stride=False)


def expected_of(
    inputs: Mapping[str, Tensor | None], layout: str = "bdl", softplus: bool = True
) -> tuple[Tensor, Tensor]:
    """The float64 reference, in the layout of the inputs."""
    bdl = layout == "bdl"
    wide = {name: None if t is None else t.double() for name, t in inputs.items()}
    for name in ("u", "delta", "z"):
        t = wide[name]
        wide[name] = t.transpose(1, 2) if bdl and t is not None else t
    for name in ("B", "C"):
        t = wide[name]
        wide[name] = t.permute(0, 3, 1, 2) if bdl and t is not None else t
    y, last = reference.selective_scan(**wide, delta_softplus=softplus)  # type: ignore[arg-type]
    return (y.transpose(1, 2) if bdl else y), last


def error_of(found: Tensor, expected: Tensor) -> float:
    """Relative, in the Euclidean norm."""
    return ((found.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()
