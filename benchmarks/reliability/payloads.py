"""Payloads that make a file if they run, and how one is planted and given to what reads such files."""

import io
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.reliability.outcomes import Expected

CANARY = "canary"
"""The file that a payload makes, in the folder it runs in."""


LIVE = "payloads that are opened on purpose"
"""The entrance at which they must run."""

CODE = f'__import__("os").mkdir("{CANARY}")'
"""A payload in Python, for whatever would evaluate a text."""


class Payload:
    """Makes :data:`CANARY` when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (CANARY,)


@dataclass(frozen=True)
class Stranger:
    """One file and what it is given to.

    Attributes:
        entrance: where it comes in.
        case: what is in it.
        plant: writes it, into the folder that ``open`` runs in.
        open: what a user would do with it; a tool's ``main``, or any function that takes arguments.
        arguments: of ``open``.
        names: an error must hold one of these.
        expected: what must come of it.
    """

    entrance: str
    case: str
    plant: Callable[[Path], object]
    open: Callable[[list[str] | None], int | None]
    arguments: tuple[str, ...]
    names: tuple[str, ...]
    expected: Expected = "refused"


# -- what payloads are written in ----------------------------------------------------------------------------------


def pickles() -> dict[str, bytes]:
    """Payloads in each form that torch and numpy write pickles in."""
    archive = io.BytesIO()
    torch.save({"weight": torch.zeros(1), "trap": Payload()}, archive)
    old = io.BytesIO()
    torch.save({"trap": Payload()}, old, _use_new_zipfile_serialization=False)
    text = b"cos\nmkdir\n(S'" + CANARY.encode() + b"'\ntR."
    return {
        "a torch archive": archive.getvalue(),
        "torch's old form": old.getvalue(),
        "a bare pickle": pickle.dumps({"trap": Payload()}),
        "a pickle of protocol 0": text,
        "builtins.exec": b"cbuiltins\nexec\n(S'import os; os.mkdir(\"" + CANARY.encode() + b"\")'\ntR.",
    }


def array(value: Any) -> bytes:
    """The bytes of an npy file."""
    found = io.BytesIO()
    np.save(found, value, allow_pickle=True)
    return found.getvalue()


def object_array() -> Any:
    """An array of one payload."""
    held = np.empty(1, dtype=object)
    held[0] = Payload()
    return held


def writes(name: str, content: bytes) -> Callable[[Path], object]:
    """Plants a file."""
    return lambda folder: (folder / name).write_bytes(content)


def calls(function: Callable[..., Any], *fixed: Any) -> Callable[[list[str] | None], int]:
    """Opens by a function of paths, and of what is ``fixed``."""

    def main(arguments: list[str] | None) -> int:
        function(*(Path(argument) for argument in arguments or []), *fixed)
        return 0

    return main
