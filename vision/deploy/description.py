"""What an exported file says of itself: its graphs, and how inputs are made and outputs read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision.engine.errors import ExportedFileError

FORMAT = 1
"""Version of the description that this package writes, and the newest that it reads."""

KEY = "triptych"
"""Name of the description among the metadata of an ONNX file."""

SIDECAR = "model.json"
"""Name of the file that holds the description beside the graphs."""

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
"""What inputs and outputs may be made of. Nothing else that a file names is looked up in NumPy or PyTorch."""


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Attributes:
        shape: a number for an axis of fixed size, a letter for one of any size.
        dtype: one of :data:`DTYPES`.
        multiple: axes H and W are multiples of this, pixels.
        smallest: axes H and W are at least this, pixels.
    """

    shape: tuple[int | str, ...]
    dtype: str
    multiple: int = 1
    smallest: int = 1


@dataclass(frozen=True)
class GraphFile:
    """One graph: its file's name and its ports, in the order of the network's arguments."""

    file: str
    inputs: dict[str, Port]
    outputs: dict[str, Port]


@dataclass(frozen=True)
class Description:
    """What an exported network says of itself.

    Attributes:
        task: registered name of the task it was trained by.
        graphs: by name.
        before: how an input is made.
        after: what outputs mean.
        text: all of it, as it stands in the file.
    """

    task: str
    graphs: dict[str, GraphFile]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    text: Mapping[str, Any]


def parsed(text: str, where: str) -> Description:
    """The description in a JSON text.

    Args:
        text: of the sidecar, or of a file's metadata.
        where: what an error calls it.

    Raises:
        ExportedFileError: no JSON, a newer format, or something missing or of another kind.
    """
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise ExportedFileError(f"{where}: its description is damaged ({error}); export the run again") from error
    number = tree.get("format") if isinstance(tree, dict) else None
    if not isinstance(number, int) or number < 1:
        raise ExportedFileError(f"{where}: its description has no 'format'; export the run again")
    if number > FORMAT:
        raise ExportedFileError(
            f"{where}: was written in format {number}, and this version reads up to {FORMAT}; install a newer triptych"
        )
    try:
        graphs = {str(name): _graph(graph) for name, graph in tree["graphs"].items()}
        if not graphs:
            raise ValueError("no graphs")
        before, after = dict(tree["before"]), dict(tree["after"])
        return Description(str(tree["task"]), graphs, before, after, tree)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ExportedFileError(f"{where}: its description is damaged: {told(error)}; export the run again") from error


def told(error: Exception) -> str:
    """What is wrong with a description, in a few words."""
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _graph(tree: Mapping[str, Any]) -> GraphFile:
    file = str(tree["file"])
    if not file or Path(file).name != file or file in (".", ".."):
        raise ValueError(f"'{file}' is not the name of a file beside it")
    inputs, outputs = ({str(name): _port(port) for name, port in tree[key].items()} for key in ("inputs", "outputs"))
    return GraphFile(file, inputs, outputs)


def _port(tree: Mapping[str, Any]) -> Port:
    shape, dtype = tuple(axis if isinstance(axis, str) else int(axis) for axis in tree["shape"]), str(tree["dtype"])
    if dtype not in DTYPES:
        raise ValueError(f"dtype '{dtype[:40]}' is none of {', '.join(DTYPES)}")
    return Port(shape, dtype, int(tree.get("multiple", 1)), int(tree.get("smallest", 1)))
