"""Distillation: teachers trained for their students (SoTeacher), and the distillers to judge them by."""

from robust.distillation.consistency import ConsistencyBank, consistency_weight
from robust.distillation.indexed import IndexedDataset
from robust.distillation.lipschitz import lipschitz_penalty, lipschitz_terms
from robust.distillation.ranking import CorrectnessRanking

__all__ = [
    "ConsistencyBank",
    "CorrectnessRanking",
    "IndexedDataset",
    "consistency_weight",
    "lipschitz_penalty",
    "lipschitz_terms",
]
