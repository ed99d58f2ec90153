"""Compiles the kernels' sources over the host emulator, and runs cases through it."""

import hashlib
import math
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[2] / "vision" / "ops" / "selective_scan" / "csrc" / "cuda"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
PLAIN = ("-O1", "-fno-strict-aliasing")
# Leaks are not looked for: fibers live as long as the process.
SANITIZED = (*PLAIN, "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DTRIPTYCH_EMU_ONLY_FLOAT")
DTYPES = {torch.float32: "f", torch.float16: "h", torch.bfloat16: "b"}
NUMPY = {"f": np.dtype("<f4"), "h": np.dtype("<f2"), "b": np.dtype("<u2")}
ORDERS = ("forward", "reverse", "shuffled")


@dataclass
class Case:
    """One problem: ``kind`` is ``scan`` or ``ss2d``; tensors keep their strides on the way to the kernels."""

    kind: str
    tensors: dict[str, Tensor]
    options: dict[str, int] = field(default_factory=dict)

    def with_options(self, **options: int) -> "Case":
        """The same problem, run another way."""
        return Case(self.kind, self.tensors, self.options | options)


def compiler() -> str | None:
    """The C++ compiler: ``CXX``, else g++."""
    return shutil.which(os.environ.get("CXX", "g++"))


def build(folder: Path, flags: tuple[str, ...], program_source: str = "driver.cpp") -> Path:
    """A program of this folder, compiled once for its sources and flags."""
    sources = sorted([*HERE.glob("*.cpp"), *HERE.glob("*.h"), *KERNELS.glob("*.cuh"), *KERNELS.glob("*.h")])
    digest = hashlib.sha256(repr((compiler(), flags, program_source)).encode())
    for source in sources:
        digest.update(source.name.encode() + source.read_bytes())
    program = folder / f"{Path(program_source).stem}-{digest.hexdigest()[:16]}"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        command = [str(compiler()), "-std=c++17", "-DTRIPTYCH_EMU", *WARNINGS, *flags, f"-I{HERE}", f"-I{KERNELS}"]
        subprocess.run([*command, str(HERE / program_source), "-o", str(unfinished)], check=True)
        unfinished.rename(program)
    return program


@dataclass
class Run:
    """What the driver made of a list of cases."""

    results: list[dict[str, Tensor]]
    barriers: set[str]


def run(program: Path, folder: Path, cases: list[Case], without: str = "") -> Run:
    """Runs cases; ``without`` names a barrier that then does nothing.

    Raises:
        subprocess.CalledProcessError: the driver ended otherwise than well; its words are in ``stderr``.
    """
    inputs, outputs = folder / "cases.bin", folder / "results.bin"
    with inputs.open("wb") as file:
        _put_int(file, len(cases))
        for case in cases:
            _put_case(file, case)
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0"}
    command = [str(program), str(inputs), str(outputs), *([without] if without else [])]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=240)
    with outputs.open("rb") as file:
        return Run([_get_results(file) for _ in cases], set(ended.stdout.split()))


def _put_int(file: BinaryIO, value: int) -> None:
    file.write(struct.pack("<q", value))


def _put_string(file: BinaryIO, text: str) -> None:
    _put_int(file, len(text))
    file.write(text.encode())


def _put_case(file: BinaryIO, case: Case) -> None:
    _put_string(file, case.kind)
    _put_int(file, len(case.options))
    for name, value in case.options.items():
        _put_string(file, name)
        _put_int(file, value)
    _put_int(file, len(case.tensors))
    for name, tensor in case.tensors.items():
        _put_string(file, name)
        _put_string(file, DTYPES[tensor.dtype])
        _put_int(file, tensor.ndim)
        for number in (*tensor.shape, *tensor.stride()):
            _put_int(file, number)
        compact = tensor.detach().contiguous()
        file.write((compact.view(torch.int16) if compact.element_size() == 2 else compact).numpy().tobytes())


def _get_int(file: BinaryIO) -> int:
    return int(struct.unpack("<q", file.read(8))[0])


def _get_string(file: BinaryIO) -> str:
    return file.read(_get_int(file)).decode()


def _get_results(file: BinaryIO) -> dict[str, Tensor]:
    results = {}
    for _ in range(_get_int(file)):
        name, code = _get_string(file), _get_string(file)
        shape = [_get_int(file) for _ in range(_get_int(file))]
        dtype = NUMPY[code]
        array = np.frombuffer(file.read(math.prod(shape) * dtype.itemsize), dtype).reshape(shape).copy()
        tensor = torch.from_numpy(array)
        results[name] = tensor.view(torch.bfloat16) if code == "b" else tensor
    return results
