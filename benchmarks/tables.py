"""Write the generated parts of the pages: python benchmarks/tables.py [--check].

Three kinds of text are never typed: figures (from benchmarks/results/*.json), the fields of recipes (from the
constructors' annotations and docstrings), and what the package has today (from its registry). They fill
docs/results.md, docs/performance.md and the blocks ``<!-- KIND: NAME -->`` ... ``<!-- end -->`` of the other pages.
"""

import argparse
import dataclasses
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import read_results
from benchmarks.distillation_sections import distillation_block
from benchmarks.engine_sections import engines_block
from benchmarks.export_sections import exports_block
from benchmarks.figures import NONE, Documents, parameters, published_for, table
from benchmarks.infrared_sections import ablation_in_short
from benchmarks.performance_page import performance_page, speed_in_short, timed_block
from benchmarks.pose_sections import poses_block
from benchmarks.reliability_sections import reliability_block
from benchmarks.results_page import readme_block, results_page
from benchmarks.robust_sections import robust_block
from benchmarks.ship import digests_block, models_block
from benchmarks.single_stage_sections import relations_block
from benchmarks.spiking_sections import spiking_block
from vision.engine.command import run_command
from vision.engine.errors import DataError
from vision.engine.registry import GIVEN, entries, find, names
from vision.engine.signature import REQUIRED, Field, describe, signature_of

CHECKOUT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"<!-- (\w+):([\w. ]*) -->\n.*?<!-- end -->", re.DOTALL)

SYSTEMS: tuple[tuple[str, str, str, str, str], ...] = (
    ("Classification", "vision.classification.task", "docs/classification.md",
     "digits, CIFAR-10/100, image folders; CIFAR ResNets, PreActResNet, WideResNet, every timm model",
     "released ResNets beside their published accuracy; scores beside scikit-learn's"),
    ("TBC-Net, infrared small targets", "vision.infrared.tbcnet", "docs/tbcnet.md",
     "a faithful re-design, not a reproduction: both stages, every ablation, the field's metrics, centroids",
     "losses in closed form, metrics by brute force; trained on SIRST beside detectors without learning"),
    ("MamKPD, top-down pose", "vision.pose.mamkpd", "docs/pose.md",
     "a reconstruction from the abstract: COCO, CrowdPose, OCHuman, MPII, AP-10K; timm baselines; videos",
     "the scan held to VMamba's values, scores to pycocotools'; learns people of COCO by heart"),
    ("DHRNet, single-stage pose", "vision.pose.dhrnet", "docs/dhrnet.md",
     "DHRNet and CID, checkpoints both ways; COCO, CrowdPose, OCHuman",
     "held to values of the released code; learns images of COCO by heart"),
    ("Selective-scan kernels", "vision.ops.selective_scan", "docs/selective_scan.md",
     "on CPUs: forward, backward, fused image scan, compile, export, ONNX",
     "every kernel and gradient against float64; the CUDA kernels compiled and emulated only"),
    ("STOP, online learning of spiking networks", "snn.stop", "docs/stop.md",
     "a reading of its equations, its accuracies not reached: W, T, L; OTTT, SLTT, BPTT; images, events",
     "STOP equals autograd with stop-gradients in float64, the other rules spikingjelly's"),
    ("Adversarial training and its evaluation", "robust.adversarial", "docs/robust.md",
     "FGSM, PGD-AT, TRADES, weight averages; PGD, AutoAttack, signs of masked gradients, best and last weights",
     "against the authors' recorded attacks and losses; networks built to mask gradients are found out"),
    ("Label calibration, APART, data quality", "robust.calibration", "docs/robust_methods.md",
     "teacher, search and student as one recipe; learnt perturbations of any network; ranks and subsets",
     "step by step against recorded runs of the releases"),
    ("SoTeacher, distillation", "robust.distillation", "docs/distillation.md",
     "the teacher as in the authors' code, fifteen distillers, diagnostics, one recipe from teachers to table",
     "the teacher's terms against the authors' numbers, each distiller against loops or closed forms"),
    ("Export, runner, benchmark tool", "vision.deploy.export", "docs/deploy.md",
     "on CPUs: ONNX files, a runner without PyTorch, timing with intervals",
     "a file is compared with PyTorch before it is kept; engines were built, never run"),
)  # fmt: skip
"""The systems: name, the module that holds it, its page, what works today, and how it was checked."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Write docs/results.md, docs/performance.md and the generated blocks of other pages.",
        epilog="example: python benchmarks/tables.py --check",
    )
    p.add_argument("--check", action="store_true", help="write nothing; exit with 2 when a page is out of date")
    return p


def is_there(module: str) -> bool:
    """Whether a module can be imported, told without running it (its packages are)."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def systems_block(_: str, documents: Documents) -> str:
    """The systems, whether each is in the package, and how it was checked."""
    rows = []
    for name, module, page, works, checked in SYSTEMS:
        shown = f"[{name}]({page})" if (CHECKOUT / page).is_file() else name
        rows.append([shown, *([works, checked] if is_there(module) else ["not yet", NONE])])
    return "\n".join(table(["system", "what works", "how it was checked"], rows, left=3)).rstrip()


def fields_block(name: str, documents: Documents) -> str:
    """What a registered name, or a dataclass by its dotted name, takes: field, default, meaning."""
    factory, given = _factory(name)
    rows = [
        [f"`{field.name}`", _cell(describe(field.annotation)), _default(factory, field), _prose(field.description)]
        for field in signature_of(factory).fields.values()
        if field.name not in given and not field.name.startswith("_")
    ]
    return "\n".join(table(["field", "takes", "default", "what it is"], rows, left=4)).rstrip()


