"""Distillation: teachers trained for their students (SoTeacher), and the distillers to judge them by."""

from robust.distillation import distillers, students
from robust.distillation.comparison import DistillationTable, compare
from robust.distillation.consistency import ConsistencyBank, consistency_weight
from robust.distillation.diagnostics import TeacherDiagnostics, diagnose
from robust.distillation.distiller import Distiller, LossWeights, soft_label_loss
from robust.distillation.indexed import IndexedDataset
from robust.distillation.lipschitz import lipschitz_penalty, lipschitz_terms
from robust.distillation.ranking import CorrectnessRanking
from robust.distillation.regularisers import Regularisation, Regularisers
from robust.distillation.taps import Seen, Taps, look, taps_of
from robust.distillation.task import Distillation
from robust.distillation.teacher import Teacher
from robust.distillation.teacher_task import RegularisedClassification

__all__ = [
    "ConsistencyBank",
    "CorrectnessRanking",
    "Distillation",
    "DistillationTable",
    "Distiller",
    "IndexedDataset",
    "LossWeights",
    "Regularisation",
    "RegularisedClassification",
    "Regularisers",
    "Seen",
    "Taps",
    "Teacher",
    "TeacherDiagnostics",
    "compare",
    "consistency_weight",
    "diagnose",
    "distillers",
    "lipschitz_penalty",
    "lipschitz_terms",
    "look",
    "soft_label_loss",
    "students",
    "taps_of",
]
