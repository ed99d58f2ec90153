"""Vision models, the shared trainer and everything the other panels of Triptych stand on."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from vision.engine.lazy import lazily

if TYPE_CHECKING:
    from vision import classification, infrared, pose
    from vision.deploy.shipped import shipped_models
    from vision.engine.registry import list_models

try:
    __version__ = version("triptych")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__", "classification", "infrared", "list_models", "pose", "shipped_models"]

lazily(
    __name__,
    {"vision.deploy.shipped": ("shipped_models",), "vision.engine.registry": ("list_models",)},
    packages=("classification", "infrared", "pose"),
)
