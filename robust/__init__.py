"""Attacks, adversarial training, an evaluation to believe, and distillation; stands on :mod:`vision`, never on snn.

Names come from their modules when they are asked for, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust.adversarial import AdversarialClassification, Attack, trades_loss
    from robust.apart import Apart, Ascent
    from robust.apart_task import ApartClassification
    from robust.attacks import attack_loss, fgsm, margin, pgd
    from robust.averaging import WeightAverage
    from robust.calibrated import LabelCalibration
    from robust.calibration import Calibration, calibrated_targets, calibration_loss, search_calibration
    from robust.calibration_search import CalibrationSearch
    from robust.corruptions import corruption_accuracy
    from robust.data_quality import StabilityTracker, merge_ranks, select_friendly, select_problematic
    from robust.evaluation import judge, sweep
    from robust.judging import RobustEvaluation
    from robust.masking import check_gradients
    from robust.stability_rank import StabilityRank
    from robust.threat import ThreatModel

_MODULES = {
    "adversarial": ("AdversarialClassification", "Attack", "trades_loss"),
    "apart": ("Apart", "Ascent"),
    "apart_task": ("ApartClassification",),
    "attacks": ("attack_loss", "fgsm", "margin", "pgd"),
    "averaging": ("WeightAverage",),
    "calibrated": ("LabelCalibration",),
    "calibration": ("Calibration", "calibrated_targets", "calibration_loss", "search_calibration"),
    "calibration_search": ("CalibrationSearch",),
    "corruptions": ("corruption_accuracy",),
    "data_quality": ("StabilityTracker", "merge_ranks", "select_friendly", "select_problematic"),
    "evaluation": ("judge", "sweep"),
    "judging": ("RobustEvaluation",),
    "masking": ("check_gradients",),
    "stability_rank": ("StabilityRank",),
    "threat": ("ThreatModel",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AdversarialClassification",
    "Apart",
    "ApartClassification",
    "Ascent",
    "Attack",
    "Calibration",
    "CalibrationSearch",
    "LabelCalibration",
    "RobustEvaluation",
    "StabilityRank",
    "StabilityTracker",
    "ThreatModel",
    "WeightAverage",
    "attack_loss",
    "calibrated_targets",
    "calibration_loss",
    "check_gradients",
    "corruption_accuracy",
    "fgsm",
    "judge",
    "margin",
    "merge_ranks",
    "pgd",
    "search_calibration",
    "select_friendly",
    "select_problematic",
    "sweep",
    "trades_loss",
]


def __getattr__(name: str) -> Any:
    """A public name, or a module that has one, on first use."""
    if name in _MODULES:
        return import_module(f"robust.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'robust' has no attribute '{name}'")
    found = globals()[name] = getattr(import_module(f"robust.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
