"""Export a trained network: python tools/export.py RUN --format onnx."""

import argparse
from pathlib import Path

from vision.deploy.export import FORMATS, PRECISIONS, Options, export
from vision.deploy.nvidia import KINDS
from vision.deploy.profiles import parse_span
from vision.deploy.shipped import home_of, run_or_recipe
from vision.deploy.source import source_of
from vision.engine.arguments import rows_and_columns, whole_number
from vision.engine.command import run_command
from vision.ops.selective_scan.lowering import FORMS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Export a run's network, and compare the files with PyTorch on real samples; writes "
        "RUN/export/FORMAT-PRECISION/ only where they are equal.",
        epilog="example: python tools/export.py runs/digits_cnn --format onnx --precision int8",
    )
    p.add_argument(
        "run",
        help="a run folder, a network that ships, by its name, or a recipe (untrained, or with --checkpoint FILE)",
    )
    p.add_argument("overrides", nargs="*", metavar="a.b=c", help="replace single fields, for example data.root=...")
    p.add_argument("--format", choices=FORMATS, default="onnx", help="default: onnx")
    p.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    p.add_argument("--scan-form", choices=FORMS, default="scan", help="of selective scans in ONNX (default: scan)")
    p.add_argument("--checkpoint", default="best", help="best, last, or a file (default: best)")
    p.add_argument(
        "--size", type=rows_and_columns, metavar="HxW", help="fix the size of images (default: any, where it can be)"
    )
    p.add_argument("--calibration", type=whole_number, default=128, metavar="N", help="training samples for int8")
    p.add_argument("--limit", type=whole_number, default=64, metavar="N", help="samples to compare on (default: 64)")
    p.add_argument("--split", choices=("train", "val", "test"), default="val", help="of these samples (default: val)")
    p.add_argument("--profile", action="append", default=[], metavar="N=1:8:32",
                   help="of engines: smallest, best and largest of an open axis; again for others")  # fmt: skip
    p.add_argument("--timing-cache", type=Path, metavar="FILE", help="of TensorRT: read where it exists, and written")
    p.add_argument("-o", "--output", metavar="FOLDER", help="where to write (default: RUN/export/FORMAT-PRECISION)")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_intermixed_args(argv)  # overrides may also come after options
    given = run_or_recipe(arguments.run, arguments.checkpoint)
    task, origin, home = source_of(given, arguments.checkpoint, arguments.overrides)
    name = f"{arguments.format}-{arguments.precision}"
    folder = Path(arguments.output) if arguments.output else home_of(home) / "export" / name
    options = Options(
        arguments.format, arguments.precision, arguments.scan_form, arguments.size, arguments.calibration,
        arguments.limit, arguments.split, dict(map(parse_span, arguments.profile)), arguments.timing_cache,
    )  # fmt: skip
    export(task, origin, folder, options)
    if arguments.format in KINDS:
        print("engine built, not run: parity.json compares the ONNX file it was built from")
    print(folder / "model.json")
    return 0


if __name__ == "__main__":
    run_command(main)
