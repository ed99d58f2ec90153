"""What a run was made with: versions, machine, commit, command line."""

import datetime
import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

VERSIONED = ("triptych", "torch", "torchvision", "timm", "spikingjelly", "numpy")
"""Distributions whose version a run notes."""

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where the package lies: of a checkout its root."""

COMPUTES_NOTHING = ("*.md", "benchmarks/results")
"""Files of a checkout that measuring changes, and on which no measurement depends."""


def environment() -> dict[str, Any]:
    """Everything around a run that its figures may depend on: versions, machine, commit, command line, date (UTC)."""
    import torch

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {**{name: version_of(name) for name in VERSIONED}, "torch": torch.__version__},
        "git_commit": git_commit(),
        "os": platform.platform(),
        "cpu": cpu_model(),
        "cores": core_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": memory_gb(),
        "gpus": gpu_names(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
    }


def machine_summary() -> dict[str, Any]:
    """The machine in a few words, as results carry it."""
    import torch

    return {
        "cpu": cpu_model(),
        "cores": core_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": memory_gb(),
        "gpus": gpu_names(),
        "torch": torch.__version__,
    }


def version_of(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """The processor's name as the operating system gives it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def core_count() -> int:
    """Logical cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gb() -> float | None:
    """Memory in GiB this process may use (the machine's, or its container's limit), or None where it cannot be told."""
    sizes: list[int] = []
    with suppress(OSError, ValueError, AttributeError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            sizes.append(int(Path(limit).read_text(encoding="utf-8")))
    return round(min(sizes) / 2**30, 1) if sizes else None


def gpu_names() -> list[str]:
    """Names of the GPUs torch can use."""
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def git_commit(root: Path = CHECKOUT) -> str | None:
    """The commit of the package's own checkout, with ``+changes`` when files differ from it; None when installed.

    Pages and results (:data:`COMPUTES_NOTHING`) may differ: measuring one thing after another writes them.

    Args:
        root: the checkout.
    """
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        call = ["git", "-C", str(root), *arguments]
        return subprocess.run(call, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    others = [f":(exclude){pattern}" for pattern in COMPUTES_NOTHING]
    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *others)
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
