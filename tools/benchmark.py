"""Measure something: python tools/benchmark.py speed WHAT [--against WHAT2].

Each benchmark is a function that adds its arguments to a parser and says what runs it; :data:`BENCHMARKS` lists them.
"""

import argparse
import datetime
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from snn.memory import Row, measure
from snn.network import SpikingNetwork
from snn.networks import spiking_mlp, spiking_vgg11
from snn.rules import WEIGHTS_ONLY, Learn, set_rule
from vision.deploy.backends import How, graph_runner
from vision.deploy.benchmark import HEAD, Plan, cells, run, sentences
from vision.deploy.comparing import count_of
from vision.deploy.conditions import Conditions, watched
from vision.deploy.counting import in_words
from vision.deploy.naming import BACKENDS, PRECISIONS, parse
from vision.deploy.pipeline import Watch, table_rows, time_exported, time_stages
from vision.deploy.runner import Predictor, exported, is_engine
from vision.deploy.shipped import place_of
from vision.deploy.subjects import Size, Subject, subject_of
from vision.engine.arguments import rows_and_columns, whole_number, whole_numbers
from vision.engine.command import run_command
from vision.engine.distributed import pick_device
from vision.engine.environment import core_count, git_commit, machine_summary
from vision.engine.errors import ConfigError
from vision.engine.files import make_folder, to_json, write_atomically
from vision.engine.inputs import expand
from vision.engine.seeding import seed_everything
from vision.engine.train import load_run
from vision.pose.people import BOX_SCORE, regions_of
from vision.report.speed import draw

USUAL: dict[str, Size] = {
    **dict.fromkeys(("dhrnet", "cid"), (512, 512)),
    "tbcnet": (512, 640),
    **dict.fromkeys(
        ("cifar_resnet", "cifar_resnet8x4", "cifar_resnet32x4", "mobilenet_v2_half", "preact_resnet", "preact_resnet18",
         "resnet_small_images", "shufflenet_v1", "shufflenet_v2", "small_resnet", "spiking_resnet18", "spiking_vgg11",
         "vgg", "wide_resnet"),
        (32, 32),
    ),
    "spiking_lenet5": (34, 34),
    "digits_cnn": (8, 8),
}  # fmt: skip
"""Rows and columns that networks are measured at, which take any and do not tell their own."""

WIDE_ENOUGH = 200


class _Parser(argparse.ArgumentParser):
    """A parser with subcommands; a subcommand's own options may stand in any order."""

    def parse_known_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        return self.parse_known_args(args, namespace)


def snn_memory(commands: Any) -> None:
    """Memory and time of one update of a spiking network over the number of time steps."""
    p = commands.add_parser("snn-memory", help="memory of an update of a spiking network, over time steps")
    p.add_argument("--rule", choices=("stop", "ottt", "sltt", "bptt"), default="stop", help="default: stop")
    p.add_argument("--network", choices=("vgg11", "mlp"), default="vgg11", help="default: vgg11")
    p.add_argument("--steps", type=whole_numbers, default=[1, 2, 4, 8, 16, 32], help="default: 1,2,4,8,16,32")
    p.add_argument("--learn", choices=("W", "WT", "WL", "WTL"), help="default: WTL; W for ottt and sltt")
    p.add_argument("--batch", type=whole_number, default=4, help="samples (default: 4)")
    p.add_argument(
        "--width", type=whole_number, default=64, help="channels of VGG-11's first convolution (default: 64)"
    )
    p.add_argument("--repeats", type=int, default=2, help="updates that are timed (default: 2)")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    p.add_argument("--json", metavar="FILE", help="write the rows as JSON; - prints them instead of the table")
    p.set_defaults(run=run_snn_memory)


def run_snn_memory(arguments: argparse.Namespace) -> int:
    """Measures, and prints the table or the JSON."""
    device = pick_device(arguments.device)
    if arguments.repeats < 0:
        raise ConfigError(f"--repeats {arguments.repeats}: expected 0 or more")
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


def names_of(text: str) -> tuple[str, ...]:
    """Backends: ``eager,onnxruntime``.

    Raises:
        ArgumentTypeError: one is unknown.
    """
    parts = tuple(part.strip() for part in text.split(","))
    if not set(parts) <= set(BACKENDS):
        raise argparse.ArgumentTypeError(f"'{text}': expected some of {', '.join(BACKENDS)}")
    return parts


def _subject_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--size", type=rows_and_columns, metavar="ROWSxCOLUMNS", help="of the input (default: the network's usual)"
    )
    p.add_argument("--graph", help="of a network that is exported as several: which (default: the first)")
    p.add_argument("--people", type=whole_number, default=1, help="in a graph that takes people (default: 1)")
    p.add_argument("--checkpoint", default="best", help="of a run: best, last, or a file (default: best)")
    p.add_argument("--trust", action="store_true", help="open .pt2 packages too: they hold code, which then runs")


