"""One ONNX file of a four-direction scan at several sizes: its export, its differences, its time in ONNX Runtime.

The sizes are maps of 64x48, 96x72 and 128x128 tokens; the file of each form serves all of them.
"""

import argparse
import datetime
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import RESULTS, check
from vision.deploy.onnx import onnx_model
from vision.engine.command import run_command
from vision.engine.deployment import Graph
from vision.engine.environment import git_commit, machine_summary
from vision.engine.files import write_json
from vision.pose.ss2d import SS2D

SIZES = ((64, 48), (96, 72), (128, 128))
CHANNELS = 32
LONGEST_EXPORT = 60.0
LARGEST_DIFFERENCE = 1e-4


def fastest(run: Callable[[], Any], repeats: int) -> float:
    """Processor milliseconds of the fastest of several runs, after one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        run()
        times.append(time.process_time() - begun)
    return 1000 * min(times)


def measure(form: str, repeats: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of times and of differences of one form."""
    torch.manual_seed(0)
    layer = SS2D(CHANNELS, 1, 2.0, True).eval().requires_grad_(False)
    axes = {"x": {0: "N", 1: "H", 2: "W"}}
    begun = time.process_time()
    model = onnx_model(Graph("model", layer, (torch.randn(2, 5, 7, CHANNELS),), ("x",), ("y",), axes), form)
    seconds = time.process_time() - begun
    rows = [_row(f"exporting the form {form}", "60 s", 1000 * seconds, 1000 * LONGEST_EXPORT, 1.0, 1)]
    errors = []
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for height, width in SIZES:
        x = torch.randn(1, height, width, CHANNELS, generator=torch.Generator().manual_seed(height))
        feeds = {"x": x.numpy()}
        with torch.no_grad():
            expected = layer(x).numpy()
            kernels = fastest(lambda x=x: layer(x), repeats)  # type: ignore[misc]
        (found,) = session.run(None, feeds)
        runtime = fastest(lambda f=feeds: session.run(None, f), repeats)  # type: ignore[misc]
        what = f"{height}x{width} tokens, form {form}"
        rows.append(_row(f"{what}, ONNX Runtime", "PyTorch with our kernels", runtime, kernels, None, repeats))
        errors.append({
            "what": f"{what}: largest difference", "value": float(np.abs(found - expected).max()),
            "aim": LARGEST_DIFFERENCE,
        })  # fmt: skip
        print(rows[-1], errors[-1], flush=True)
    return rows, errors


def _row(what: str, against: str, ours: float, theirs: float, aim: float | None, repeats: int) -> dict[str, Any]:
    row = {"what": what, "against": against, "ours": round(ours, 3), "theirs": round(theirs, 3)}
    return {**row, "ratio": round(ours / theirs, 4), "aim": aim, "repeats": repeats}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Export a four-direction scan once a form, and run the file at three sizes."
    )
    p.add_argument("--repeats", type=int, default=3, help="of each timing, default: %(default)s")
    p.add_argument("-o", "--output", type=Path, default=RESULTS / "scan_export.json", help="default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    torch.set_num_threads(1)
    measured = [measure(form, arguments.repeats) for form in ("scan", "chunked")]
    document = {
        "kind": "comparison",
        "title": "Exported selective scans",
        "command": "python benchmarks/scan_export.py",
        "unit": "CPU ms",
        "better": "lower",
        "note": f"One SS2D layer of {CHANNELS} channels, one state, ratio 2, gated, float32, one thread; a file a form "
        "serves all sizes. Fastest of the repeats.",
        "rows": [row for rows, _ in measured for row in rows],
        "errors": [error for _, errors in measured for error in errors],
        "machine": machine_summary(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    check(document, "scan_export")
    write_json(arguments.output, document)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)
