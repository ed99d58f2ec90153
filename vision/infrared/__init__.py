"""Infrared small-target detection: TBC-Net, its loss, synthetic scenes, data and the field's metrics."""

from typing import TYPE_CHECKING

from vision.engine.lazy import lazily

if TYPE_CHECKING:
    from vision.infrared.data import InfraredCrops, InfraredImages, InputTransform
    from vision.infrared.detection import Detection, detect
    from vision.infrared.loading import load
    from vision.infrared.losses import TBCLoss
    from vision.infrared.reading import IRSTFolder, read_infrared
    from vision.infrared.synthesis import SynthTargets
    from vision.infrared.tbcnet import SCM, TBCNet, freeze, normalise

__all__ = [
    "SCM",
    "Detection",
    "IRSTFolder",
    "InfraredCrops",
    "InfraredImages",
    "InputTransform",
    "SynthTargets",
    "TBCLoss",
    "TBCNet",
    "detect",
    "freeze",
    "load",
    "normalise",
    "read_infrared",
]

lazily(
    __name__,
    {
        "vision.infrared.data": ("InfraredCrops", "InfraredImages", "InputTransform"),
        "vision.infrared.detection": ("Detection", "detect"),
        "vision.infrared.loading": ("load",),
        "vision.infrared.losses": ("TBCLoss",),
        "vision.infrared.reading": ("IRSTFolder", "read_infrared"),
        "vision.infrared.synthesis": ("SynthTargets",),
        "vision.infrared.tbcnet": ("SCM", "TBCNet", "freeze", "normalise"),
    },
)
