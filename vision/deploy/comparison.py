"""Outputs of one graph beside each other: differences and cosine, added up over batches."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision.deploy.bounds import Bound


@dataclass
class Compared:
    """One output over all batches.

    Attributes:
        largest: absolute difference.
        total: sum of absolute differences.
        count: numbers compared.
        scale: largest absolute value of the reference.
        products: sums of ``a b``, ``a a`` and ``b b``, in float64.
        binary: whether the reference gave nothing but 0 and 1.
        finite: whether the exported graph gave nothing but finite numbers.
    """

    largest: float = 0.0
    total: float = 0.0
    count: int = 0
    scale: float = 0.0
    products: tuple[float, float, float] = (0.0, 0.0, 0.0)
    binary: bool = True
    finite: bool = True
    _differences: "list[NDArray[np.float32]] | None" = None

    def add(self, reference: NDArray[Any], exported: NDArray[Any]) -> None:
        """One batch.

        Raises:
            ValueError: outputs of different shapes.
        """
        if reference.shape != exported.shape:
            raise ValueError(f"shapes {list(reference.shape)} in PyTorch and {list(exported.shape)} exported")
        if reference.size == 0:
            return
        a, b = reference.astype(np.float64).ravel(), exported.astype(np.float64).ravel()
        self.finite &= bool(np.isfinite(b).all())
        difference = np.abs(a - b)
        self.largest = max(self.largest, float(difference.max()))
        self.total, self.count = self.total + float(difference.sum()), self.count + a.size
        self.scale = max(self.scale, float(np.abs(a).max()))
        one, two, three = self.products
        self.products = one + float(a @ b), two + float(a @ a), three + float(b @ b)
        self.binary &= bool(np.isin(a, (0.0, 1.0)).all())
        self._differences = [*(self._differences or []), np.sort(difference)[-a.size // 4 - 1 :].astype(np.float32)]

    @property
    def mean(self) -> float:
        """Absolute difference."""
        return self.total / max(self.count, 1)

    @property
    def share(self) -> float:
        """The largest difference, of the reference's largest value."""
        return self.largest / max(self.scale, 1e-6)

    @property
    def cosine(self) -> float:
        """Of both outputs as vectors; 1 where both are zero."""
        product, a, b = self.products
        return 1.0 if a == b == 0.0 else product / max((a * b) ** 0.5, 1e-300)

    def beyond(self, limit: float) -> float:
        """The share of numbers that differ by more than ``limit``; above a quarter it counts as a quarter."""
        return sum(int((d > limit).sum()) for d in self._differences or []) / max(self.count, 1)

    def broken(self, bound: Bound, spiking: bool) -> list[str]:
        """What is beyond a bound, in words; empty where nothing is.

        Args:
            bound: of the precision.
            spiking: whether the graph gives spikes.
        """
        scale = max(self.scale, 1e-6)
        if not self.finite:
            return ["numbers that are not finite"]
        if spiking:
            share = self.beyond(bound.largest * scale)
            return [f"{share:.2%} of its numbers flipped, above {bound.flipped:.2%}"] if share > bound.flipped else []
        found = []
        if self.largest > bound.largest * scale:
            found.append(f"largest difference {self.largest:.3g}, above {bound.largest:g} of the scale {scale:.3g}")
        if self.mean > bound.mean * scale:
            found.append(f"mean difference {self.mean:.3g}, above {bound.mean:g} of the scale {scale:.3g}")
        if self.cosine < bound.cosine:
            found.append(f"cosine {self.cosine:.6f}, below {bound.cosine:g}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """For ``parity.json``."""
        return {
            "largest": self.largest,
            "mean": self.mean,
            "cosine": self.cosine,
            "scale": self.scale,
            "numbers": self.count,
        }
