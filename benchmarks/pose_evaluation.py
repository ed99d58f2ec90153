"""What scoring poses costs beside pycocotools: python benchmarks/pose_evaluation.py [-o FILE].

The same annotations and the same rows of results, already parsed, through pycocotools as its documentation uses it and
through ours. The people are made, in the numbers of the data sets; the figures of both are compared first. The two take
turns in one process; what counts is the median over rounds of the ratio of CPU seconds.
"""

import argparse
import contextlib
import datetime
import io
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import RESULTS, check
from vision.engine.command import run_command
from vision.engine.environment import git_commit, machine_summary
from vision.engine.errors import UserError
from vision.engine.files import write_json
from vision.pose.coco_eval import Found, Truth, evaluate, evaluator_in_use
from vision.pose.keypoints import skeleton

AIM = 0.25
TOLERANCE = 1e-9
FIGURES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
SIGMAS = skeleton("coco").sigmas

Rows = list[dict[str, Any]]
Document = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A data set's numbers.

    Attributes:
        what: the name of the row.
        images: how many.
        people: annotated.
        unlabelled: share of the people without joints.
        poses: found.
    """

    what: str
    images: int
    people: int
    unlabelled: float
    poses: int


CASES = (
    Case("COCO val2017's numbers, 10 poses an image", 5_000, 11_004, 0.42, 50_000),
    Case("OCHuman val's numbers, 3 poses an image", 2_500, 4_291, 0.0, 7_500),
)


def made(case: Case, seed: int = 0) -> tuple[Document, Rows]:
    """Annotated people spread over images, and poses around them from close by to far off, with random scores."""
    rng = np.random.default_rng(seed)
    image = np.sort(rng.integers(1, case.images + 1, case.people))
    sides = np.exp(rng.uniform(np.log(20), np.log(400), (case.people, 2)))
    corners = rng.uniform(0, 300, (case.people, 2))
    joints = np.concatenate([corners[:, None] + sides[:, None] * rng.random((case.people, 17, 2)),
                             rng.integers(0, 3, (case.people, 17, 1))], -1).round()  # fmt: skip
    joints[rng.random(case.people) < case.unlabelled, :, 2] = 0
    people = [
        {"id": n + 1, "image_id": int(image[n]), "category_id": 1, "iscrowd": int(rng.random() < 0.02),
         "area": float(0.53 * sides[n].prod()), "bbox": [*corners[n].tolist(), *sides[n].tolist()],
         "keypoints": joints[n].ravel().tolist(), "num_keypoints": int((joints[n, :, 2] > 0).sum())}
        for n in range(case.people)
    ]  # fmt: skip
    whose = rng.integers(0, case.people, case.poses)
    offset = rng.choice([0.01, 0.03, 0.1, 0.5], case.poses)[:, None] * sides[whose]
    poses = joints[whose].astype(float)
    poses[..., :2] += offset[:, None] * rng.normal(size=(case.poses, 17, 2))
    rows = [
        {"image_id": int(image[n]), "category_id": 1, "keypoints": pose.ravel().tolist(), "score": float(score)}
        for n, pose, score in zip(whose, poses, rng.random(case.poses), strict=True)
    ]
    images = [{"id": n} for n in range(1, case.images + 1)]
    return {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}, rows


def theirs(document: Document, rows: Rows) -> dict[str, float]:
    """The figures by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = document
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(rows), "keypoints")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return dict(zip(FIGURES, judged.stats.tolist(), strict=True))


def ours(document: Document, rows: Rows) -> dict[str, float]:
    """The figures by our evaluation."""
    return evaluate(Truth.from_coco(document), Found.from_rows(rows), SIGMAS)


def timed(run: Callable[[Document, Rows], dict[str, float]], document: Document, rows: Rows) -> float:
    """CPU seconds of one evaluation, of records of its own since pycocotools writes into them."""
    fresh = document | {"annotations": [dict(person) for person in document["annotations"]]}
    copies = [dict(row) for row in rows]
    begun = time.process_time()
    run(fresh, copies)
    return time.process_time() - begun


def compare(case: Case, seconds: float) -> dict[str, Any]:
    """Rounds of both in turn for about ``seconds``, after their figures were found equal."""
    document, rows = made(case)
    difference = differ(ours(document, rows), theirs(document, [dict(row) for row in rows]))
    times: list[tuple[float, float]] = []
    begun = time.perf_counter()
    for first in cycle((True, False)):
        order = (ours, theirs) if first else (theirs, ours)
        taken = {run: timed(run, document, rows) for run in order}
        times.append((taken[ours], taken[theirs]))
        if len(times) >= 4 and len(times) % 2 == 0 and time.perf_counter() - begun > seconds:
            break
    ratios = [mine / reference for mine, reference in times]
    mine, reference = (statistics.median(each) for each in zip(*times, strict=True))
    ratio = statistics.median(ratios)
    print(
        f"{case.what}: ours {mine:.3f} s, pycocotools {reference:.3f} s, ratio {ratio:.4f} "
        f"({min(ratios):.4f} to {max(ratios):.4f}), {len(times)} rounds; figures differ by {difference:.1e} at most"
    )
    return {
        "what": case.what, "against": "pycocotools", "ours": round(mine, 4), "theirs": round(reference, 4),
        "ratio": round(ratio, 4), "aim": AIM, "repeats": len(times),
    }  # fmt: skip


def differ(mine: dict[str, float], reference: dict[str, float]) -> float:
    """The largest difference between the figures of both.

    Raises:
        UserError: they are not the same.
    """
    worst = max(abs(mine.get(name, -1.0) - value) for name, value in reference.items())
    if worst > TOLERANCE:
        raise UserError(f"the figures differ by {worst}: ours {mine}, pycocotools {reference}; nothing was timed")
    return worst


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Time the evaluation of poses beside pycocotools, on one CPU thread.")
    p.add_argument("--seconds", type=float, default=60.0, help="for each data set, default: %(default)s")
    p.add_argument("-o", "--output", type=Path, default=RESULTS / "pose_evaluation.json", help="default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    document = {
        "kind": "comparison",
        "title": "Scoring poses beside pycocotools",
        "command": "python benchmarks/pose_evaluation.py",
        "unit": "CPU s an evaluation",
        "better": "lower",
        "note": f"From parsed annotations and results to the ten figures of COCO, which are equal to {TOLERANCE:.0e}; "
        f"ours by {evaluator_in_use()}. Made people in the numbers of the data sets. Medians over rounds taken in "
        "turn; the ratio is the median of each round's.",
        "rows": [compare(case, arguments.seconds) for case in CASES],
        "machine": machine_summary(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    check(document, "pose_evaluation")
    write_json(arguments.output, document)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)
