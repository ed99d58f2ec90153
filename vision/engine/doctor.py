"""What may be wrong with an installation, found before a run finds it: each check says what there is and the fix."""

import ctypes
import importlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import metadata
from itertools import zip_longest
from pathlib import Path

from vision.engine.check import Check
from vision.engine.environment import core_count, cpu_model, memory_gb, version_of
from vision.engine.kernel_checks import check_compiler, check_toolkit, kernels

log = logging.getLogger(__name__)

PYTHON = (3, 11)
WHEELS = "https://download.pytorch.org/whl"
"""Where PyTorch publishes its builds for each CUDA version."""

DATA_VARIABLE = "TRIPTYCH_DATA"
DATA_FALLBACK = Path("../shared/data")
SHARED_MEMORY = Path("/dev/shm")

LEAST_MEMORY_GB, LEAST_DISK_GB, LEAST_SHARED_GB = 4.0, 2.0, 1.0
"""Below these a check warns: our choice, from what the shipped recipes take."""


def examine() -> Iterator[Check]:
    """Runs every check; one that cannot be run is a failure that says so."""
    for name, check in (
        ("python", partial(check_python, sys.version_info[:3])),
        ("packages", _packages),
        ("torch", _torch),
        ("torchvision", _torchvision),
        ("torchaudio", _torchaudio),
        ("gpu", _gpu),
        ("compiler", partial(check_compiler, os.environ)),
        ("cuda toolkit", _toolkit),
        ("kernels", kernels),
        ("registry", _registry),
        ("data", partial(check_data, os.environ)),
        ("processor", _processor),
        ("threads", partial(check_threads, os.environ, core_count())),
        (
            "memory",
            lambda: check_room("memory", memory_gb(), LEAST_MEMORY_GB, "close other programs or lower batch_size"),
        ),
        ("shared memory", _shared_memory),
        ("disk", _disk),
    ):
        yield _guarded(name, check)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        log.debug("%s", name, exc_info=True)
        return Check(name, "fail", f"cannot be checked: {_in_a_line(error)}", "reinstall the packages it names")


def _in_a_line(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else text[:197] + "..."


def release(version: str) -> tuple[int, ...]:
    """The numbers a version begins with.

    Example:
        >>> release("2.11.0+cu130"), release("0.26.0a0"), release("3")
        ((2, 11, 0), (0, 26, 0), (3,))
    """
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def check_python(version: tuple[int, ...]) -> Check:
    """Python is new enough."""
    found = ".".join(map(str, version))
    if version[:2] >= PYTHON:
        return Check("python", "ok", found)
    needed = ".".join(map(str, PYTHON))
    return Check("python", "fail", f"{found}, needs {needed}", f"make an environment with Python {needed} or newer")


def _packages() -> Check:
    requirements = metadata.requires("triptych") if version_of("triptych") else None
    if requirements is None:
        return Check("packages", "warn", "triptych is not installed, its needs are not known", "pip install -e .")
    return check_packages(requirements, {name: version_of(name) for name in map(name_of, requirements)})


def name_of(requirement: str) -> str:
    """The distribution that a requirement asks for.

    Example:
        >>> name_of("numpy>=2.0"), name_of("annotated-types (>=0.6)")
        ('numpy', 'annotated-types')
    """
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _older(version: str, least: str) -> bool:
    pairs = zip_longest(release(version), release(least), fillvalue=0)
    return next((have < need for have, need in pairs if have != need), False)


def check_packages(requirements: list[str], installed: Mapping[str, str | None]) -> Check:
    """Every required distribution is there, and new enough.

    Args:
        requirements: as a distribution's metadata holds them; those of extras are left out.
        installed: versions by name; None for what is not installed.
    """
    needed = [need.replace(" ", "") for need in requirements if "extra==" not in need.replace(" ", "")]
    wrong = []
    for need in needed:
        name, least = name_of(need), re.search(r">=([\d.]+)", need)
        version = installed.get(name)
        if version is None or (least is not None and _older(version, least[1])):
            wrong.append((f"{name} {version or 'missing'}" + (f", needs {least[1]}" if least else ""), f'"{need}"'))
    if not wrong:
        return Check("packages", "ok", f"{len(needed)} required, all there")
    return Check("packages", "fail", "; ".join(w for w, _ in wrong), "pip install " + " ".join(n for _, n in wrong))


def _torch() -> Check:
    import torch

    total = float(torch.ones(3).sum())
    if total != 3.0:
        return Check("torch", "fail", f"{torch.__version__} adds wrongly: 1 + 1 + 1 = {total}", "reinstall torch")
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    return Check("torch", "ok", f"{torch.__version__}, {built}")


def partner_of(torch_version: str) -> str:
    """The torchvision release line that belongs to a torch 2 release: 0.(minor + 15).

    Source: the compatibility table in torchvision's README.

    Example:
        >>> partner_of("2.11.0+cu130"), partner_of("2.4.1")
        ('0.26', '0.19')
    """
    return f"0.{release(torch_version)[1] + 15}"


def check_torchvision(torch_version: str, version: str | None) -> Check:
    """The torchvision installed belongs to the torch installed, by release and by build."""
    needed = partner_of(torch_version)
    build, index = torch_version.partition("+")[2], ""
    if build:
        index = f" --index-url {WHEELS}/{build}"
    fix = f'pip install --force-reinstall --no-deps "torchvision=={needed}.*"{index}'
    if version is None:
        return Check("torchvision", "fail", "missing", fix)
    other = version.partition("+")[2]
    if ".".join(map(str, release(version)[:2])) != needed:
        return Check("torchvision", "fail", f"{version} does not belong to torch {torch_version}, {needed} does", fix)
    if build and other and build != other:
        return Check("torchvision", "fail", f"{version} and torch {torch_version} are of different builds", fix)
    return Check("torchvision", "ok", version)


def _torchvision() -> Check:
    import torch

    check = check_torchvision(torch.__version__, version_of("torchvision"))
    if check.status != "ok":
        return check  # importing a mismatched one may end the process
    try:
        ops = importlib.import_module("torchvision.ops")
        kept = ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2), torch.tensor([0.5, 0.6]), 0.5)
    except Exception as error:
        fix = check_torchvision(torch.__version__, None).fix
        return Check("torchvision", "fail", f"{check.found} cannot be used: {_in_a_line(error)}", fix)
    return check if kept.tolist() == [1] else Check("torchvision", "fail", "its nms is wrong", "reinstall torchvision")


