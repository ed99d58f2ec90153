"""Infrared small-target detection: TBC-Net, its loss, synthetic scenes, data and the field's metrics."""

from vision.infrared.losses import TBCLoss
from vision.infrared.tbcnet import SCM, TBCNet, freeze, normalise

__all__ = ["SCM", "TBCLoss", "TBCNet", "freeze", "normalise"]
