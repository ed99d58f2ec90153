"""What a network says about one sample, as plain data: nothing here needs PyTorch."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""An RGB picture, uint8, shape ``[H, W, 3]``."""
Regions = Callable[[Picture, str], list[tuple[tuple[float, float, float, float], float]]]
"""Where the objects of a picture are: from the picture and its name, boxes (left, top, width, height) with scores."""


@dataclass
class Prediction:
    """What a network says about one sample; subclasses add their fields.

    Attributes:
        id: the sample's name.
    """

    id: str

    def draw(self, image: Picture, truth: Any = None) -> Picture:
        """The prediction drawn on ``image``; with the true answer beside it where it is given."""
        return image

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, as written to ``predictions.jsonl``."""
        return asdict(self)

    def results(self) -> list[dict[str, Any]]:
        """Rows of a COCO results file; none for what COCO does not score."""
        return []
