"""Data sets of event recordings as frames: packed files, and the sets that spikingjelly prepares."""

import importlib
from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from snn.event_augment import EventAugmentation, event_augmentations
from snn.events import Events, SplitBy, at_size, checked, given_events, to_frames
from snn.recordings import Recordings, packed
from vision.classification.data import ClassificationData, Split, stratified
from vision.classification.images import Indices, first
from vision.classification.npz import only_npz
from vision.engine.data import DataModule, Sample
from vision.engine.errors import ConfigError, DataError
from vision.engine.registry import register


class EventDataset(Dataset[Sample]):
    """Recordings as samples ``{id: str, frames: float32 [T, 2, H, W], label: int64 scalar}``.

    Args:
        recordings: what it holds.
        data: how events become frames.
        augment: whether frames are augmented.
    """

    def __init__(self, recordings: Recordings, data: "EventData", augment: bool) -> None:
        self.recordings, self.data = recordings, data
        self.transforms = event_augmentations(data.augment) if augment else []

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> Sample:
        frames = self.data.frames_of(self.recordings.read(index))
        for transform in self.transforms:
            frames = transform(frames)
        return {"id": self.recordings.ids[index], "frames": frames, "label": self.recordings.labels[index]}


@dataclass(kw_only=True, eq=False)
class EventData(DataModule):
    """The options and the splitting that all sets of event recordings share.

    Args:
        root: where it lies.
        frames: T, time steps.
        split_by: frames hold equal ``number`` of events each, or equal ``time``.
        duration: microseconds in a frame instead; the first T are taken.
        size: rows and columns after resizing to the nearest pixel; null keeps the sensor's.
        augment: applied to training frames, in this order
            (:data:`~snn.event_augment.EventAugmentation`).
        validation: held out of the training recordings: a share below 1, or a number; each class in proportion.
        seed: of what is held out; independent of the run's seed.
        limit: keep at most this many recordings of each split.
        balanced: the limit takes classes in turn; false takes the first in order.
    """

    root: str
    frames: int = 10
    split_by: SplitBy = "number"
    duration: int | None = None
    size: int | None = None
    augment: tuple[EventAugmentation, ...] = ()
    validation: float = 0.1
    seed: int = 7
    limit: int | None = None
    balanced: bool = True
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(f"data.frames: {self.frames} time steps; expected 1 or more")
        if self.duration is not None and self.duration < 1:
            raise ConfigError(f"data.duration: {self.duration} us; expected 1 or more")
        if self.size is not None and self.size < 1:
            raise ConfigError(f"data.size: {self.size} pixels; expected 1 or more")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"data.limit: {self.limit} is below 1; leave it out to keep all recordings")
        if self.validation < 0 or (self.validation >= 1 and self.validation != int(self.validation)):
            raise ConfigError(f"data.validation: {self.validation} is neither a share in [0, 1) nor a whole number")
        if self.split_by not in get_args(SplitBy):
            raise ConfigError(f"data.split_by: '{self.split_by}'; expected number or time")

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """The name of each class, by label."""

    @property
    @abstractmethod
    def sensor(self) -> tuple[int, int]:
        """Rows and columns of the camera."""

    @abstractmethod
    def parts(self) -> tuple[Recordings, Recordings | None]:
        """The recordings for training and validation, and those for test, or None."""

    @property
    def in_channels(self) -> int:
        """Two: OFF and ON."""
        return 2

    @property
    def image_size(self) -> int:
        """Rows of a frame."""
        return self.size or self.sensor[0]

    def frames_of(self, events: Events) -> Tensor:
        """Frames of a recording: counts, float32 ``[T, 2, H, W]``."""
        frames = to_frames(events, self.frames, *self.sensor, self.split_by, self.duration)
        return torch.from_numpy(frames if self.size is None else at_size(frames, self.size))

    def read(self, given: Any, name: str) -> Tensor:
        """Frames of a user's recording: an npz file with arrays ``t``, ``x``, ``y`` and ``p``, or ``Events``.

        Raises:
            DataError: it cannot be read, is no recording, or does not fit the sensor.
        """
        return self.frames_of(checked(given_events(given, name), *self.sensor, name))

    def train(self) -> Dataset[Sample]:
        """Training samples, augmented."""
        return EventDataset(self._split("train"), self, augment=True)

    def val(self) -> Dataset[Sample]:
        """Validation samples, held out of the training recordings.

        Raises:
            DataError: ``validation`` is 0.
        """
        return EventDataset(self._split("val"), self, augment=False)

    def test(self) -> Dataset[Sample] | None:
        """Test samples, or None where the set has none."""
        return None if self._parts()[1] is None else EventDataset(self._split("test"), self, augment=False)

    def _parts(self) -> tuple[Recordings, Recordings | None]:
        if "parts" not in self._kept:
            self._kept["parts"] = self.parts()
        found: tuple[Recordings, Recordings | None] = self._kept["parts"]
        return found

    def _split(self, split: Split) -> Recordings:
        if split not in self._kept:
            pool, test = self._parts()
            if split == "test" and test is not None:
                pool, indices = test, np.arange(len(test))
            else:
                indices = self._parted(pool.labels.numpy(), split)
            kept = pool.take(first(pool.labels, indices, self.limit, self.balanced))
            if not len(kept):
                raise DataError(f"{self.root}: the {split} split is empty; expected at least one recording")
            self._kept[split] = kept
        found: Recordings = self._kept[split]
        return found

    def _parted(self, labels: np.ndarray, split: Split) -> Indices:
        count = ClassificationData.count(self.validation, len(labels), "data.validation")
        if count == 0:
            if split == "train":
                return np.arange(len(labels))
            raise DataError("data.validation is 0, so there is no validation split; 0.1 holds out 10 % of train")
        held = stratified(labels, count, self.seed)
        return held if split == "val" else np.setdiff1d(np.arange(len(labels)), held)


