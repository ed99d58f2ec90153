"""Weights as safetensors, resume state readable without unpickling code; both replaced atomically, each with a digest.

Neither format tells a byte that a disk or a copy has changed from one that was meant. So each file holds the SHA-256 of
all else in it: weights in their metadata, a resume state behind its end. A file without one is taken as it is.
"""

import errno
import hashlib
import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from vision.engine.errors import CheckpointError, UserError
from vision.engine.files import write_atomically

RESUME_FORMAT = "triptych-resume-1"
WEIGHTS_FORMAT = "triptych-weights-1"
_DIGEST = "sha256"
_SEAL = b"\nsha256:"
_SEALED = len(_SEAL) + 64
"""Bytes behind a resume state: the mark and the digest of what stands before it."""


def save_weights(path: Path, network: nn.Module, metadata: dict[str, str]) -> None:
    """Writes a network's parameters and buffers as safetensors; the same weights and metadata make the same bytes.

    Args:
        path: replaced only once the new file is complete on disk.
        network: its ``state_dict`` is written.
        metadata: strings kept in the file's header.

    Raises:
        CheckpointError: the file cannot be written (a full disk, say); the file that was there is untouched.
    """
    tensors = {name: value.detach().to("cpu").contiguous() for name, value in network.state_dict().items()}
    shared: dict[int, str] = {}
    for name, value in tensors.items():  # tied parameters share memory, which safetensors refuses
        if value.numel() and value.data_ptr() in shared:
            tensors[name] = value.clone()
        shared.setdefault(value.data_ptr(), name)
    _write(path, _sealed(save(tensors, metadata={"format": WEIGHTS_FORMAT, **metadata})))


def _sealed(file: bytes) -> bytes:
    """The same safetensors file with its digest, and its header's keys sorted: the library's order has moods."""
    header, data = _parts(file)
    header["__metadata__"][_DIGEST] = _digest(header, data)
    text = _canonical(header)
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, data])


def _parts(file: bytes) -> tuple[dict[str, Any], memoryview]:
    """The header and the data of a safetensors file."""
    start = 8 + struct.unpack_from("<Q", file)[0]
    header: dict[str, Any] = json.loads(file[8:start])
    return header, memoryview(file)[start:]


