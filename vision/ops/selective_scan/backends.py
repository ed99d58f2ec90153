"""Which path computes a scan: the compiled kernels, mamba-ssm's, or the PyTorch reference; and how a user chooses."""

import logging
from types import TracebackType
from typing import Any

import torch

from vision.engine.errors import nearest
from vision.ops.selective_scan import mamba
from vision.ops.selective_scan.errors import BackendError
from vision.ops.selective_scan.library import BUILD, CUDA_STATES, LIBRARY, cpu_isa, set_cpu_isa

log = logging.getLogger(__name__)

PATHS = ("compiled", "mamba", "reference")
CPU_ISAS = ("baseline", "avx2", "avx512")

_forced: str | None = None
_said: set[str] = set()


def choose(asked: str | None, device: str, dtype: torch.dtype, states: int) -> str:
    """The path that computes a scan: one of ``PATHS``.

    Without a wish it is ``compiled`` wherever the kernels can run. Where they cannot, the reference runs and the reason
    is said once; float64 goes to the reference by design, without a word.

    Args:
        asked: the wish of the call; else that of :class:`force_backend` holds, if any.
        device: type of the device of the inputs.
        dtype: of the inputs.
        states: S of A.

    Raises:
        BackendError: what was asked for cannot run, or the library that is there cannot be loaded.
    """
    wish = asked if asked is not None else _forced
    if wish is not None:
        return _wished(wish, device, dtype, states)
    if dtype == torch.float64:
        return "reference"
    obstacle = _obstacle(device, dtype, states)
    if not obstacle:
        return "compiled"
    if LIBRARY.broken:
        raise BackendError(obstacle + "; or choose force_backend='reference'")
    _say_once(f"selective scan: the PyTorch reference runs, which is much slower: {obstacle}")
    return "reference"


def _wished(wish: str, device: str, dtype: torch.dtype, states: int) -> str:
    check_name(wish)
    if wish == "reference":
        return "reference"
    obstacle = mamba.obstacle(device, dtype, states) if wish == "mamba" else _obstacle(device, dtype, states)
    if obstacle:
        raise BackendError(f"force_backend={wish!r}: {obstacle}")
    return wish


def _obstacle(device: str, dtype: torch.dtype, states: int) -> str:
    """Why the compiled kernels cannot run, and the fix; empty when they can."""
    if not LIBRARY.loaded:
        return f"{LIBRARY.reason}; {LIBRARY.fix}"
    if device not in LIBRARY.devices:
        return _no_kernels_for(device)
    if dtype == torch.float64:
        return "float64 is computed by the reference only"
    if device == "cuda" and states > CUDA_STATES:
        return f"{states} states of a channel are more than the {CUDA_STATES} that the CUDA kernels take"
    return ""


def _no_kernels_for(device: str) -> str:
    if device != "cuda":
        return f"there are no kernels for {device}"
    why = f" ({LIBRARY.left_out})" if LIBRARY.left_out else ""
    return f"the compiled library holds no kernels for cuda{why}; where a CUDA toolkit is: TRIPTYCH_BUILD=cuda {BUILD}"


@torch.compiler.assume_constant_result  # a compiler runs it while it traces, instead of tracing it
def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        log.warning(message)


def check_name(name: str) -> None:
    """Refuses a name that is none of ``PATHS``."""
    if name not in PATHS:
        raise BackendError(f"force_backend: got {name!r}, expected one of {', '.join(PATHS)}{nearest(name, PATHS)}")


class force_backend:
    """Makes every scan take one path, until the end of the ``with`` block, or for good when called outside of one.

    Args:
        name: ``compiled``, ``mamba`` or ``reference``; ``cpu-baseline``, ``cpu-avx2`` or ``cpu-avx512`` for the
            compiled CPU kernels of one instruction set; None for the automatic choice.

    Raises:
        BackendError: an unknown name, or an instruction set that this processor lacks.

    Example:
        >>> with force_backend("reference"):
        ...     backend()
        'reference'
    """

    def __init__(self, name: str | None) -> None:
        global _forced
        self._before = _forced
        self._isa_before: str | None = None
        if name is not None and name.startswith("cpu-"):
            self._isa_before = _use_isa(name.removeprefix("cpu-"))
            name = "compiled"
        elif name is not None:
            check_name(name)
        _forced = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        global _forced
        _forced = self._before
        if self._isa_before is not None:
            set_cpu_isa(self._isa_before)


def _use_isa(isa: str) -> str:
    """Makes the CPU kernels use an instruction set; returns the one before."""
    if isa not in CPU_ISAS:
        raise BackendError(f"force_backend: got 'cpu-{isa}', expected one of cpu-{', cpu-'.join(CPU_ISAS)}")
    if not LIBRARY.loaded:
        raise BackendError(f"force_backend='cpu-{isa}': {LIBRARY.reason}; {LIBRARY.fix}")
    try:
        return set_cpu_isa(isa)
    except RuntimeError as error:
        raise BackendError(f"force_backend='cpu-{isa}': this processor or build lacks it") from error


def backend(device: torch.device | str | None = None, dtype: torch.dtype = torch.float32, states: int = 1) -> str:
    """The name of the path that would compute a scan.

    Args:
        device: of the inputs; torch's default device without it.
        dtype: of the inputs.
        states: S, the states of a channel.

    Returns:
        ``cpu-baseline``, ``cpu-avx2`` or ``cpu-avx512`` (the compiled CPU kernels and the instruction set they use),
        ``cuda`` (the compiled CUDA kernels), ``mamba`` (mamba-ssm's, when forced) or ``reference`` (PyTorch).

    Raises:
        BackendError: no path would; the message says why and what to do.
    """
    kind = torch.get_default_device().type if device is None else torch.device(device).type
    return _name(choose(None, kind, dtype, states), kind)


def _name(path: str, device: str) -> str:
    if path != "compiled":
        return path
    return f"cpu-{cpu_isa()}" if device == "cpu" else device


def facts() -> dict[str, Any]:
    """What a diagnosis tells about the scan; nothing is raised.

    Returns:
        ``cpu`` and ``cuda``: the name of the path on each, as :func:`backend` tells it, or ``none``; ``library``: the
        path of the compiled library, or None; ``reason`` and ``fix``: why it is not in use and what to do about it, or
        empty; ``cuda_reason``: why it holds no CUDA kernels and what to do, or empty; ``mamba``: why mamba-ssm's
        kernels cannot be chosen, or empty.
    """
    paths = {}
    for device in ("cpu", "cuda"):
        if LIBRARY.broken:
            paths[device] = "none"
        else:
            paths[device] = _name("compiled", device) if device in LIBRARY.devices else "reference"
    return {
        **paths,
        "library": None if LIBRARY.path is None else str(LIBRARY.path),
        "reason": LIBRARY.reason,
        "fix": LIBRARY.fix,
        "cuda_reason": _no_kernels_for("cuda") if LIBRARY.loaded and "cuda" not in LIBRARY.devices else "",
        "mamba": mamba.unavailable(),
    }