def check_torchaudio(torch_version: str, version: str | None) -> Check:
    """spikingjelly.datasets imports torchaudio, which must be of torch's own release line."""
    line = ".".join(map(str, release(torch_version)[:2]))
    build = torch_version.partition("+")[2]
    fix = f'pip install --force-reinstall --no-deps "torchaudio=={line}.*"' + (
        f" --index-url {WHEELS}/{build}" if build else ""
    )
    if version is None:
        return Check("torchaudio", "fail", "missing; spikingjelly.datasets (event data) needs it", fix)
    if release(version)[:2] != release(torch_version)[:2]:
        found = f"{version} does not belong to torch {torch_version}; spikingjelly.datasets (event data) needs it"
        return Check("torchaudio", "fail", found, fix)
    return Check("torchaudio", "ok", version)


def _torchaudio() -> Check:
    import torch

    check = check_torchaudio(torch.__version__, version_of("torchaudio"))
    if check.status != "ok":
        return check
    try:
        importlib.import_module("spikingjelly.datasets")
    except Exception as error:
        fix = check_torchaudio(torch.__version__, None).fix
        return Check("torchaudio", "fail", f"spikingjelly.datasets cannot be imported: {_in_a_line(error)}", fix)
    return Check("torchaudio", "ok", f"{check.found}; spikingjelly.datasets can be imported")


