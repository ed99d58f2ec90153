"""Which annotated people a recipe trains on, chooses on and is judged on: what every pose data block shares."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from vision.engine.data import DataModule
from vision.engine.errors import ConfigError, DataError
from vision.engine.seeding import seed_of
from vision.pose.annotations import Layout, PoseSet, merged, read_pose_set
from vision.pose.examine import Look, Report, examine, usable
from vision.pose.images import Orientation
from vision.pose.keypoints import Skeleton, skeleton

Positive = Annotated[int, Gt(0)]
Split = Literal["train", "val", "test"]


def held_out(image_ids: Iterable[int], share: float, seed: int) -> set[int]:
    """The images to hold out: those whose hash falls into the share.

    The choice depends on an image's id and the seed alone, so that it stays the same when images are added.
    """
    return {key for key in image_ids if seed_of(seed, "held out", key) < share * 2**63}


@dataclass(kw_only=True, eq=False)
class PoseData(DataModule):
    """The annotations of the three splits, examined before anything is trained on them.

    Args:
        root: the folder of the data set.
        layout: how it is laid out (:func:`~vision.pose.annotations.read_pose_set`).
        custom_skeleton: a YAML file with a skeleton of your own, or the name of a published one; by default the
            layout's.
        train_splits: names, or annotation files from ``root`` on, to train on.
        extra_splits: likewise, for training only: nothing is held out of them. For annotations that are too poor to be
            judged on, such as estimated areas or people that are missing.
        val_split: the split to choose checkpoints on; None holds ``validation`` out of ``train_splits``.
        validation: share of the training images that is held out, by a hash of their ids.
        split_seed: of what is held out; independent of the run's seed, so that runs compare.
        test_split: the split that a finished run is judged on; None has none. It is never used to choose anything.
        train_images: train on the first so many images with people alone, for quick runs.
        eval_images: choose and judge on the first so many images alone, for quick runs.
        overfit: choose and judge on the very people that are trained on, and on nobody else: shows that targets,
            network, decoding and scoring agree. Nothing is held out then.
        on_error: ``stop`` at annotations and images that cannot be used, naming them; ``skip`` leaves them out and
            logs them.
        look: how image files are examined first: ``header`` their size and whether they are whole, ``full`` decodes
            every one, ``none`` does not.
        orientation: ``stored`` reads images as they are stored, as COCO's annotations mean; ``upright`` turns them by
            their EXIF orientation.

    Attributes:
        reports: what was found wrong, by split, of the splits used so far.

    Raises:
        ConfigError: no split to train on.
    """

    root: str
    layout: Layout = "coco"
    custom_skeleton: str | None = None
    train_splits: tuple[str, ...] = ("train2017",)
    extra_splits: tuple[str, ...] = ()
    val_split: str | None = None
    validation: Annotated[float, Gt(0), Lt(1)] = 0.1
    split_seed: Annotated[int, Ge(0)] = 7
    test_split: str | None = "val2017"
    train_images: Positive | None = None
    eval_images: Positive | None = None
    overfit: bool = False
    on_error: Literal["stop", "skip"] = "stop"
    look: Look = "header"
    orientation: Orientation = "stored"
    reports: dict[str, Report] = field(default_factory=dict, init=False, repr=False)
    _sets: dict[str, PoseSet] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.train_splits:
            raise ConfigError("data.train_splits is empty; name at least one split to train on")

    @cached_property
    def skeleton(self) -> Skeleton:
        """The joints of every sample."""
        return skeleton(self.custom_skeleton or self.layout)

    def ground_truth(self, split: Split) -> PoseSet:
        """The examined annotations of a split; of ``train``, the images that are trained on.

        Raises:
            DataError: annotations or images that cannot be used, a split without anyone, a test image that is also
                for training, or no test split.
        """
        if self.overfit:
            return self._fetched("train", self._for_training)
        if split == "test" and self.test_split is None:
            raise DataError("data.test_split is null, so there is no test split; name one")
        makers = {"train": self._for_training, "val": self._for_choosing, "test": self._for_judging}
        return self._fetched(split, makers[split])

    def _fetched(self, name: str, make: Callable[[], PoseSet]) -> PoseSet:
        if name not in self._sets:
            self._sets[name] = make()
        return self._sets[name]

    def _read(self, split: str) -> PoseSet:
        return read_pose_set(self.layout, self.root, split, self.skeleton)

    def _examined(self, name: str, pose_set: PoseSet) -> PoseSet:
        self.reports[name] = examine(pose_set, self.look, self.orientation)
        return usable(pose_set, self.reports[name], self.on_error)

    def _official(self) -> PoseSet:
        """The training splits, without what is for training only."""
        return self._fetched("official", lambda: merged([self._read(split) for split in self.train_splits]))

    def _held_out(self) -> set[int]:
        """Of the training splits' images, by id."""
        if self.val_split is not None or self.overfit:
            return set()
        images = self._official().images
        held = held_out(images, self.validation, self.split_seed)
        if not 0 < len(held) < len(images):
            raise DataError(
                f"data.validation: {self.validation} holds out {len(held)} of {len(images)} images; change it so that "
                "both sides have some, or name a data.val_split"
            )
        return held

    def _for_training(self) -> PoseSet:
        official = self._official()
        own = official.only(set(official.images) - self._held_out())
        whole = merged([own, *(self._read(split) for split in self.extra_splits)])
        peopled = whole.only({key for key, people in whole.instances.items() if people})
        if not self.overfit:
            self._keep_apart({image.path for part in (official, whole) for image in part.images.values()})
        kept = self._examined("train", peopled)
        return self.limited(kept.only({person.image_id for person in kept.people}))

    def limited(self, pose_set: PoseSet) -> PoseSet:
        """The part of the training people that options of a data block leave."""
        return _first(pose_set, self.train_images)

    def _for_choosing(self) -> PoseSet:
        named = self.val_split
        whole = self._official().only(self._held_out()) if named is None else self._read(named)
        return self._examined("val", _first(whole, self.eval_images))

    def _for_judging(self) -> PoseSet:
        return self._examined("test", _first(self.whole_test(), self.eval_images))

    def whole_test(self) -> PoseSet:
        """The test split as annotated, of which ``eval_images`` may leave a part."""
        assert self.test_split is not None  # ground_truth has seen to it
        split = self.test_split
        return self._fetched("whole test", lambda: self._read(split))

    def _keep_apart(self, learnt_from: set[Path]) -> None:
        """Refuses images that a run learns from, or holds out of those, and is also judged on."""
        for name in {self.test_split, self.val_split} - {None}:
            both = sorted(learnt_from & {i.path for i in self._read(str(name)).images.values()})
            if both:
                raise DataError(
                    f"{len(both)} images of the split '{name}' are also trained on, such as {both[0]}; leave them out "
                    "of data.train_splits and data.extra_splits, or set data.overfit if that is the purpose"
                )


def _first(pose_set: PoseSet, count: int | None) -> PoseSet:
    return pose_set if count is None else pose_set.only(set(list(pose_set.images)[:count]))
