"""Predict on a user's own files: python tools/predict.py RUN INPUT..."""

import argparse
import glob
import logging
from pathlib import Path

import torch

from vision.engine.command import run_command
from vision.engine.distributed import pick_device
from vision.engine.errors import DataError
from vision.engine.evaluation import png, to_device
from vision.engine.files import make_folder, to_json, write_atomically
from vision.engine.task import Task
from vision.engine.train import load_run

log = logging.getLogger("triptych.predict")

IMAGES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Predict on files with a trained run; writes a drawn image a file and predictions.json.",
        epilog="example: python tools/predict.py runs/tbcnet_lite_sirst photo.png folder/ 'more/*.bmp'",
    )
    p.add_argument("run", help="a run folder")
    p.add_argument("inputs", nargs="+", metavar="INPUT", help="files, folders (their images) and globs")
    p.add_argument("--checkpoint", default="best", help="best, last, or a file (default: best)")
    p.add_argument("-o", "--output", help="where to write (default: RUN/predict)")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    return p


def expand(inputs: list[str]) -> list[Path]:
    """The files that names, folders and globs mean, in order, each once.

    Raises:
        DataError: one of them means no file.
    """
    found: dict[Path, None] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)
        else:
            files = [path] if path.is_file() else [Path(p) for p in sorted(glob.glob(given, recursive=True))]
        if not files:
            raise DataError(f"{given}: no such file, and no images there ({', '.join(IMAGES)})")
        found.update(dict.fromkeys(files))
    return list(found)


@torch.no_grad()
def predict(task: Task, file: Path, device: torch.device) -> tuple[dict[str, object], bytes | None]:
    """The prediction for one file, as plain values and drawn as PNG."""
    batch = to_device(task.collate([task.read_input(str(file))]), device)
    prediction = task.predict(batch)[0]
    pictures = task.pictures(batch)
    return {"file": str(file), **prediction.to_dict()}, png(prediction.draw(pictures[0])) if pictures else None


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    files = expand(arguments.inputs)
    device = pick_device(arguments.device)
    task = load_run(Path(arguments.run), arguments.checkpoint, [])[2].to(device).eval()
    output = Path(arguments.output or Path(arguments.run) / "predict")
    make_folder(output)
    results, used, bad = [], set[str](), []
    for file in files:
        try:
            result, drawn = predict(task, file, device)
        except DataError as error:
            log.error("%s", error)
            bad.append(file)
            continue
        name = file.stem if file.stem not in used else f"{file.parent.name}_{file.stem}_{len(used)}"
        used.add(name)
        if drawn is not None:
            write_atomically(output / f"{name}.png", drawn)
        results.append(result)
    write_atomically(output / "predictions.json", (to_json(results, indent=1) + "\n").encode())
    print(output / "predictions.json")
    if bad:
        raise DataError(f"{len(bad)} of {len(files)} files could not be read (named above); the others are done")
    return 0


if __name__ == "__main__":
    run_command(main)