def _gpu() -> Check:
    import torch

    names = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        works = float(torch.ones(8, device=f"cuda:{index}").sum()) == 8.0
        state = "" if works else ", computes wrongly"
        names.append(f"{about.name} ({about.total_memory / 2**30:.0f} GiB, sm_{about.major}{about.minor}{state})")
    return check_gpu(torch.version.cuda, driver_cuda(), names)


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA version that the NVIDIA driver supports; None where there is no driver."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    number = ctypes.c_int(0)
    try:
        if ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(number)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return (number.value // 1000, number.value % 1000 // 10) if number.value else None


def check_gpu(built_for: str | None, driver: tuple[int, int] | None, names: list[str]) -> Check:
    """The GPU that the driver drives is one that torch can use.

    Args:
        built_for: the CUDA version torch was built for; None for a CPU build.
        driver: the newest CUDA version the driver supports; None without one.
        names: the GPUs that torch uses.
    """
    if any("computes wrongly" in name for name in names):
        return Check("gpu", "fail", ", ".join(names), "update the NVIDIA driver and reinstall torch")
    if names:
        return Check("gpu", "ok", ", ".join(names))
    if driver is None:
        return Check("gpu", "ok", "none; runs use the CPU")
    supports = f"the driver supports CUDA {driver[0]}.{driver[1]}"
    if built_for is None:
        fix = f"reinstall torch, torchvision and torchaudio from {WHEELS}/cuXYZ, XYZ at most {driver[0]}{driver[1]}"
        return Check("gpu", "warn", f"{supports}, but torch is built for the CPU", fix)
    if driver[0] < release(built_for)[0]:
        fix = f"update the NVIDIA driver, or install a torch built for CUDA {driver[0]} from {WHEELS}"
        return Check("gpu", "fail", f"{supports}, torch is built for {built_for}", fix)
    fix = "run nvidia-smi; look at CUDA_VISIBLE_DEVICES, and in a container at --gpus all"
    return Check("gpu", "warn", f"{supports}, but torch finds no GPU", fix)


def _toolkit() -> Check:
    import torch

    return check_toolkit(os.environ, torch.version.cuda, torch.cuda.is_available())


def _registry() -> Check:
    registry = importlib.import_module("vision.engine.registry")
    return Check("registry", "ok", f"{len(registry.names())} names, plug-ins included")


def check_data(variables: Mapping[str, str]) -> Check:
    """Data sets that shipped recipes look for."""
    named = variables.get(DATA_VARIABLE)
    folder = Path(named).expanduser() if named else DATA_FALLBACK
    where = f"{DATA_VARIABLE}={named}" if named else str(folder)
    if folder.is_dir():
        sets = sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
        if sets:
            return Check("data", "ok", f"{where}: {', '.join(sets)}")
        return Check("data", "warn", f"{where} holds no folders", f"put data sets there, or set {DATA_VARIABLE}")
    if named:
        return Check("data", "fail", f"{where} is no folder", f"correct {DATA_VARIABLE} or unset it")
    found = f"none: {DATA_VARIABLE} is not set and {folder} is not there; recipes on data that ships still run"
    return Check("data", "warn", found, f"set {DATA_VARIABLE} to the folder of your data sets")


def _processor() -> Check:
    return Check("processor", "ok", f"{cpu_model()}, {core_count()} cores")


def check_threads(variables: Mapping[str, str], cores: int) -> Check:
    """Threads of one process: not more than cores, and said how many when there are many."""
    given = variables.get("OMP_NUM_THREADS")
    if given is None:
        return Check(
            "threads", "ok", f"OMP_NUM_THREADS is not set: torch takes up to {cores}; trainer.threads limits them"
        )
    if not given.isdecimal() or int(given) < 1:
        return Check("threads", "warn", f"OMP_NUM_THREADS={given} is no number of threads", "unset OMP_NUM_THREADS")
    if int(given) > cores:
        found = f"OMP_NUM_THREADS={given} on {cores} cores: threads will wait for each other"
        return Check("threads", "warn", found, f"export OMP_NUM_THREADS={cores}")
    return Check("threads", "ok", f"OMP_NUM_THREADS={given} of {cores} cores")


def check_room(name: str, there: float | None, least: float, fix: str) -> Check:
    """There are at least ``least`` GiB of something."""
    if there is None:
        return Check(name, "ok", "cannot be told on this system")
    found = f"{there:.1f} GiB"
    return Check(name, "ok", found) if there >= least else Check(name, "warn", f"{found}, little", fix)


def _shared_memory() -> Check:
    if not SHARED_MEMORY.is_dir():
        return Check("shared memory", "ok", "not used on this system")
    there = shutil.disk_usage(SHARED_MEMORY).free / 2**30
    return check_room(
        "shared memory", there, LEAST_SHARED_GB, "set trainer.workers: 0, or start the container with --shm-size=8g"
    )


def _disk() -> Check:
    there = shutil.disk_usage(Path.cwd()).free / 2**30
    return check_room("disk", there, LEAST_DISK_GB, "make room, or set output=... to a larger disk")