def _factory(name: str) -> tuple[Callable[..., Any], tuple[str, ...]]:
    if "." not in name:
        entry = find(name)
        return entry.factory, GIVEN.get(entry.kind, ())
    module, _, attribute = name.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found, ()


def _default(factory: Callable[..., Any], field: Field) -> str:
    value = field.default
    if is_dataclass(factory) and value is not REQUIRED:
        made = next(f.default_factory for f in dataclasses.fields(factory) if f.name == field.name)
        value = value if made is dataclasses.MISSING else made()
    if value is REQUIRED:
        return "required"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, dict):
        return f"`{{{', '.join(f'{key}: {item}' for key, item in value.items())}}}`"
    if is_dataclass(value):
        return "its defaults"
    return f"`{value}`" if str(value) else "empty"


def _prose(text: str) -> str:
    """A docstring's words as Markdown."""
    text = re.sub(r":math:`([^`]*)`", r"`\1`", text)
    text = re.sub(r":\w+:`~?([^`<]*?)(?:\s*<[^>]*>)?`", lambda m: f"`{m[1].rpartition('.')[2]}`", text)
    return _cell(text.replace("``", "`"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def registered_block(name: str, documents: Documents) -> str:
    """Every registered name of a kind; of ``kind package`` only those that the package registers."""
    kind, _, package = name.partition(" ")
    kept = [entry for entry in entries(kind) if entry.factory.__module__.startswith(package)]
    rows = [[f"`{entry.name}`", _prose(entry.summary)] for entry in kept]
    return "\n".join(table(["name", "what it is"], rows, left=2)).rstrip()


PUBLISHED = ("GFLOPs", "AP", "AP50", "AP75", "APM", "APL", "AR", "AP easy", "AP medium", "AP hard")
"""Columns of tables of published figures; those that no row has are left out."""


def published_block(name: str, documents: Documents) -> str:
    """What others published for the data set ``name``, split by split, with where it stands."""
    found = published_for(documents, name)
    splits = list(dict.fromkeys(document["data"]["split"] for document in found))
    found = sorted(found, key=lambda document: splits.index(document["data"]["split"]))
    rows = [(document, row) for document in found for row in document["rows"]]
    figures = [key for key in PUBLISHED if any(key in row["metrics"] for _, row in rows)]
    several, counted = len(splits) > 1, any(row.get("parameters") for _, row in rows)
    lines = [
        [
            row["method"],
            *[document["data"]["split"]] * several,
            *[parameters(row)] * counted,
            *(_figure(row["metrics"], key) for key in figures),
            f"[{document['source']}]({document['url']})",
        ]
        for document, row in rows
    ]
    head = ["method", *["judged on"] * several, *["parameters"] * counted, *figures, "published in"]
    return "\n".join(table(head, lines, left=1)).rstrip()


def _figure(metrics: dict[str, float], key: str) -> str:
    if key not in metrics:
        return NONE
    return f"{metrics[key]:g}" if key == "GFLOPs" else f"{100 * metrics[key]:.1f}"


BLOCKS: dict[str, Callable[[str, Documents], str]] = {
    "results": lambda _, documents: readme_block(documents),
    "ablation": lambda _, documents: ablation_in_short(documents),
    "distillation": distillation_block,
    "engines": engines_block,
    "exports": exports_block,
    "speed": lambda _, documents: speed_in_short(documents),
    "systems": systems_block,
    "fields": fields_block,
    "published": published_block,
    "poses": poses_block,
    "models": models_block,
    "digests": digests_block,
    "relations": relations_block,
    "reliability": reliability_block,
    "timed": timed_block,
    "spiking": spiking_block,
    "robust": robust_block,
    "registered": registered_block,
}


def filled(text: str, documents: Documents, page: str) -> str:
    """A page with its generated blocks written anew.

    Raises:
        DataError: a block of an unknown kind, or one without its end.
    """

    def write(match: re.Match[str]) -> str:
        kind, name = match[1], match[2].strip()
        if kind not in BLOCKS:
            raise DataError(f"{page}: no generated block '{kind}'; expected one of {', '.join(BLOCKS)}")
        return f"<!-- {kind}:{match[2]} -->\n{BLOCKS[kind](name, documents)}\n<!-- end -->"

    found = BLOCK.sub(write, text)
    if len(re.findall(r"^<!-- \w+:", text, re.MULTILINE)) != len(BLOCK.findall(text)):
        raise DataError(f"{page}: a generated block has no '<!-- end -->'")
    return found


def pages(documents: Documents) -> dict[Path, str]:
    """Every page with a generated part, as it should be."""
    names()  # loads everything registered
    found = {
        CHECKOUT / "docs" / "results.md": results_page(documents),
        CHECKOUT / "docs" / "performance.md": performance_page(documents),
    }
    for page in [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]:
        if page not in found and page.is_file():
            found[page] = filled(page.read_text(encoding="utf-8"), documents, page.name)
    return found


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    stale = []
    for page, text in pages(read_results()).items():
        if page.is_file() and page.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(page.relative_to(CHECKOUT)))
        if not arguments.check:
            page.write_text(text, encoding="utf-8")
            print(f"{stale[-1]}: written")
    if arguments.check and stale:
        raise DataError(f"out of date: {', '.join(stale)}; run python benchmarks/tables.py")
    return 0


if __name__ == "__main__":
    run_command(main)
