"""What is wrong with a set of annotations, counted by kind and named, before anything is trained on it."""

import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vision.engine.errors import DataError
from vision.pose.images import Orientation, glance, read_rgb
from vision.pose.records import ImageRecord, Instance, PoseSet, Problem

log = logging.getLogger(__name__)

Look = Literal["none", "header", "full"]

KINDS: dict[str, tuple[bool, str]] = {
    "missing image": (True, "fetch it"),
    "corrupt image": (True, "fetch it again"),
    "image of another size": (True, "use the image that was annotated"),
    "turned image": (True, "its EXIF orientation is meant: set orientation to upright"),
    "broken record": (True, "mend the annotation file"),
    "id given twice": (True, "number the records anew"),
    "image not listed": (True, "list the image or remove the person"),
    "wrong joint count": (True, "choose the skeleton of this data, or mend the record"),
    "not a number": (True, "mend the record"),
    "box without area": (True, "mend or remove the record"),
    "person outside the image": (True, "mend or remove the record"),
    "joint outside the image": (False, ""),
    "without keypoints": (False, ""),
    "crowd": (False, ""),
    "image without anyone": (False, ""),
    "area estimated": (False, ""),
}
"""By kind: whether it is an error, which stops training or leaves the record out, and the way to mend it."""

EXAMPLES = 3
READERS = 8  # threads: a look at a file is waiting for it

Size = tuple[int, int]


@dataclass
class Report:
    """What :func:`examine` found.

    Attributes:
        source: the annotation file.
        images: how many are listed.
        people: how many have a labelled joint, are no crowd and have no error.
        problems: everything found.
    """

    source: Path
    images: int
    people: int
    problems: list[Problem] = field(default_factory=list)

    @property
    def errors(self) -> list[Problem]:
        """What stops training or is left out."""
        return [problem for problem in self.problems if KINDS[problem.kind][0]]

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each kind, in the order of :data:`KINDS`."""
        counted = Counter(problem.kind for problem in self.problems)
        return {kind: counted[kind] for kind in KINDS if counted[kind]}

    def lines(self) -> list[str]:
        """The report as text: what there is, then a line a kind, errors with examples."""
        found = [f"{self.source}: {self.images} images, {self.people} people with labelled joints"]
        for kind, count in self.counts.items():
            error, mend = KINDS[kind]
            line = f"  {count} × {kind}"
            if error:
                first = [p for p in self.problems if p.kind == kind][:EXAMPLES]
                line += ": " + "; ".join(f"{p.where} ({p.detail})" if p.detail else p.where for p in first)
                line += f"{', ...' if count > EXAMPLES else ''} -> {mend}"
            found.append(line)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain counts and lists, for a run's records."""
        errors = [{"kind": p.kind, "where": p.where, "detail": p.detail} for p in self.errors]
        return {
            "source": self.source.name, "images": self.images, "people": self.people, "counts": self.counts,
            "errors": errors,
        }  # fmt: skip


def examine(pose_set: PoseSet, look: Look = "header", orientation: Orientation = "stored") -> Report:
    """Examines annotations and their image files.

    Args:
        pose_set: as read.
        look: how images are examined: ``header`` reads the first bytes for their size and the last for their end,
            ``full`` decodes every one, ``none`` does not touch them.
        orientation: how images will be read.

    Returns:
        The report; :func:`usable` acts on it.
    """
    problems = list(pose_set.problems)
    with ThreadPoolExecutor(READERS) as pool:
        looks = pool.map(lambda image: _look_at(image, look, orientation), pose_set.images.values())
    for image, (size, problem) in zip(pose_set.images.values(), looks, strict=True):
        if problem is not None:
            problems.append(problem)
        people = pose_set.instances.get(image.id, [])
        if not people:
            problems.append(Problem("image without anyone", f"image {image.id}", "", image.id))
        for person in people:
            problems += _person_problems(person, size)
    report = Report(pose_set.source, len(pose_set.images), 0, problems)
    report.people = len(without_errors(pose_set, report).people)
    return report