def _canonical(header: dict[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _digest(header: dict[str, Any], data: memoryview) -> str:
    """SHA-256 of a safetensors file's header, less its own digest, and data."""
    others = {key: value for key, value in header["__metadata__"].items() if key != _DIGEST}
    found = hashlib.sha256(_canonical({**header, "__metadata__": others}))
    found.update(data)
    return found.hexdigest()


def save_resume(path: Path, state: dict[str, Any]) -> None:
    """Writes a resume state of tensors and plain values; see :func:`read_resume`."""
    buffer = io.BytesIO()
    torch.save({"format": RESUME_FORMAT, **state}, buffer)
    content = buffer.getvalue()
    _write(path, content + _SEAL + hashlib.sha256(content).hexdigest().encode())


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except UserError as error:
        full = getattr(error.__cause__, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some space" if full else "mend that"
        raise CheckpointError(f"{error}; the checkpoint before it is kept: {advice}, then --resume") from error


def read_resume(path: Path) -> dict[str, Any]:
    """The state :func:`save_resume` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, changed, or not a resume state.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: there is nothing to resume from; start without --resume")
    try:
        content = _unsealed(path, path.read_bytes())
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path}: truncated or not a resume state ({type(error).__name__}); "
            "remove it and start anew, or restore it from a copy"
        ) from error
    if not isinstance(state, dict) or state.get("format") != RESUME_FORMAT:
        raise CheckpointError(f"{path}: not a resume state of this package (expected format '{RESUME_FORMAT}')")
    return state


def _unsealed(path: Path, content: bytes) -> bytes:
    """A resume state without its seal, where it has one.

    Raises:
        CheckpointError: it is not what was sealed.
    """
    body, seal = content[:-_SEALED], content[-_SEALED:]
    if not seal.startswith(_SEAL):
        return content
    if hashlib.sha256(body).hexdigest().encode() != seal[len(_SEAL) :]:
        raise CheckpointError(_changed(path))
    return body


def _changed(path: Path) -> str:
    return f"{path}: damaged: its bytes are not those that were written (SHA-256 differs); restore it from a copy"


@dataclass(frozen=True)
class Weights:
    """Tensors by name with the file's metadata.

    Attributes:
        path: the file.
        tensors: by state-dict name.
        metadata: what :func:`save_weights` was given; empty for a foreign file.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def read_weights(path: str | Path) -> Weights:
    """Weights from safetensors, or from a ``.pt``/``.pth`` state dict; no code in the file is run.

    Raises:
        CheckpointError: the file is missing, truncated, changed, foreign, or holds no tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; expected a .safetensors, .pt or .pth file")
    if path.suffix in (".pt", ".pth", ".bin"):
        return Weights(path, _read_pickle(path), {})
    try:
        content = path.read_bytes()
        tensors = dict(sorted(load(content).items()))  # safe_open leaks two objects a tensor (safetensors 0.8.0)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: truncated or not a safetensors file ({error})") from error
    except KeyError as error:
        raise CheckpointError(f"{path}: holds numbers of the type {error}, which cannot be read here") from error
    header, data = _parts(content)
    metadata = dict(header.get("__metadata__") or {})
    digest = metadata.pop(_DIGEST, None) if metadata.get("format") == WEIGHTS_FORMAT else None
    if digest is not None and digest != _digest(header, data):
        raise CheckpointError(_changed(path))
    form = metadata.get("format", "")
    if form.startswith("triptych-weights-") and form != WEIGHTS_FORMAT:
        raise CheckpointError(
            f"{path}: weights of the format '{form}', and this version reads '{WEIGHTS_FORMAT}'; use the triptych that "
            "wrote them, or train again"
        )
    return Weights(path, tensors, metadata)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path}: truncated, or holds more than tensors, which is not loaded ({type(error).__name__})"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()) or not content:
        raise CheckpointError(f"{path}: not a state dict; expected tensors by name")
    return {str(name): value for name, value in content.items()}


def load_weights(network: nn.Module, path: str | Path) -> Weights:
    """Loads weights strictly: every name and shape must agree.

    Raises:
        CheckpointError: the file cannot be read, or what differs, by name; the network is then unchanged.
    """
    weights = read_weights(path)
    found = differences(network.state_dict(), weights.tensors)
    if found:
        origin = weights.metadata.get("network", "")
        raise CheckpointError(
            f"{weights.path}: holds the weights of another network"
            + (f" ('{origin}', task '{weights.metadata.get('task', '?')}')" if origin else "")
            + f", not of this {type(network).__name__}: {found}; use the configuration it was trained with"
        )
    network.load_state_dict(weights.tensors)
    return weights


def differences(wanted: dict[str, Any], held: dict[str, Any]) -> str:
    """In what ``held`` would not fit a module whose state is ``wanted``, by name; empty where it fits.

    Example:
        >>> differences({"a": torch.zeros(2), "b": torch.zeros(1)}, {"a": torch.zeros(3)})
        'missing 1 (b) another shape 1 (a (3,) for (2,))'
    """
    shapes = [
        f"{name} {_shape(held[name])} for {_shape(value)}"
        for name, value in wanted.items()
        if name in held and _shape(held[name]) != _shape(value)
    ]
    missing, unknown = [name for name in wanted if name not in held], [name for name in held if name not in wanted]
    return (_few("missing", missing) + _few("unknown", unknown) + _few("another shape", shapes)).strip()


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def _few(what: str, names: list[str], most: int = 4) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f" {what} {len(names)} ({', '.join(names[:most])}{more})"
