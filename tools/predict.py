"""Predict on a user's own files: python tools/predict.py RUN INPUT..."""

import argparse
import logging
from pathlib import Path

import torch

from vision.deploy.runner import ExportedFiles, Predictor, exported, is_engine
from vision.deploy.session import PROVIDERS, onnxruntime
from vision.deploy.shipped import home_of, place_of
from vision.engine.command import run_command
from vision.engine.distributed import pick_device
from vision.engine.errors import ConfigError, DataError
from vision.engine.files import make_folder, to_json, write_atomically
from vision.engine.inputs import expand
from vision.engine.predicting import FilePredictor, Predicts, TaskPredictor
from vision.engine.train import load_run
from vision.engine.video import VIDEOS
from vision.pose.people import BOX_SCORE, BoxesOfFile, numbers_of, regions_of

log = logging.getLogger("triptych.predict")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Predict on files with a trained run or an exported network; writes each file drawn (a video as a "
        "video), predictions.json, and of poses coco_results.json.",
        epilog="example: python tools/predict.py runs/tbcnet_lite_sirst photo.png folder/ 'more/*.bmp'",
    )
    p.add_argument(
        "run", help="a run folder, an exported ONNX file or engine or their folder, or the name of a network that ships"
    )
    p.add_argument("inputs", nargs="+", metavar="INPUT", help="images, videos, folders (their images) and globs")
    p.add_argument("--checkpoint", default="best", help="best, last, or a file (default: best)")
    p.add_argument("-o", "--output", help="where to write (default: RUN/predict, shipped/NAME/predict, beside a file)")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    p.add_argument(
        "--boxes",
        metavar="WHERE",
        help="where the people are, for a network that looks at one at a time: image (one person fills it; the "
        "default), a .json file of COCO annotations or detections, or the .pth weights of a torchvision detector",
    )
    p.add_argument("--detector", metavar="NAME", help="torchvision's name of the detector, if its file does not tell")
    p.add_argument(
        "--box-score",
        type=float,
        default=BOX_SCORE,
        metavar="S",
        help="leave out less sure boxes (default: %(default)s)",
    )
    return p


def network_of(path: Path, checkpoint: str, asked: str) -> tuple[Predicts, Path]:
    """What predicts, a trained run or an exported network, and the folder that predictions go below.

    Args:
        path: the run's folder, or the exported file or its folder.
        checkpoint: of a run.
        asked: ``auto`` takes a GPU where there is one and, for an exported network, ONNX Runtime can use it.

    Raises:
        ConfigError: a checkpoint of an exported network, which has one set of weights.
    """
    device = pick_device(asked)
    if not exported(path):
        return TaskPredictor(load_run(path, checkpoint, [])[2].to(device).eval(), device), home_of(path)
    if checkpoint != "best":
        raise ConfigError(f"{path}: is an exported network; leave out --checkpoint, or give the run")
    return ExportedFiles(Predictor(path, _of_exported(path, asked, device))), path if path.is_dir() else path.parent


def _of_exported(path: Path, asked: str, device: torch.device) -> str | None:
    """Where an exported network runs; of ``auto`` an engine decides itself, and ONNX Runtime by what it can do."""
    if asked == "auto" and is_engine(path):
        return None
    unusable = asked == "auto" and PROVIDERS[device.type] not in onnxruntime().get_available_providers()
    return "cpu" if unusable else device.type


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    files = expand(arguments.inputs)
    device = pick_device(arguments.device)
    regions = None
    if arguments.boxes is not None:
        regions = regions_of(arguments.boxes, arguments.box_score, device, arguments.detector)
    predicts, home = network_of(place_of(arguments.run), arguments.checkpoint, arguments.device)
    output = Path(arguments.output or home / "predict")
    make_folder(output)
    images = [file for file in files if file.suffix.lower() not in VIDEOS]
    numbers = numbers_of(images, regions if isinstance(regions, BoxesOfFile) else None)
    predictor, bad = FilePredictor(predicts, output, regions, numbers), []
    for file in files:
        try:
            predictor.file(file)
        except DataError as error:
            log.error("%s", error)
            bad.append(file)
    if predictor.results:
        write_atomically(output / "coco_results.json", (to_json(predictor.results) + "\n").encode())
    write_atomically(output / "predictions.json", (to_json(predictor.predictions, indent=1) + "\n").encode())
    print(output / "predictions.json")
    if bad:
        raise DataError(f"{len(bad)} of {len(files)} files could not be read (named above); the others are done")
    return 0


if __name__ == "__main__":
    run_command(main)
