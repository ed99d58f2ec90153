"""Human and animal pose: skeletons, annotations, crops, codecs, networks and scores."""

from typing import TYPE_CHECKING

from vision.engine.lazy import lazily

if TYPE_CHECKING:
    from vision.pose.loading import load
    from vision.pose.prediction import Poses

__all__ = ["Poses", "load"]

lazily(__name__, {"vision.pose.loading": ("load",), "vision.pose.prediction": ("Poses",)})
