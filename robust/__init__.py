"""Attacks, adversarial training, an evaluation to believe, and distillation; stands on :mod:`vision`, never on snn.

Names come from their modules when they are asked for, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from vision.engine.lazy import lazily

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
    from robust.loading import load
    from robust.masking import check_gradients
    from robust.stability_rank import StabilityRank
    from robust.threat import ThreatModel

lazily(
    __name__,
    {
        "robust.adversarial": ("AdversarialClassification", "Attack", "trades_loss"),
        "robust.apart": ("Apart", "Ascent"),
        "robust.apart_task": ("ApartClassification",),
        "robust.attacks": ("attack_loss", "fgsm", "margin", "pgd"),
        "robust.averaging": ("WeightAverage",),
        "robust.calibrated": ("LabelCalibration",),
        "robust.calibration": ("Calibration", "calibrated_targets", "calibration_loss", "search_calibration"),
        "robust.calibration_search": ("CalibrationSearch",),
        "robust.corruptions": ("corruption_accuracy",),
        "robust.data_quality": ("StabilityTracker", "merge_ranks", "select_friendly", "select_problematic"),
        "robust.evaluation": ("judge", "sweep"),
        "robust.judging": ("RobustEvaluation",),
        "robust.loading": ("load",),
        "robust.masking": ("check_gradients",),
        "robust.stability_rank": ("StabilityRank",),
        "robust.threat": ("ThreatModel",),
    },
)

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
    "load",
    "margin",
    "merge_ranks",
    "pgd",
    "search_calibration",
    "select_friendly",
    "select_problematic",
    "sweep",
    "trades_loss",
]
