"""Files of a run: written whole or not at all, read with errors that name them."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vision.engine.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary file beside ``path`` to write to, and puts it in the place of ``path`` when all went well.

    The file is synced to disk before it is renamed, and its folder after, so that at any moment, even after a power
    cut, ``path`` is either the whole old file or the whole new one. When anything fails the temporary file is removed.

    Raises:
        UserError: the operating system refused (disk full, no permission), with the path and its reason.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "weights.bin"
        >>> with replacing(target) as temporary:
        ...     _ = temporary.write_bytes(b"1234")
        >>> target.read_bytes()
        b'1234'
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise


def _sync(path: Path) -> None:
    """Forces a file, or a folder's list of names, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, as :func:`replacing` tells.

    Raises:
        UserError: it cannot be written, with the path and the reason.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def to_json(value: Any, indent: int | None = None) -> str:
    """Standard JSON of plain values, arrays and tensors; a number that is not finite becomes ``null``.

    Example:
        >>> to_json({"loss": float("nan"), "step": 3})
        '{"loss": null, "step": 3}'
    """
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return str(value)


def write_json(path: Path, value: Any) -> None:
    """Writes :func:`to_json` of ``value``, indented, atomically.

    Raises:
        UserError: it cannot be written, with the path and the reason.
    """
    write_atomically(path, (to_json(value, indent=2) + "\n").encode())


def read_text(path: Path) -> str:
    """A file of a run folder as text.

    Raises:
        UserError: it is missing or cannot be read, with the reason.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_json(path: Path) -> Any:
    """What a JSON file of a run folder holds.

    Raises:
        UserError: it is missing, cannot be read or is no JSON; with the line.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: is not JSON ({error.msg})") from error


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it; one that is there is fine.

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be made: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written to: give yourself permission or choose another output=...")
