"""Judge the released CIFAR-10 ResNets on exact test images: python benchmarks/released_resnets.py [--data FOLDER].

The weights were trained by others (github.com/akamaster/pytorch_resnet_cifar10); that they reach here what they are
published to reach checks our network, our data reading and our scores at once.
"""

import argparse
import hashlib
import os
from pathlib import Path

import torch

from vision.classification import Cifar10, cifar_resnet, load_weights
from vision.classification.task import Classification
from vision.engine.command import run_command
from vision.engine.distributed import World
from vision.engine.environment import machine_summary
from vision.engine.errors import DataError
from vision.engine.evaluation import evaluate, write_evaluation
from vision.engine.recipe import TrainerOptions
from vision.engine.run import RunFolder

WEIGHTS = {20: "resnet20-12fca82f.pt", 56: "resnet56-4bfd9763.pt"}
"""The released files, by depth."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What the release normalises by: ImageNet's values, not CIFAR's."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    data = os.environ.get("TRIPTYCH_DATA", "../shared/data")
    p = argparse.ArgumentParser(description="Score released ResNet-20 and ResNet-56 weights on CIFAR-10 test images.")
    p.add_argument("--data", type=Path, default=Path(data), help="holds cifar10/ and cifar_weights/ (%(default)s)")
    p.add_argument("--layout", default="npz", help="of cifar10/: npz, batches or npz_jpeg (default: %(default)s)")
    p.add_argument("-o", "--output", type=Path, default=Path("runs/released_resnets"), help="default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    root = arguments.data / "cifar10"
    data = Cifar10(root=str(root), layout=arguments.layout, mean=MEAN, std=STD)
    test = data.test()
    if test is None:
        raise DataError(f"{root}: holds no test images")
    for depth, name in WEIGHTS.items():
        file, network = arguments.data / "cifar_weights" / name, cifar_resnet(depth=depth)  # type: ignore[arg-type]
        load_weights(network, file)
        task = Classification(data, network)
        found = evaluate(task, test, World(torch.device("cpu")), TrainerOptions(epochs=1, eval_batch_size=128))
        run = RunFolder(arguments.output / f"resnet{depth}")
        about = {
            "split": "test",
            "name": f"released_resnet{depth}",
            "data": {"type": "cifar10", "root": str(root), "layout": arguments.layout},
            "network": {"type": "cifar_resnet", "depth": depth},
            "parameters": sum(p.numel() for p in network.parameters()),
            "primary": "accuracy",
            "mode": "max",
            "checkpoint": name,
            "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "machine": machine_summary(),
        }
        write_evaluation(run.eval_dir("test"), found, about)
        run.write_environment()
        print(f"ResNet-{depth}: accuracy {found.metrics['accuracy']:.4f} on {found.samples} images")
    return 0


if __name__ == "__main__":
    run_command(main)
