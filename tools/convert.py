"""Convert checkpoints of DHRNet, CID and HRNet: python tools/convert.py FILE -o OUT."""

import argparse
from pathlib import Path

from vision.engine.command import run_command
from vision.pose.convert import convert


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Convert a checkpoint of the released DHRNet, CID or HRNet code to ours (.safetensors) or back "
        "(.pth). Every name and shape is held against the network; nothing in a pickle is run.",
        epilog="example: python tools/convert.py model_best.pth.tar -o dhrnet_w32_coco.safetensors",
    )
    p.add_argument("checkpoint", type=Path, metavar="FILE", help=".safetensors, .pth, .pt or .pth.tar")
    p.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT",
        help=".safetensors for this package, .pth for the released code",
    )  # fmt: skip
    p.add_argument("--partial", action="store_true", help="also where tensors are missing, unknown or of another shape")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    for line in convert(arguments.checkpoint, arguments.output, arguments.partial).lines():
        print(line)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)