def _result_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--json", metavar="FILE", help="write the result as JSON; - prints it instead of the table")


WHAT = (
    "a registered network (mamkpd_l, cifar_resnet:depth=20), one that ships, a recipe, a run folder or an exported "
    "file; @BACKEND or @BACKEND-PRECISION at its end says what runs it (mamkpd_l@onnxruntime-int8)"
)


def speed(commands: Any) -> None:
    """Latency, throughput, memory and size."""
    p = commands.add_parser("speed", help="latency, throughput, memory and size of networks and exported files")
    p.add_argument("what", nargs="+", metavar="WHAT", help=WHAT)
    p.add_argument("--against", metavar="WHAT2", help="measure this in turn with it, and give the ratio")
    p.add_argument(
        "--backend", type=names_of, default=("eager",), help=f"some of {','.join(BACKENDS)} (default: eager)"
    )
    p.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    p.add_argument("--batch", type=whole_numbers, default=[1], metavar="N,...", help="samples at once (default: 1)")
    p.add_argument("--threads", type=whole_number, default=core_count(), help="of the CPU (default: all %(default)s)")
    p.add_argument("--rounds", type=whole_number, default=10, help="turns that each takes (default: 10)")
    p.add_argument("--seconds", type=float, default=5.0, help="that each is timed for (default: 5)")
    p.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time, of one thread")
    p.add_argument("--as-trained", action="store_true", help="leave batch norms and branches as they were trained")
    p.add_argument("--no-memory", action="store_true", help="leave out peak memory, which takes another process")
    p.add_argument("--plot", metavar="FILE.png", help="draw speed over batch, and beside accuracy where that is known")
    _subject_arguments(p)
    _result_arguments(p)
    p.set_defaults(run=run_speed)


def _subject(text: str, arguments: argparse.Namespace, folded: bool = True) -> Subject:
    return subject_of(
        parse(text), arguments.size, USUAL, arguments.checkpoint, folded, arguments.graph, arguments.people,
        arguments.trust,
    )  # fmt: skip


def run_speed(arguments: argparse.Namespace) -> int:
    """Measures, and prints the table or the JSON."""
    plan = Plan(
        arguments.backend, arguments.precision, pick_device(arguments.device).type, tuple(arguments.batch),
        arguments.threads, arguments.rounds, arguments.seconds, arguments.clock, not arguments.no_memory,
    )  # fmt: skip
    folded = not arguments.as_trained
    subjects = [_subject(text, arguments, folded) for text in arguments.what]
    against = _subject(arguments.against, arguments, folded) if arguments.against else None
    result = run(subjects, against, plan)
    if arguments.plot:
        make_folder(Path(arguments.plot).resolve().parent)
        where = ", ".join(result["machine"]["gpus"]) if plan.device == "cuda" else result["machine"]["cpu"]
        title = f"{where}, {plan.threads} CPU thread{'s' * (plan.threads > 1)}"
        write_atomically(Path(arguments.plot), draw(result["rows"], title))
    if not _wrote(result, arguments):
        _show(HEAD, [cells(row) for row in result["rows"]], sentences(result), result["warnings"])
    return 0


def _wrote(result: dict[str, Any], arguments: argparse.Namespace) -> bool:
    """Writes the JSON where that was asked for; whether it went to standard output."""
    if arguments.json == "-":
        print(to_json(result))
        return True
    if arguments.json:
        make_folder(Path(arguments.json).resolve().parent)
        write_atomically(Path(arguments.json), (to_json(result, indent=2) + "\n").encode())
    return False


def _show(head: Sequence[str], rows: Sequence[Sequence[str]], told: Sequence[str], warnings: Sequence[str]) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = WIDE_ENOUGH  # a file or another program: nothing is folded
    table = Table(*head)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in told:
        console.print(line, markup=False, highlight=False)
    for line in warnings:
        console.print(f"warning: {line}", style="yellow", markup=False, highlight=False)


def count(commands: Any) -> None:
    """Parameters and multiply-accumulates."""
    p = commands.add_parser("count", help="parameters and multiply-accumulates of networks")
    p.add_argument(
        "what", nargs="+", metavar="WHAT", help="a registered network, one that ships, a recipe or a run folder"
    )
    _subject_arguments(p)
    _result_arguments(p)
    p.set_defaults(run=run_count)


