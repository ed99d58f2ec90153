"""Float64 as the judge of two computations in float32: whether a file is further from it than PyTorch itself."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from vision.deploy.bounds import BOUNDS, Bound
from vision.deploy.comparison import Compared
from vision.engine.deployment import Deployment, Run

FACTOR = 4.0
"""A file may be so many times further from float64 than PyTorch is. Sums in another order round by as much, but not in
the same places: the mean over an output agrees within a tenth or so, the largest of its numbers within a few times."""


@dataclass
class Rounding:
    """One output of PyTorch in float32, and of a file, each beside the same network in float64.

    Attributes:
        torch: PyTorch's.
        file: the file's.
    """

    torch: Compared = field(default_factory=Compared)
    file: Compared = field(default_factory=Compared)

    def add(self, exact: NDArray[Any], ours: NDArray[Any], exported: NDArray[Any]) -> None:
        """One batch."""
        self.torch.add(exact, ours)
        self.file.add(exact, exported)

    def broken(self, bound: Bound, spiking: bool) -> list[str]:
        """Why the file is not as near to float64 as PyTorch is, in words; empty where it is.

        Nothing can be told of a network that float32 itself does not give: where PyTorch is further from float64 than
        files of half precision may be.

        Args:
            bound: that was broken.
            spiking: whether the graph gives spikes.
        """
        if lost := self.torch.broken(BOUNDS["fp16"], spiking):
            return [f"PyTorch's own float32 is too far from float64 to compare with: {lost[0]}"]
        if not self.file.finite:
            return ["numbers that are not finite"]
        scale = max(self.torch.scale, 1e-6)
        pairs = {
            "largest difference": (self.torch.largest, self.file.largest, bound.largest * scale),
            "mean difference": (self.torch.mean, self.file.mean, bound.mean * scale),
            "1 - cosine": (1 - self.torch.cosine, 1 - self.file.cosine, 1 - bound.cosine),
        }
        if spiking:
            ours, files = (each.beyond(bound.largest * scale) for each in (self.torch, self.file))
            pairs = {"share of flipped numbers": (ours, files, bound.flipped)}
        return [
            f"{name} from float64 {files:.3g}, above {FACTOR:g} times PyTorch's own {ours:.3g}"
            for name, (ours, files, allowed) in pairs.items()
            if files > max(FACTOR * ours, allowed)
        ]

    def to_dict(self) -> dict[str, Any]:
        """For ``parity.json``."""
        return {"torch": self.torch.to_dict(), "file": self.file.to_dict()}


def doubled(deployment: Deployment) -> Run:
    """The graphs of a deployment by PyTorch in float64; what they are given may be float32.

    Args:
        deployment: is left as it is.
    """
    modules = {graph.name: copy.deepcopy(graph.module).double() for graph in deployment.graphs}

    def run(name: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = (x.double() if x.is_floating_point() else x for x in inputs)
        with torch.no_grad():
            outputs = modules[name](*given)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return run
