"""The most memory that running a subject takes: of the CUDA allocator, or of a process of its own on a CPU."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vision.deploy.backends import How, Ready, ready
from vision.deploy.naming import Name
from vision.deploy.subjects import Subject, subject_of
from vision.engine.errors import UserError

CUDA = "the most that PyTorch's CUDA allocator held, on top of weights and inputs"
PROCESS = "the most that a process of its own held resident, on top of weights and inputs"
_EAGER_TO_FREE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak(subject: Subject, made: Ready) -> tuple[float | None, str | None]:
    """Megabytes (1e6 bytes) at the most, and how they were found; None where the system does not tell.

    Args:
        subject: what is measured.
        made: it, made ready here.

    Raises:
        UserError: the other process failed.
    """
    if made.how.device == "cuda":
        return (_of_allocator(made), CUDA) if made.how.backend in ("eager", "compiled", "aoti") else (None, None)
    if not _STATUS.is_file():
        return None, None
    request: dict[str, Any] = {"how": asdict(made.how)}
    if made.file is not None:  # exported already: not again
        request["file"] = str(made.file)
        request["shapes"] = {key: list(subject.shape(key, made.how.batch)) for key in subject.shapes}
        request["dtypes"] = {key: str(dtype).removeprefix("torch.") for key, dtype in subject.dtypes.items()}
    else:
        request["name"], request["options"] = asdict(subject.name), subject.asked
    return _in_a_process(request), PROCESS


def _of_allocator(made: Ready) -> float:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    made.call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def _in_a_process(request: dict[str, Any]) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "vision.deploy.memory"], input=json.dumps(request), capture_output=True, text=True,
        env={**os.environ, **_EAGER_TO_FREE, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise UserError(f"the process that measures memory failed: {reason}; or leave memory out with --no-memory")
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measures what standard input describes and prints megabytes."""
    request = json.loads(sys.stdin.read())
    how = How(**request["how"])
    if "file" in request:
        subject = _file_of(request, how)
    else:
        given = request["name"]
        name = Name(**{**given, "options": tuple(given["options"])})
        options = request["options"]
        options["size"] = tuple(options["size"]) if options["size"] else None
        options["usual"] = {key: tuple(size) for key, size in (options["usual"] or {}).items()}
        subject = subject_of(name, **options)
    made = ready(subject, how)
    if how.backend in ("eager", "compiled"):  # what is compiled or chosen once is no part of it
        made.call()
    with suppress(OSError):
        _CLEAR.write_text("5")  # forgets the highest mark so far
    before = _kilobytes("VmRSS")
    made.call()
    made.call()
    print(json.dumps((_kilobytes("VmHWM") - before) * 1024 / 1e6))


def _file_of(request: dict[str, Any], how: How) -> Subject:
    name = Name(request["file"], "file", (), how.backend, how.precision)
    dtypes = {key: getattr(torch, dtype) for key, dtype in request["dtypes"].items()}
    shapes = {key: tuple(shape) for key, shape in request["shapes"].items()}
    whole = {key: torch.zeros(1, *shapes[key][1:], dtype=d) for key, d in dtypes.items() if not d.is_floating_point}
    return Subject(name, shapes, {}, file=Path(request["file"]), dtypes=dtypes, examples=whole)


def _kilobytes(field: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
