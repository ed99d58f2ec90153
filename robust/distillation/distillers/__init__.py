"""Fifteen distillers, a file each."""

from robust.distillation.distillers.activation_boundary import ActivationBoundary
from robust.distillation.distillers.attention import Attention
from robust.distillation.distillers.correlation import Correlation
from robust.distillation.distillers.crd import CRD
from robust.distillation.distillers.factor import Factor
from robust.distillation.distillers.fitnet import FitNet
from robust.distillation.distillers.fsp import FSP
from robust.distillation.distillers.kd import KD
from robust.distillation.distillers.kdsvd import KDSVD
from robust.distillation.distillers.nst import NST
from robust.distillation.distillers.pkt import PKT
from robust.distillation.distillers.rkd import RKD
from robust.distillation.distillers.similarity import Similarity
from robust.distillation.distillers.sskd import SSKD
from robust.distillation.distillers.vid import VID

__all__ = [
    "CRD",
    "FSP",
    "KD",
    "KDSVD",
    "NST",
    "PKT",
    "RKD",
    "SSKD",
    "VID",
    "ActivationBoundary",
    "Attention",
    "Correlation",
    "Factor",
    "FitNet",
    "Similarity",
]
