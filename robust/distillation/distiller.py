"""What every distiller is: a loss between what a student and its teacher show, and the layers it learns for that."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from robust.distillation.taps import Seen
from vision.engine.errors import ConfigError
from vision.engine.task import Batch, Losses

Reading = Literal["stages", "pooled", "stem", "preactivations"]


@dataclass(frozen=True)
class LossWeights:
    """How much each loss of a student counts.

    Attributes:
        ce: of the cross-entropy with the labels.
        kd: of the teacher's soft labels.
        other: of the distiller's own loss.
    """

    ce: float = 1.0
    kd: float = 0.0
    other: float = 0.0


@dataclass(frozen=True)
class TrainingSet:
    """What a distiller may know of the data it is built for.

    Attributes:
        samples: how many.
        classes: how many.
        labels: gives the class of each sample, int64 ``[samples]``.
    """

    samples: int
    classes: int
    labels: Callable[[], Tensor]


class Distiller(ABC):
    """One way of telling a student what its teacher sees.

    Attributes:
        name: what its losses and errors are called.
        weights: the defaults of the three losses.
        reads: what it needs of both networks.
        indexed: whether samples must say where they stand.
        teacher_only: whether it needs nothing but the teacher's logits, which may then be cached.
        initial_epochs: epochs at the beginning that train :meth:`initial_losses` alone.
        layers: what it learns; trained beside the student, thrown away afterwards.
    """

    name: ClassVar[str]
    weights: ClassVar[LossWeights]
    reads: ClassVar[tuple[Reading, ...]] = ()
    indexed: ClassVar[bool] = False
    teacher_only: ClassVar[bool] = False

    def __init__(self) -> None:
        self.initial_epochs = 0
        self.layers: nn.Module = nn.ModuleDict()

    def prepare(self, student: Seen, teacher: Seen, data: TrainingSet) -> None:  # noqa: B027 (most need none)
        """Makes the layers for the shapes that both networks show, and refuses those that do not fit.

        Raises:
            ConfigError: a shape that does not fit; the layers are named.
        """

    def views(self, images: Tensor) -> Tensor:
        """The images both networks are run on: those of the batch first, and any more that are made of them."""
        return images

    @abstractmethod
    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        """The losses by name, each a scalar mean over samples; the weight ``other`` is still to come."""

    def initial_losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        """What the first ``initial_epochs`` train on."""
        raise ConfigError(f"{self.name}.initial_epochs: it has no initial stage; set 0")

    def require(self, student: Seen, teacher: Seen) -> None:
        """Refuses networks that do not show what the distiller reads.

        Raises:
            ConfigError: what is missing; or stages that are no images, or not equally many.
        """
        for who, seen in (("student", student), ("teacher", teacher)):
            for what in self.reads:
                if not getattr(seen.taps, what):
                    raise ConfigError(f"{self.name} reads the {what} of the {who}; name them in task.{who}_taps.{what}")
        for what in ("stages", "preactivations"):
            if what not in self.reads:
                continue
            ours, theirs = getattr(student, what), getattr(teacher, what)
            paths, their_paths = getattr(student.taps, what), getattr(teacher.taps, what)
            if len(ours) != len(theirs):
                raise ConfigError(
                    f"{self.name}: the student shows {len(ours)} {what} ({', '.join(paths)}) and the teacher "
                    f"{len(theirs)} ({', '.join(their_paths)}); name as many in task.student_taps and task.teacher_taps"
                )
            for seen, named, who in ((ours, paths, "student"), (theirs, their_paths, "teacher")):
                for value, path in zip(seen, named, strict=True):
                    if value.ndim != 4:
                        raise ConfigError(
                            f"{self.name}: layer '{path}' of the {who} gives {list(value.shape[1:])} a sample; "
                            "expected [C, H, W]"
                        )

    def require_channels(self, pairs: "list[tuple[str, Tensor, str, Tensor]]") -> None:
        """Refuses layers whose channels differ.

        Args:
            pairs: path and output of a layer of the student, and of the teacher's layer beside it.

        Raises:
            ConfigError: two layers with different channels; both are named.
        """
        for path, ours, other, theirs in pairs:
            if ours.shape[1] != theirs.shape[1]:
                raise ConfigError(
                    f"{self.name} needs equally many channels: '{path}' of the student gives {list(ours.shape[1:])}, "
                    f"'{other}' of the teacher {list(theirs.shape[1:])}; choose other layers, or another distiller"
                )


def to_smaller(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Two feature maps, the larger averaged down to the rows and columns of the smaller."""
    rows, columns = (min(a, b) for a, b in zip(one.shape[2:], other.shape[2:], strict=True))
    return _pooled(one, rows, columns), _pooled(other, rows, columns)


def _pooled(x: Tensor, rows: int, columns: int) -> Tensor:
    return x if x.shape[2:] == (rows, columns) else F.adaptive_avg_pool2d(x, (rows, columns))


def soft_label_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    r"""The teacher's soft labels: :math:`T^2 \, \mathrm{KL}(\mathrm{softmax}(t/T) \,\|\, \mathrm{softmax}(s/T))`.

    Args:
        student: logits ``[N, C]``.
        teacher: logits ``[N, C]``.
        temperature: T, above 0.

    Returns:
        The mean over samples, a scalar.

    Source: Hinton et al. 2015, arXiv 1503.02531.
    """
    ours, theirs = (student.float() / temperature).log_softmax(1), (teacher.float() / temperature).log_softmax(1)
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2
