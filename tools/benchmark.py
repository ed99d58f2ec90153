"""Measure something: python tools/benchmark.py NAME ...

Each benchmark is a function that adds its arguments to a parser and says what runs it; :data:`BENCHMARKS` lists them.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from snn.memory import Row, measure
from snn.network import SpikingNetwork
from snn.networks import spiking_mlp, spiking_vgg11
from snn.rules import WEIGHTS_ONLY, Learn, set_rule
from vision.engine.command import run_command
from vision.engine.distributed import pick_device
from vision.engine.environment import machine_summary
from vision.engine.errors import ConfigError
from vision.engine.files import make_folder, to_json, write_atomically
from vision.engine.seeding import seed_everything


class _Parser(argparse.ArgumentParser):
    """A parser with subcommands; a subcommand's own options may stand in any order."""

    def parse_known_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        return self.parse_known_args(args, namespace)


def steps_of(text: str) -> list[int]:
    """Numbers of time steps: ``1,2,4``.

    Raises:
        ArgumentTypeError: one is no whole number of 1 or more.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of time steps of 1 or more; expected, say, 1,2,4")
    return [int(part) for part in parts]


def snn_memory(commands: Any) -> None:
    """Memory and time of one update of a spiking network over the number of time steps."""
    p = commands.add_parser("snn-memory", help="memory of an update of a spiking network, over time steps")
    p.add_argument("--rule", choices=("stop", "ottt", "sltt", "bptt"), default="stop", help="default: stop")
    p.add_argument("--network", choices=("vgg11", "mlp"), default="vgg11", help="default: vgg11")
    p.add_argument("--steps", type=steps_of, default=[1, 2, 4, 8, 16, 32], help="default: 1,2,4,8,16,32")
    p.add_argument("--learn", choices=("W", "WT", "WL", "WTL"), help="default: WTL; W for ottt and sltt")
    p.add_argument("--batch", type=int, default=4, help="samples (default: 4)")
    p.add_argument("--width", type=int, default=64, help="channels of VGG-11's first convolution (default: 64)")
    p.add_argument("--repeats", type=int, default=2, help="updates that are timed (default: 2)")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    p.add_argument("--json", metavar="FILE", help="write the rows as JSON; - prints them instead of the table")
    p.set_defaults(run=run_snn_memory)


def run_snn_memory(arguments: argparse.Namespace) -> int:
    """Measures, and prints the table or the JSON."""
    device = pick_device(arguments.device)
    if arguments.batch < 1 or arguments.width < 1 or arguments.repeats < 0:
        raise ConfigError("--batch and --width must be 1 or more, --repeats 0 or more")
    learn: Learn = arguments.learn or ("W" if arguments.rule in WEIGHTS_ONLY else "WTL")
    seed_everything(0)
    network: SpikingNetwork
    if arguments.network == "vgg11":
        network, shape = spiking_vgg11(width=arguments.width), (3, 32, 32)
    else:
        network, shape = spiking_mlp(784, [512, 512]), (1, 28, 28)
    set_rule(network, arguments.rule, learn)
    network.to(device)
    x = torch.rand(arguments.batch, *shape, device=device)
    rows = [measure(network, arguments.rule, x, steps, arguments.repeats) for steps in arguments.steps]
    about = {key: getattr(arguments, key) for key in ("rule", "network", "batch", "width")}
    result = {
        "benchmark": "snn-memory",
        **about,
        "learn": learn,
        "device": device.type,
        "machine": machine_summary(),
        "rows": [asdict(row) for row in rows],
    }
    if arguments.json == "-":
        print(to_json(result))
        return 0
    if arguments.json:
        make_folder(Path(arguments.json).resolve().parent)
        write_atomically(Path(arguments.json), (to_json(result, indent=1) + "\n").encode())
    title = f"{arguments.network}, {arguments.rule} of {learn}, batch {arguments.batch}, {device.type}"
    Console().print(memory_table(title, rows))
    return 0


def memory_table(title: str, rows: Sequence[Row]) -> Table:
    """The rows for people."""
    table = Table(title=title)
    for column in ("T", "kept for backward, MB", "states and traces, MB", "seconds"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(str(row.T), f"{row.bytes / 1e6:.2f}", f"{row.state_bytes / 1e6:.2f}", f"{row.seconds:.3f}")
    return table


BENCHMARKS: tuple[Callable[[Any], None], ...] = (snn_memory,)
"""What the command knows; each adds its own subcommand and sets ``run``."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = _Parser(
        description="Measure memory and speed.",
        epilog="example: python tools/benchmark.py snn-memory --rule stop --steps 1,2,4",
    )
    commands = p.add_subparsers(metavar="NAME", required=True, parser_class=argparse.ArgumentParser)
    for add in BENCHMARKS:
        add(commands)
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    return int(arguments.run(arguments))


if __name__ == "__main__":
    run_command(main)
