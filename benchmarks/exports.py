"""Export trained runs in every format and precision, and judge the files: python benchmarks/exports.py RUN...

Every run is exported as ``tools/export.py`` does it. What comes out, kept or rejected, is then held to PyTorch as a
user sees it: the runner's drawing beside the task's, on real samples.
"""

import argparse
import datetime
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import RESULTS, check, of_commits
from vision.deploy.export import Options, export, samples
from vision.deploy.runner import Predictor
from vision.deploy.source import source_of
from vision.deploy.torch_package import PackageSession
from vision.engine.command import run_command
from vision.engine.deployment import DeploymentError
from vision.engine.environment import git_commit, machine_summary
from vision.engine.errors import ConfigError, UserError
from vision.engine.evaluation import png
from vision.engine.files import make_folder, read_json, to_json, write_atomically, write_json
from vision.engine.predicting import TaskPredictor
from vision.engine.task import Picture, Task

WAYS = ("onnx-fp32", "onnx-fp16", "onnx-int8", "torch-fp32")
"""Formats with their precisions."""
NOTE = (
    "Differences are shares of the output's largest value, over all outputs of a graph, on the first samples of the "
    "validation split. Pixels are those that differ between the runner's drawings and PyTorch's, of so many pictures; "
    "where none differs the drawing is the same byte by byte."
)


@dataclass
class Shown:
    """A sample as a user would give it.

    Attributes:
        given: a file, pixels or a recording.
        name: of the prediction.
        number: of the image in COCO results.
        box: of the person, for networks that look at one at a time.
    """

    given: Any
    name: str
    number: int
    box: Any = None


def shown(task: Task, count: int, limit: int) -> Iterator[Shown]:
    """The first samples of the validation split; of images without a file, the pixels they are drawn on."""
    dataset = samples(task, Options(limit=limit))
    recordings = getattr(task.data, "parts", None)
    for place in range(min(count, len(dataset))):  # type: ignore[arg-type]
        sample = dataset[place]
        name = str(sample["id"])
        if recordings is not None:
            pool = recordings()[0]
            given: Any = pool.read(pool.ids.index(name))
        elif "file" in sample:
            given = str(sample["file"])
        else:
            given = task.pictures(task.collate([sample]))[0]
        box = sample["box"].tolist() if "box" in sample else None
        yield Shown(given, name, int(sample.get("image_id", place)), box)


def both_drawn(task: Task, predictor: Predictor, sample: Shown) -> tuple[Picture, Picture]:
    """PyTorch's drawing and the runner's; rasters, which a file does not show, are left out of both."""
    by_task = TaskPredictor(task, torch.device("cpu"))
    regions = None if sample.box is None else (lambda picture, name: [(tuple(sample.box), 1.0)])
    expected, picture = by_task.given(sample.given, sample.name, sample.number, regions)
    assert picture is not None
    if hasattr(expected, "rasters"):
        expected.rasters = {}
    found = predictor.predict(sample.given, None if sample.box is None else [sample.box], sample.name, sample.number)
    return expected.draw(picture), found.draw(predictor.picture(sample.given))


def drawings(task: Task, predictor: Predictor, folder: Path, count: int, limit: int) -> dict[str, Any]:
    """How many pictures there are, and the share of their pixels that differ; pairs lie in ``folder``."""
    apart: list[NDArray[np.bool_]] = []
    make_folder(folder)
    for place, sample in enumerate(shown(task, count, limit)):
        ours, files = both_drawn(task, predictor, sample)
        apart.append((ours != files).any(-1).ravel())
        write_atomically(folder / f"{place}.png", png(np.concatenate((ours, files), axis=1)))
    if not apart:
        return {"pictures": 0, "differ": None}
    return {"pictures": len(apart), "differ": float(np.concatenate(apart).mean())}


