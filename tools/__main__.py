"""``triptych COMMAND ...``: the tools under one name. ``triptych train`` is ``python tools/train.py``."""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

from vision.engine.command import run_command
from vision.engine.errors import UserError, nearest

COMMANDS = {
    "train": "train a recipe, or a pipeline of them, into a run folder",
    "eval": "score a run's checkpoint on a split of its data",
    "predict": "draw and write down what a trained network says about images",
    "demo": "try trained networks on a page in the browser",
    "export": "write a trained network as ONNX or a package of PyTorch, and show that it is equal",
    "convert": "turn released checkpoints of DHRNet, CID and HRNet into ours, and back",
    "report": "turn run folders into one page that can be read in a browser",
    "benchmark": "measure memory and speed",
    "doctor": "check versions, devices and data, and say what would mend them",
}

USAGE = "usage: triptych COMMAND ...\n       triptych COMMAND --help\n"


def overview() -> str:
    """What ``triptych --help`` prints: every command with one line on it."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join([USAGE, "commands:", *lines])


def main(argv: list[str] | None = None) -> int:
    """Hands the arguments after the command's name to that tool's ``main``.

    Args:
        argv: the command and its arguments; by default the process's own.

    Returns:
        The exit status: the tool's, or 0 for ``--help`` and ``--version``.

    Raises:
        UserError: no command, or none of that name.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(f"triptych {version('triptych')}")
        return 0
    if name not in COMMANDS:
        given = f"no command '{name}'{nearest(name, COMMANDS)}" if name else "no command given"
        raise UserError(f"{given}; expected one of: {', '.join(COMMANDS)}")
    sys.argv = [f"triptych {name}", *rest]  # so that the tool's own --help names itself as it was called
    return int(import_module(f"{__package__}.{name}").main(rest) or 0)


def run() -> NoReturn:
    """The console script: :func:`main`, with the package's exit statuses."""
    run_command(main)


if __name__ == "__main__":
    run()
