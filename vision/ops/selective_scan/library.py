"""The compiled kernels: where they lie, whether they load, what they can do; and the reason where they do not."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vision.ops.selective_scan.schemas import SCHEMAS

FOLDER = Path(__file__).resolve().parent
BUILD = "pip install --no-build-isolation -e ."
REPORT = "_build.json"  # what setup.py writes beside the library
FOREIGN = (  # what loaders say of a file for another platform
    "invalid ELF header", "wrong ELF class", "incompatible architecture", "not a mach-o file", "not a valid Win32"
)  # fmt: skip
CUDA_STATES = 256  # the most states of a channel that the CUDA kernels take


@dataclass(frozen=True)
class Library:
    """What was found when the compiled kernels were looked for.

    Attributes:
        path: the file; None where there is none.
        devices: the types of device that it holds kernels for; empty when it is not loaded.
        reason: why it is not loaded, in a clause; empty when it is.
        fix: what to do about it; empty when it is.
        left_out: why the build left out what it left out, in its own words; empty when nothing is known.
    """

    path: Path | None
    devices: tuple[str, ...] = ()
    reason: str = ""
    fix: str = ""
    left_out: str = ""

    @property
    def loaded(self) -> bool:
        """Whether its operators are there."""
        return not self.reason

    @property
    def broken(self) -> bool:
        """Whether a file is there and of no use."""
        return self.path is not None and not self.loaded


def load(folder: Path = FOLDER) -> Library:
    """Loads the first library of ``folder`` that is named ``_kernels``.

    Nothing is raised: what is wrong stands in the result, and is said when kernels are asked for.
    """
    report = build_report(folder)
    left_out = str(report.get("reason", ""))
    files = sorted(path for path in folder.glob("_kernels*") if path.suffix in (".so", ".pyd", ".dylib"))
    if not files:
        why = "TRIPTYCH_BUILD=none" if report.get("asked") == "none" else left_out
        reason = "the compiled kernels are not built" + (f" ({why})" if why else "")
        return Library(None, reason=reason, fix=f"in a checkout, where a C++ compiler is: {BUILD}")
    path = files[0]
    try:
        torch.ops.load_library(str(path))
    except Exception as error:  # OSError from the loader, RuntimeError from the registration of an operator
        reason = f"{path.name} cannot be loaded: {explain(error, path)}"
        return Library(path, reason=reason, fix=f"build it again on this machine: {BUILD}")
    other = [name for name, schema in SCHEMAS.items() if _schema(name) != f"triptych::{name}{schema}"]
    if other:
        reason = f"{path.name} is of another version of this package: {', '.join(other)} differ"
        return Library(path, reason=reason, fix=f"build it again: {BUILD}")
    devices = tuple(device for device in ("cpu", "cuda") if _has_kernels_for(device))
    return Library(path, devices, left_out=left_out)


def build_report(folder: Path) -> dict[str, Any]:
    """What setup.py wrote about its last build; empty where there is none, or none that can be read."""
    try:
        report = json.loads((folder / REPORT).read_text())
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def explain(error: Exception, path: Path) -> str:
    """Why a library could not be loaded, in a clause."""
    text = " ".join(str(error.__cause__ or error).split())  # torch puts its own words before those of the loader
    missing = "cannot open shared object file" in text
    # Of a file for another processor that is there, Linux says that it cannot be opened.
    foreign = any(sign in text for sign in FOREIGN) or (missing and str(path) in text)
    if foreign:
        return f"it was built for another platform ({text})"
    if missing:
        return f"a library it needs is missing ({text})"
    if "GLIBC" in text:
        return f"it was built on a newer system ({text})"
    if "undefined symbol" in text:
        return f"it does not fit torch {torch.__version__} ({text})"
    return text or type(error).__name__


def _schema(name: str) -> str:
    operator = getattr(torch.ops.triptych, name, None)
    return "" if operator is None else str(operator.default._schema)


def _has_kernels_for(device: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key("triptych::selective_scan", device.upper()))


LIBRARY = load()


def cpu_isa() -> str:
    """The instruction set that the CPU kernels use: ``baseline``, ``avx2`` or ``avx512``."""
    return str(torch.ops.triptych.cpu_isa())


def set_cpu_isa(name: str) -> str:
    """Makes the CPU kernels use an instruction set, ``auto`` for the best; returns the one before."""
    return str(torch.ops.triptych.set_cpu_isa(name))
