"""What a network says about one sample, as plain data: nothing here needs PyTorch."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vision.engine.errors import UserError

Picture = NDArray[np.uint8]
"""An RGB picture, uint8, shape ``[H, W, 3]``."""
Regions = Callable[[Picture, str], list[tuple[tuple[float, float, float, float], float]]]
"""Where the objects of a picture are: from the picture and its name, boxes (left, top, width, height) with scores."""


@dataclass
class Prediction:
    """What a network says about one sample; subclasses add their fields.

    Attributes:
        id: the sample's name.
        in_coco: whether there are rows of a COCO results file.
        why_not_coco: where there are none, the reason.
    """

    in_coco: ClassVar[bool] = False
    why_not_coco: ClassVar[str] = "COCO's files hold boxes, masks and joints, and no classes of whole images"

    id: str

    def draw(self, image: Picture, truth: Any = None) -> Picture:
        """The prediction drawn on ``image``; with the true answer beside it where it is given."""
        return image

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, as written to ``predictions.jsonl``."""
        return asdict(self)

    def to_coco(self) -> list[dict[str, Any]]:
        """Rows of a COCO results file.

        Raises:
            UserError: COCO's files do not hold predictions of this kind (``in_coco`` is false).
        """
        raise UserError(f"{type(self).__name__} has no COCO results: {self.why_not_coco}; use to_dict()")