@register("events_npz")
@dataclass(kw_only=True, eq=False)
class EventsNpz(EventData):
    """Recordings packed in one npz file: ``x``, ``y``, ``p`` (packed bits), ``dt``, ``offsets``, ``label``.

    ``is_test`` says which are for test, where it is there; else ``test_share`` of each class is held out. A sample's id
    is the file's name and its ``sample_id``.

    Args:
        root: the npz file, or a folder that holds exactly one.
        height: of the sensor, rows.
        width: of the sensor, columns.
        num_classes: how many labels there are.
        test_share: held out for test where the file says nothing of it: a share below 1, or a number; 0 holds out none.
    """

    height: int = 34
    width: int = 34
    num_classes: int = 10
    test_share: float = 0.2

    @property
    def classes(self) -> list[str]:
        """The labels as text."""
        return [str(label) for label in range(self.num_classes)]

    @property
    def sensor(self) -> tuple[int, int]:
        """As given."""
        return self.height, self.width

    def parts(self) -> tuple[Recordings, Recordings | None]:
        """As the file says, or by ``test_share``.

        Raises:
            DataError: no file, several, or one that does not hold what is expected.
        """
        path = only_npz(self.root)
        pool, test = packed(path, self.height, self.width, self.num_classes)
        if test is None:
            test = np.zeros(len(pool), dtype=bool)
            count = ClassificationData.count(self.test_share, len(pool), "data.test_share")
            if count:
                test[stratified(pool.labels.numpy(), count, self.seed)] = True
        held = np.flatnonzero(test)
        return pool.take(np.flatnonzero(~test)), pool.take(held) if len(held) else None


