"""Which way the compiled kernels run, and what building them takes: the part of the doctor that is about them."""

import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision.engine.check import Check

INSTALL = "pip install --no-build-isolation -e ."
NEEDED_TO_BUILD = "only building CUDA kernels needs one"
TOOLKIT_PARTS = ("bin/nvcc", "include/cuda_runtime.h")
USUAL_HOME = Path("/usr/local/cuda")
SOURCES = (".cpp", ".cu", ".cuh", ".h")


# ---- what builds kernels ---------------------------------------------------------------------------------------------


def check_compiler(variables: Mapping[str, str]) -> Check:
    """A C++ compiler, which building the kernels and ``trainer.compile`` on the CPU need."""
    asked = variables.get("CXX")
    names = [asked.split()[0]] if asked and asked.strip() else ["c++", "g++", "clang++"]
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is not None:
        return Check("compiler", "ok", f"{path}, {_version_lines(path)[0]}")
    if asked:
        return Check("compiler", "warn", f"CXX={asked} is not there", "correct CXX or unset it")
    found = "no C++ compiler; only building the compiled kernels and trainer.compile: true on the CPU need one"
    return Check("compiler", "warn", found, "install g++ (Debian, Ubuntu: apt-get install g++)")


def check_toolkit(variables: Mapping[str, str], built_for: str | None = None, gpu: bool = False) -> Check:
    """A CUDA toolkit that CUDA kernels can be built with; its absence is no fault.

    Args:
        variables: of the environment.
        built_for: the CUDA version torch was built for; None for a CPU build.
        gpu: whether torch uses one.
    """
    for name in ("CUDA_HOME", "CUDA_PATH"):
        home = variables.get(name)
        if home and not _is_toolkit(Path(home)):
            found = f"{name}={home} holds no {' and '.join(TOOLKIT_PARTS)}"
            return Check("cuda toolkit", "warn", found, f"correct {name} or unset it")
    home = next((str(home.resolve()) for home in _toolkit_homes(variables) if _is_toolkit(home)), None)
    nvcc = shutil.which("nvcc")
    if home is None and nvcc is not None:
        fix = "set CUDA_HOME to the folder that holds bin/nvcc and include/cuda_runtime.h"
        return Check("cuda toolkit", "warn", f"{nvcc} without its headers: no CUDA kernels can be built", fix)
    if home is None:
        return Check("cuda toolkit", "ok", f"none; {NEEDED_TO_BUILD}")
    version = _toolkit_version(home)
    found = f"{home}, CUDA {version}; {NEEDED_TO_BUILD}"
    if built_for and version.split(".")[0] not in ("?", built_for.split(".")[0]):
        found = f"{home}, CUDA {version}, builds nothing for this torch, which is of CUDA {built_for}"
        major = built_for.split(".")[0]
        fix = f"set CUDA_HOME to a toolkit of CUDA {major}, then in a checkout: TRIPTYCH_BUILD=cuda {INSTALL}"
        return Check("cuda toolkit", "warn", found, fix) if gpu else Check("cuda toolkit", "ok", found)
    return Check("cuda toolkit", "ok", found)


def _is_toolkit(home: Path) -> bool:
    return all((home / part).exists() for part in TOOLKIT_PARTS)


def _toolkit_homes(variables: Mapping[str, str]) -> list[Path]:
    """Where setup.py looks for a toolkit, in its order; an nvcc that is a script names the one it calls."""
    homes = [Path(variables[name]) for name in ("CUDA_HOME", "CUDA_PATH") if variables.get(name)]
    nvcc = shutil.which("nvcc")
    if nvcc is not None:
        told = _run([nvcc, "-dryrun", "-x", "cu", os.devnull])
        homes += [Path(top) for top in re.findall(r"^#\$ TOP=(.+?)\s*$", told, re.MULTILINE)]
        homes += [Path(nvcc).parents[1], Path(nvcc).resolve().parents[1]]
    return [*homes, USUAL_HOME]


