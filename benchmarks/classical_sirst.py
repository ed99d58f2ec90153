"""Judge detectors without learning on infrared images: python benchmarks/classical_sirst.py [--root FOLDER].

They are scored as a network is, and leave what a run leaves: an evaluation folder for each, for benchmarks/collect.py.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision.engine.command import run_command
from vision.engine.environment import machine_summary
from vision.engine.evaluation import Evaluation, write_evaluation
from vision.engine.run import RunFolder
from vision.infrared.classical import local_z_score, top_hat
from vision.infrared.metrics import match_targets, score
from vision.infrared.reading import IRSTFolder, as_float

DETECTORS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.bool_]]] = {
    "top_hat_9": partial(top_hat, size=9),
    "top_hat_5": partial(top_hat, size=5),
    "local_z_score": local_z_score,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    data = os.environ.get("TRIPTYCH_DATA", "../shared/data")
    p = argparse.ArgumentParser(description="Score top-hat and local z-score detectors; no training.")
    p.add_argument("--root", default=f"{data}/sirst", help="folder with images/, masks/ and splits (default: SIRST)")
    p.add_argument("--split", default="nuaa50_test", help="default: nuaa50_test")
    p.add_argument("-o", "--output", type=Path, default=Path("runs/classical_sirst"), help="default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    images = IRSTFolder(arguments.root, arguments.split)
    for name, detect in DETECTORS.items():
        begun = time.perf_counter()
        found = [match_targets(detect(as_float(s.pixels)), s.mask) for s in images]
        evaluation = Evaluation(score(found), len(images), time.perf_counter() - begun)
        run = RunFolder(arguments.output / name)
        about = {
            "split": "test",
            "name": name,
            "data": {"type": "infrared_folder", "root": arguments.root, "test_split": arguments.split},
            "primary": "IoU",
            "mode": "max",
            "machine": machine_summary(),
        }
        write_evaluation(run.eval_dir("test"), evaluation, about)
        run.write_environment()
        figures = ", ".join(f"{key} {value:.4g}" for key, value in evaluation.metrics.items())
        print(f"{name}: {figures}")
    return 0


if __name__ == "__main__":
    run_command(main)
