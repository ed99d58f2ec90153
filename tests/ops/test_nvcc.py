"""The CUDA sources compile without a warning, and every kernel keeps to its budget of registers without spilling."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch.utils.cpp_extension

from tests.ops.emulator.driver import KERNELS

NVCC = shutil.which("nvcc")
BUDGET = json.loads(Path(__file__).with_name("nvcc_budget.json").read_text())
STRICT = ["-std=c++17", "-O3", "-Werror", "all-warnings", "-Xcompiler", "-fPIC"]
ARCHITECTURES = [name.removeprefix("sm_") for name in BUDGET["architectures"]]

pytestmark = [
    pytest.mark.skipif(NVCC is None, reason="no nvcc: the CUDA sources are not compiled here"),
    pytest.mark.slow,
    pytest.mark.timeout(600),
]


@dataclass
class Usage:
    """What ptxas says of one compiled kernel."""

    kernel: str
    architecture: str
    registers: int
    stack: int
    spilled: int


def compile_to_log(source: Path, flags: list[str], folder: Path) -> str:
    """What nvcc says; kept until the sources or the compiler change."""
    assert NVCC is not None
    version = subprocess.run([NVCC, "--version"], check=True, capture_output=True, text=True).stdout
    digest = hashlib.sha256(repr((version, flags, source.name)).encode())
    for path in sorted(KERNELS.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    log = folder / f"{source.stem}-{digest.hexdigest()[:16]}.log"
    if not log.exists():
        command = [NVCC, *STRICT, *flags, "-c", str(source), "-o", str(log.with_suffix(".o"))]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        log.with_suffix(".o").unlink(missing_ok=True)
        assert done.returncode == 0, done.stderr[-4000:]
        log.write_text(done.stdout + done.stderr)
    return log.read_text()


def usages(log: str) -> list[Usage]:
    """Every kernel of a log of ``-Xptxas -v``."""
    entries = re.split(r"Compiling entry function ", log)[1:]
    found = []
    for entry in entries:
        name, architecture = re.match(r"'(\w+)' for '(\w+)'", entry).groups()
        stack, stores, loads = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", entry
        ).groups()
        kernel = re.search(r"\d(scan_forward|scan_backward_ends|scan_backward|sum_planes)I", name)[1]
        registers = re.search(r"Used (\d+) registers", entry)[1]
        found.append(Usage(kernel, architecture, int(registers), int(stack), int(stores) + int(loads)))
    return found


@pytest.mark.parametrize("name", ["kernels_float", "kernels_half"])
def test_budget(name: str, kept_folder: Callable[[str], Path]) -> None:
    """One call compiles all kernels of a type; bfloat16 differs from float16 in two conversions only."""
    flags = ["-Xptxas", "-v", *(f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES)]
    log = compile_to_log(KERNELS / f"{name}.cu", flags, kept_folder("nvcc"))
    found = usages(log)
    for kernel, budget in BUDGET["kernels"].items():
        for architecture in BUDGET["architectures"]:
            own = [usage for usage in found if (usage.kernel, usage.architecture) == (kernel, architecture)]
            assert len(own) == budget["variants"]
            assert max(usage.registers for usage in own) <= budget["registers"], kernel
    assert len(found) == len(BUDGET["architectures"]) * sum(budget["variants"] for budget in BUDGET["kernels"].values())
    assert max(usage.stack for usage in found) <= BUDGET["stack_bytes"]
    assert max(usage.spilled for usage in found) <= BUDGET["spilled_bytes"]


def test_operators_compile(kept_folder: Callable[[str], Path]) -> None:
    """The registration compiles against the stable ABI of the oldest LibTorch it names, without a CUDA torch too."""
    includes = [flag for path in torch.utils.cpp_extension.include_paths() for flag in ("-isystem", path)]
    flags = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-gencode=arch=compute_80,code=sm_80", *includes]
    compile_to_log(KERNELS / "library.cu", flags, kept_folder("nvcc"))