def _toolkit_version(home: str) -> str:
    match = re.search(r"release (\d+\.\d+)", "\n".join(_version_lines(str(Path(home, "bin", "nvcc")))))
    return match[1] if match else "?"


def _version_lines(program: str) -> list[str]:
    return _run([program, "--version"]).strip().splitlines() or [""]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + done.stderr


# ---- which kernels run -----------------------------------------------------------------------------------------------


def kernels() -> Check:
    """Which way scans run in this process."""
    import torch

    scan = importlib.import_module("vision.ops.selective_scan")
    library = importlib.import_module("vision.ops.selective_scan.library")
    try:
        facts = scan.facts()
    except RuntimeError as error:  # a wish of the environment that the library refuses
        said = str(error).rpartition("triptych: ")[2].splitlines()[0]
        wish = os.environ.get("TRIPTYCH_CPU_ISA")
        return Check("kernels", "fail", f"TRIPTYCH_CPU_ISA={wish}: {said}", "unset TRIPTYCH_CPU_ISA")
    report = library.build_report(library.FOLDER)
    stale = facts["library"] is not None and newer_sources(Path(facts["library"]))
    return check_kernels(facts, report, torch.cuda.is_available(), bool(stale))


def newer_sources(library: Path) -> list[str]:
    """Sources beside a library that have changed since it was built; none where there are no sources."""
    made = library.stat().st_mtime
    sources = (path for path in (library.parent / "csrc").rglob("*") if path.suffix in SOURCES)
    return sorted(path.name for path in sources if path.stat().st_mtime > made)


def check_kernels(facts: Mapping[str, Any], report: Mapping[str, Any], gpu: bool, stale: bool = False) -> Check:
    """Which way scans run, and the command that makes them run faster where that can be.

    Args:
        facts: what ``vision.ops.selective_scan.facts`` tells.
        report: what setup.py wrote about the build; empty where it is not known.
        gpu: whether torch uses one.
        stale: whether the sources have changed since.
    """
    mamba = "" if facts["mamba"] else "; mamba-ssm on GPUs when it is asked for (force_backend='mamba')"
    if facts["library"] is None:
        return Check("kernels", "warn", f"the PyTorch reference, much slower: {facts['reason']}{mamba}", _fix(report))
    if facts["reason"]:
        fix = f"{facts['fix']}; or delete {facts['library']}, and the slower PyTorch reference runs"
        return Check("kernels", "fail", facts["reason"], fix)
    found = f"{facts['cpu']} on the CPU, "
    if facts["cuda"] == "cuda":
        found += "cuda on GPUs"
    else:
        why = str(report.get("reason") or "") or f"built for {report.get('built', 'cpu')} only"
        found += f"the PyTorch reference on GPUs ({why})"
    made = f"; built with torch {report['torch']}" if report.get("torch") else ""
    found += f"{mamba}{made}"
    if stale:
        return Check("kernels", "warn", f"{found}; its sources have changed since", f"build it again: {INSTALL}")
    if gpu and facts["cuda"] != "cuda":
        fix = f"with the CUDA toolkit that belongs to this torch, in a checkout: TRIPTYCH_BUILD=cuda {INSTALL}"
        return Check("kernels", "warn", found, fix)
    return Check("kernels", "ok", found)


def _fix(report: Mapping[str, Any]) -> str:
    """What makes the kernels that were not built."""
    reason = str(report.get("reason", ""))
    if report.get("asked") == "none":
        return f"unset TRIPTYCH_BUILD, then in a checkout: {INSTALL}"
    if "no C++ compiler" in reason:
        return f"install g++ (Debian, Ubuntu: apt-get install g++), then in a checkout: {INSTALL}"
    if "do not compile" in reason:
        return f"in a checkout, see what the compiler says: TRIPTYCH_BUILD=cpu {INSTALL} -v"
    return f"in a checkout: {INSTALL}"