def judged(
    run: Path, way: str, work: Path, pictures: int, limit: int, overrides: Sequence[str] = ()
) -> dict[str, Any]:  # fmt: skip
    """The row of one run in one format and precision.

    Args:
        run: its folder.
        way: one of :data:`WAYS`.
        work: where files go.
        pictures: drawn by both.
        limit: samples that are compared.
        overrides: ``a.b=c`` changes to the run's configuration.
    """
    kind, _, precision = way.partition("-")
    task, origin, _ = source_of(run, "best", list(overrides))
    folder, begun, said = work / way, time.process_time(), ""
    try:
        export(task, origin, folder, Options(kind=kind, precision=precision, limit=limit))
    except DeploymentError as error:
        said = str(error).replace(f"{work}/{way}", "NAME")
    seconds = round(time.process_time() - begun, 1)
    made = folder.with_name(f"{folder.name}.rejected") if said else folder
    report = made / "parity.json"
    parity = read_json(report) if report.is_file() else None
    found = {
        "commit": git_commit(), "run": run.name, "overrides": list(overrides), "task": origin.task, "step": origin.step,
        "format": kind, "precision": precision, "passed": parity is not None and parity["passed"], "said": said,
        "samples": parity["samples"] if parity else None, "seconds": seconds,
        "bytes": sum(f.stat().st_size for f in made.glob("*") if f.suffix in (".onnx", ".pt2")) or None,
        "graphs": [_graph(name, graph) for name, graph in parity["graphs"].items()] if parity else [],
        "metric": parity["metric"] if parity else None,
        "divergence": {g: d["layer"] for g, d in parity["divergence"].items()} if parity else {},
    }  # fmt: skip
    try:
        return {**found, "drawn": drawings(task, _predictor(made, task), work / "drawn" / way, pictures, limit)}
    except UserError:  # nothing was written that could be opened
        return {**found, "drawn": None}


def _graph(name: str, graph: dict[str, Any]) -> dict[str, Any]:
    outputs = [*graph["outputs"].values(), *([graph["driven"]] if "driven" in graph else [])]
    return {
        "graph": name,
        "calls": graph["calls"],
        "largest": max(output["largest"] / max(output["scale"], 1e-6) for output in outputs),
        "mean": max(output["mean"] / max(output["scale"], 1e-6) for output in outputs),
        "cosine": min(output["cosine"] for output in outputs),
        "by_float64": "float64" in graph,
    }


def _predictor(folder: Path, task: Task) -> Predictor:
    if not any(folder.glob("*.pt2")):
        return Predictor(folder, threads=1)
    deployment = task.deployment()
    files = {graph.name: folder / f"{graph.name}.pt2" for graph in deployment.graphs}
    return Predictor(folder, session=PackageSession(files, deployment))


def document_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A results document of kind ``exports``."""
    return {
        "kind": "exports",
        "title": "Exports of trained runs",
        "command": "python benchmarks/exports.py RUN...",
        "note": NOTE + of_commits(rows, git_commit()),
        "rows": rows,
        "machine": machine_summary(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Export trained runs in every format and precision, and judge the files.")
    p.add_argument("runs", nargs="+", metavar="RUN [a.b=c ...]", help="folders of runs, each with its own overrides")
    p.add_argument("--way", action="append", choices=WAYS, help="again for others (default: all)")
    p.add_argument("--pictures", type=int, default=8, help="drawn by both (default: %(default)s)")
    p.add_argument("--limit", type=int, default=64, help="samples that are compared (default: %(default)s)")
    p.add_argument("--work", type=Path, default=Path("runs/exports"), help="files; what is there is kept (%(default)s)")
    p.add_argument("-o", "--output", type=Path, default=RESULTS / "exports.json", help="default: %(default)s")
    return p


def asked(words: Sequence[str]) -> list[tuple[Path, list[str]]]:
    """Runs, each with the overrides that follow it.

    Raises:
        ConfigError: no such folder.

    Example:
        >>> asked([".", "data.limit=3"])
        [(PosixPath('.'), ['data.limit=3'])]
    """
    found: list[tuple[Path, list[str]]] = []
    for word in words:
        if "=" in word and found:
            found[-1][1].append(word)
        elif Path(word).is_dir():
            found.append((Path(word), []))
        else:
            raise ConfigError(f"{word}: no such folder; expected the folder of a run")
    return found


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for run, overrides in asked(arguments.runs):
        work = arguments.work / "_".join([run.name, *("".join(filter(str.isalnum, each)) for each in overrides)])
        for way in arguments.way or WAYS:
            kept = work / f"{way}.json"
            if not kept.is_file():
                row = judged(run, way, work, arguments.pictures, arguments.limit, overrides)
                print(to_json(row), flush=True)
                write_json(kept, row)
            rows.append(read_json(kept))
    document = document_of(rows)
    check(document, "exports")
    write_json(arguments.output, document)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)
