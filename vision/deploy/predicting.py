"""What predicts on whatever a user has: files, Pillow images, pixels, or lists of them. Nothing here needs PyTorch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, overload

from vision.engine.errors import ConfigError
from vision.engine.exported import Boxes, Given
from vision.engine.prediction import Picture, Prediction

Said = TypeVar("Said", bound=Prediction, covariant=True)


class Predicting(ABC, Generic[Said]):
    """A network that predicts when it is called with an image: of a run, or of an exported file.

    Attributes:
        after: what its output means, plain JSON: ``type``, and numbers and names by it.
    """

    after: Mapping[str, Any]

    @overload
    def __call__(self, image: list[Any] | tuple[Any, ...], boxes: Any = None) -> list[Said]: ...
    @overload
    def __call__(self, image: Any, boxes: Any = None) -> Said: ...
    def __call__(self, image: Any, boxes: Any = None) -> Any:
        """The prediction for an image, or a list of predictions for a list of images.

        Args:
            image: a file, a Pillow image, or pixels, uint8 ``[H, W, 3]``; infrared networks also take gray pixels
                ``[H, W]``, uint8 or float in [0, 1], and networks of events an npz file or :class:`snn.events.Events`.
            boxes: of people, for a network that looks at one at a time: left, top, width and height in pixels,
                ``[P, 4]``, or with a score after them ``[P, 5]``; None takes the whole picture for one. For a list of
                images one of these for each.

        Raises:
            DataError: an image that cannot be read, or of a size that the network cannot take; boxes that are none.
            ConfigError: boxes for a network that looks at whole images.
        """
        if not isinstance(image, list | tuple):
            return self.predict(image, boxes)
        if boxes is not None and len(boxes) != len(image):
            raise ConfigError(f"boxes: {len(boxes)} sets for {len(image)} images; give one for each, or None")
        return [self.predict(each, own) for each, own in zip(image, boxes or [None] * len(image), strict=True)]

    @abstractmethod
    def predict(
        self, image: Given, boxes: Boxes | None = None, name: str | None = None, number: int | None = None
    ) -> Said:
        """The prediction for one image.

        Args:
            image: as of a call.
            boxes: as of a call.
            name: the prediction's id; by default the file's path, or ``image``.
            number: of the image in COCO results; by default the one its file's name ends in, or 0.
        """

    @abstractmethod
    def picture(self, image: Given) -> Picture:
        """The picture that a prediction for ``image`` is drawn on: ``prediction.draw(predictor.picture(image))``."""