def without_errors(pose_set: PoseSet, report: Report) -> PoseSet:
    """The set without the images and people that have errors."""
    images = {p.image_id for p in report.errors if p.instance_id is None}
    people = {p.instance_id for p in report.errors} - {None}
    kept = pose_set.only(set(pose_set.images) - images)
    kept.instances = {key: [p for p in each if p.id not in people] for key, each in kept.instances.items()}
    kept.problems = []
    return kept


def usable(pose_set: PoseSet, report: Report, on_error: Literal["stop", "skip"] = "stop") -> PoseSet:
    """What can be trained and judged on; the report goes to the log.

    Args:
        pose_set: as examined.
        report: of it.
        on_error: ``stop`` raises where there is any error, ``skip`` leaves such images and people out.

    Raises:
        DataError: there are errors and ``on_error`` is ``stop``, or nobody with a labelled joint is left.
    """
    if report.errors and on_error == "stop":
        raise DataError(
            "\n".join([*report.lines(), "mend these, or set data.on_error: skip to leave such images and people out"])
        )
    for line in report.lines():
        log.log(logging.WARNING if report.errors else logging.INFO, "%s", line)
    kept = without_errors(pose_set, report)
    if not kept.people:
        raise DataError(f"{pose_set.source}: nobody in it has a labelled joint that can be used; check the split")
    return kept


def _look_at(image: ImageRecord, look: Look, orientation: Orientation) -> tuple[Size, Problem | None]:
    """The size of an image, 0 x 0 where nobody knows, and what is wrong with its file."""
    annotated, where = (image.width, image.height), str(image.path)
    if look == "none":
        return annotated, None
    if not image.path.is_file():
        return annotated, Problem("missing image", where, f"image {image.id}", image.id)
    try:
        size = glance(image.path, orientation)
        if look == "full":
            read_rgb(image.path, orientation)
        turned = size == annotated[::-1] and glance(image.path, "upright") == annotated
    except DataError as error:
        reason = str(error).removeprefix(f"{where}: ").split(";")[0]
        return annotated, Problem("corrupt image", where, reason, image.id)
    if not image.width or size == annotated:
        return size, None
    detail = f"{size[0]} x {size[1]}, annotated {image.width} x {image.height}"
    return annotated, Problem("turned image" if turned else "image of another size", where, detail, image.id)


def _person_problems(person: Instance, size: Size) -> Iterator[Problem]:
    where = f"person {person.id} of image {person.image_id}"

    def found(kind: str, detail: str = "") -> Problem:
        return Problem(kind, where, detail, person.image_id, person.id)

    numbers = np.array([*person.box, person.area])
    joints = np.zeros((0, 3), dtype=np.float32) if person.keypoints is None else person.keypoints
    if not (np.isfinite(numbers).all() and np.isfinite(joints).all()):
        yield found("not a number", f"box {list(person.box)}, area {person.area}" if np.isfinite(joints).all() else "")
        return
    if person.crowd:
        yield found("crowd")
        return
    if not person.labelled:
        yield found("without keypoints")
        return
    left, top, width, height = person.box
    if width <= 0 or height <= 0:
        yield found("box without area", f"{width:g} x {height:g}")
        return
    if not size[0]:
        return
    seen = joints[joints[:, 2] > 0, :2]
    inside = ((seen >= 0) & (seen <= size)).all(axis=1)  # annotators may click on the far edge
    if left >= size[0] or top >= size[1] or left + width <= 0 or top + height <= 0 or not inside.any():
        box = [round(value, 1) for value in person.box]
        yield found("person outside the image", f"box {box}, image {size[0]} x {size[1]}")
    elif not inside.all():
        yield found("joint outside the image", f"{(~inside).sum()} of {len(seen)}")