def run_count(arguments: argparse.Namespace) -> int:
    """Counts, and prints the table or the JSON."""
    rows = []
    for text in arguments.what:
        subject = _subject(text, arguments)
        found = count_of(subject)
        if found is None:
            raise ConfigError(f"{text}: an exported file is not looked into; count the run or network it came from")
        shapes = {key: list(subject.shape(key, 1)) for key in subject.shapes}
        rows.append({"what": subject.label, "shapes": shapes, **asdict(found)})
    if not _wrote({"benchmark": "count", "rows": rows}, arguments):
        kinds = list(dict.fromkeys(kind for row in rows for kind in row["by_kind"]))
        shown = []
        for row in rows:
            sides = " ".join("x".join(map(str, shape)) for shape in row["shapes"].values())
            own = [in_words(row["by_kind"].get(kind, 0)) for kind in kinds]
            shown.append([row["what"], sides, f"{row['parameters']:,}", in_words(row["macs"]), *own])
        _show(("what", "input", "parameters", "MACs", *kinds), shown, (), ())
    return 0


def pipeline(commands: Any) -> None:
    """Where the time of a prediction goes."""
    p = commands.add_parser("pipeline", help="time of decoding, pre-processing, network and post-processing of images")
    p.add_argument(
        "run_folder", metavar="RUN", help="a run folder, a network that ships, or an exported file or folder"
    )
    p.add_argument("inputs", nargs="+", metavar="INPUT", help="images, videos, folders (their images) and globs")
    p.add_argument("--backend", choices=BACKENDS, help="default: eager; onnxruntime of an exported file")
    p.add_argument("--precision", choices=PRECISIONS, help="of a run (default: fp32)")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    p.add_argument("--threads", type=whole_number, default=core_count(), help="of the CPU (default: all %(default)s)")
    p.add_argument("--repeats", type=whole_number, default=3, help="how often all inputs are read (default: 3)")
    p.add_argument("--checkpoint", default="best", help="best, last, or a file (default: best)")
    p.add_argument("--boxes", metavar="WHERE", help="where the people are, as of tools/predict.py")
    _result_arguments(p)
    p.set_defaults(run=run_pipeline)


Stages = tuple[Watch, Conditions, str]


def _stages_of_run(arguments: argparse.Namespace, files: list[Path], device: torch.device) -> Stages:
    backend, precision = arguments.backend or "eager", arguments.precision or "fp32"
    how = How(backend, precision, device.type, 1, arguments.threads)
    how.check()
    regions = None if arguments.boxes is None else regions_of(arguments.boxes, BOX_SCORE, device, None)
    task = load_run(arguments.run_folder, arguments.checkpoint, [])[2].eval()
    with TemporaryDirectory() as folder:
        graphs = graph_runner(task, how, Path(folder))
        with watched(arguments.threads) as conditions:
            seen = time_stages(task, graphs, files, arguments.repeats, regions)
    return seen, conditions, f"{backend} {precision} on {device.type}"


def _stages_of_file(arguments: argparse.Namespace, files: list[Path], device: str) -> Stages:
    if arguments.backend not in (None, "onnxruntime") or arguments.precision or arguments.boxes:
        raise ConfigError(
            f"{arguments.run_folder}: an exported file is run as it is, by what it was made for, on whole images; "
            "leave out --backend, --precision and --boxes"
        )
    engine = is_engine(arguments.run_folder)
    predictor = Predictor(arguments.run_folder, *((None, None) if engine else (device, arguments.threads)))
    with watched(arguments.threads) as conditions:
        seen = time_exported(predictor, files, arguments.repeats)
    runs = predictor.description.text["kind"] if engine else "onnxruntime"
    return seen, conditions, f"{runs} {predictor.description.text.get('precision', '')} on {device}"


def run_pipeline(arguments: argparse.Namespace) -> int:
    """Predicts on the files, and prints the table or the JSON."""
    files = expand(arguments.inputs)
    arguments.run_folder = place_of(arguments.run_folder)
    device = pick_device(arguments.device)
    torch.set_num_threads(arguments.threads)
    if exported(arguments.run_folder):
        seen, conditions, ran = _stages_of_file(arguments, files, device.type)
    else:
        seen, conditions, ran = _stages_of_run(arguments, files, device)
    result = {
        "kind": "pipeline",
        "title": "Stages of a prediction",
        "what": arguments.run_folder.name,
        "backend": ran,
        "images": len(seen.images) // arguments.repeats,
        "repeats": arguments.repeats,
        "rows": seen.rows(),
        "warnings": conditions.warnings(),
        "conditions": conditions.to_dict(),
        "machine": {**machine_summary(), "threads": arguments.threads},
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if not _wrote(result, arguments):
        told = [f"{result['images']} images, {arguments.repeats} times, one at a time; {result['backend']}"]
        _show(("stage", "p50 ms", "p90 ms", "p99 ms", "share"), table_rows(seen.rows()), told, conditions.warnings())
    return 0


BENCHMARKS: tuple[Callable[[Any], None], ...] = (speed, count, pipeline, snn_memory)
"""What the command knows; each adds its own subcommand and sets ``run``."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = _Parser(
        description="Measure memory and speed.",
        epilog="example: python tools/benchmark.py speed mamkpd_l --against timm_pose:model=hrnet_w32",
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