@dataclass(kw_only=True, eq=False)
class LibrarySet(EventData):
    """A set that spikingjelly unpacks and lists: ``root`` holds ``download`` (its official files) or ``events_np``."""

    module: ClassVar[str]
    cls: ClassVar[str]

    @property
    def sensor(self) -> tuple[int, int]:
        """128 rows and columns."""
        return 128, 128

    def listed(self, train: bool | None) -> Recordings:
        """The recordings of an official part, in spikingjelly's order.

        Raises:
            DataError: nothing is there, or spikingjelly cannot prepare it.
        """
        root = Path(self.root).expanduser()
        if not any((root / name).is_dir() for name in ("events_np", "extract", "download")):
            raise DataError(
                f"{root}: holds none of events_np, extract and download; put the official files of {self.cls} into "
                f"{root / 'download'} (spikingjelly.datasets.{self.cls}.resource_url_md5() lists them)"
            )
        try:
            library = importlib.import_module(f"spikingjelly.datasets.{self.module}")
        except (ImportError, OSError, RuntimeError) as error:
            told = f"spikingjelly.datasets cannot be imported ({error})"
            raise DataError(f"{told}; it needs a torchvision and a torchaudio that fit torch") from error
        try:
            found = getattr(library, self.cls)(root, **({} if train is None else {"train": train}), data_type="event")
        except (OSError, RuntimeError, ValueError, AssertionError) as error:  # it asserts where files are not its own
            raise DataError(f"{root}: spikingjelly cannot prepare {self.cls} from it: {error}") from error
        files = [Path(path) for path, _ in found.samples]
        ids = [f"{path.parent.parent.name}/{path.parent.name}/{path.stem}" for path in files]
        names = {name: place for place, name in enumerate(self.classes)}
        strange = [path for path in files if path.parent.name not in names]
        if strange:
            raise DataError(f"{strange[0]}: its folder is no class; expected one of {', '.join(names)}")
        labels = torch.tensor([names[path.parent.name] for path in files], dtype=torch.int64)
        return Recordings(ids, labels, *self.sensor, files=files)

    def parts(self) -> tuple[Recordings, Recordings | None]:
        """The official training and test parts."""
        return self.listed(True), self.listed(False)


@register("nmnist")
@dataclass(kw_only=True, eq=False)
class NMNIST(LibrarySet):
    """N-MNIST: MNIST digits before a moving event camera of 34x34 pixels, 60,000 for training and 10,000 for test.

    Source: Orchard et al. 2015, Frontiers in Neuroscience 9:437; prepared by spikingjelly.
    """

    module: ClassVar[str] = "n_mnist"
    cls: ClassVar[str] = "NMNIST"

    @property
    def sensor(self) -> tuple[int, int]:
        """34 rows and columns."""
        return 34, 34

    @property
    def classes(self) -> list[str]:
        """``0`` to ``9``."""
        return [str(digit) for digit in range(10)]


@register("dvs128_gesture")
@dataclass(kw_only=True, eq=False)
class DVS128Gesture(LibrarySet):
    """DVS128 Gesture: eleven gestures before an event camera of 128x128 pixels, 1,176 for training and 288 for test.

    Source: Amir et al. 2017, CVPR; prepared by spikingjelly.
    """

    frames: int = 20
    module: ClassVar[str] = "dvs128_gesture"
    cls: ClassVar[str] = "DVS128Gesture"

    @property
    def classes(self) -> list[str]:
        """``0`` to ``10``: the names of spikingjelly's folders."""
        return [str(label) for label in range(11)]


@register("cifar10_dvs")
@dataclass(kw_only=True, eq=False)
class CIFAR10DVS(LibrarySet):
    """CIFAR10-DVS: 10,000 CIFAR-10 images moved before an event camera of 128x128 pixels; it has no official split.

    Figures on different splits do not compare: ``tebn`` scores much higher than the others.

    Args:
        split: which 1,000 recordings are for test. ``first_90``: the last tenth of each class in spikingjelly's order
            (by file name), as its ``split_to_train_test_set(0.9)``; ``random_90``: a tenth of each class by ``seed``;
            ``tebn``: numbers 0 to 99 of each class (Duan et al. 2022, NeurIPS).

    Source: Li et al. 2017, Frontiers in Neuroscience 11:309; prepared by spikingjelly.
    """

    split: Literal["first_90", "random_90", "tebn"]
    size: int | None = 48
    module: ClassVar[str] = "cifar10_dvs"
    cls: ClassVar[str] = "CIFAR10DVS"

    @property
    def classes(self) -> list[str]:
        """Airplane to truck, in spikingjelly's order of folders."""
        return ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

    def parts(self) -> tuple[Recordings, Recordings | None]:
        """By ``split``."""
        pool = self.listed(None)
        labels = pool.labels.numpy()
        if self.split == "random_90":
            held = stratified(labels, round(len(pool) / 10), self.seed)
        elif self.split == "tebn":
            numbers = np.array([int(path.stem.rpartition("_")[2]) for path in pool.files])
            held = np.flatnonzero(numbers < 100)
        else:
            by_class = [np.flatnonzero(labels == label) for label in range(10)]
            held = np.sort(np.concatenate([own[-(-len(own) * 9 // 10) :] for own in by_class]))
        return pool.take(np.setdiff1d(np.arange(len(pool)), held)), pool.take(held)
