"""Write the sample digits and the sample infrared scene of vision/samples: python benchmarks/sample_images.py.

The digits are the first of the test split of the data set ``digits``; the scene is drawn as those of
``infrared_synthetic`` are, from a seed that neither training nor judging uses. Nothing is chosen by what
a network says.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.classification.digits import Digits
from vision.engine.command import run_command
from vision.infrared.backgrounds import procedural_background
from vision.infrared.synthesis import Scene, SynthTargets

SAMPLES = Path(__file__).resolve().parents[1] / "vision" / "samples"
DIGITS = 4
SEED = (3, 1)
"""Of the scene; validation scenes have seeds (1, index), test scenes (2, index)."""
SIZE = 256


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Write the sample digits and the sample infrared scene.")
    p.add_argument("-o", "--output", type=Path, default=SAMPLES, help="folder (default: vision/samples)")
    return p


def digits() -> dict[str, NDArray[np.uint8]]:
    """The first digits of the test split, uint8 ``[8, 8]``, by what their files are called: place and class."""
    pool, held = Digits().partition("test")
    chosen = [int(index) for index in held[:DIGITS]]
    return {f"digit_{i:04d}_is_{int(pool.labels[i])}": pool.pixels[i, 0].numpy() for i in chosen}


def scene() -> Scene:
    """The synthetic scene, as float32 ``[SIZE, SIZE]`` in [0, 1]."""
    rng = np.random.default_rng(SEED)
    return SynthTargets()(rng, procedural_background(rng, SIZE, SIZE))


def images() -> dict[str, NDArray[np.uint8]]:
    """Every sample by its place below the folder, uint8."""
    found = {f"digits/{name}.png": pixels for name, pixels in digits().items()}
    return found | {"infrared/scene.png": np.rint(scene().image * 255).astype(np.uint8)}


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    output: Path = parser().parse_args(argv).output
    for name, pixels in images().items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(output / name, optimize=True)
        print(output / name)
    return 0


if __name__ == "__main__":
    run_command(main)
