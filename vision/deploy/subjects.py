"""What is measured, made ready: a graph of a network with its inputs, or an exported file, and what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vision.deploy.description import SIDECAR, Description, parsed
from vision.deploy.naming import Name, block_of
from vision.deploy.session import OnnxSession
from vision.engine.config import load
from vision.engine.deployment import Deployment, Graph, images_graph
from vision.engine.errors import ConfigError, DataError, ExportedFileError, nearest
from vision.engine.files import read_json, read_text
from vision.engine.folding import deployed
from vision.engine.registry import build
from vision.engine.run import RunFolder
from vision.engine.seeding import seed_everything
from vision.engine.task import Task
from vision.engine.train import build_task, load_run, single_run

Size = tuple[int, int]
"""Rows and columns."""
STRIDE = 4
"""Image pixels from one cell of a feature map, ``h`` and ``w`` of an exported graph, to the next."""


@dataclass
class Subject:
    """What is measured.

    Attributes:
        name: as it was asked for.
        shapes: of each input by its name: numbers, and letters where any size goes.
        letters: what those letters stand for, but N.
        graph: of a network, deployed; None of an exported file.
        trained_form: the same as it was trained, with its batch norms: what published sizes are told of.
        file: the exported file.
        precision: of a file, as its export tells.
        dtypes: of the inputs.
        examples: of each input, where values have to be taken from it (places of people).
        folded: whether batch norms and branches were folded.
        task: of a run or recipe.
        trained: whether its weights were trained; None where that cannot be told.
        weights: the file they come from, without its folder.
        figures: what an evaluation of the run found, by name; the primary one and its split under ``primary``,
            ``split``.
        asked: what :func:`subject_of` was given beside the name, so that another process can build it too.
    """

    name: Name
    shapes: dict[str, tuple[int | str, ...]]
    letters: dict[str, int]
    graph: Graph | None = None
    trained_form: Graph | None = None
    file: Path | None = None
    precision: str | None = None
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    examples: dict[str, Tensor] = field(default_factory=dict)
    folded: bool = True
    task: Task | None = None
    trained: bool | None = False
    weights: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """For tables: the name, and the graph where it is one of several."""
        own = "" if self.graph is None or self.graph.name == "model" else f", graph {self.graph.name}"
        return self.name.short + own

    def shape(self, key: str, batch: int) -> tuple[int, ...]:
        """Of an input, for a batch."""
        sizes = {**self.letters, "N": batch}
        return tuple(sizes[side] if isinstance(side, str) else side for side in self.shapes[key])

    def inputs(self, batch: int) -> dict[str, Tensor]:
        """A batch of inputs from a fixed seed: normal values, as of normalised images; whole numbers as exemplified."""
        generator = torch.Generator().manual_seed(0)
        found = {}
        for key in self.shapes:
            shape, dtype = self.shape(key, batch), self.dtypes.get(key, torch.float32)
            example = self.examples.get(key)
            if dtype.is_floating_point or example is None:
                found[key] = torch.randn(shape, generator=generator).to(dtype)
            else:
                found[key] = example[torch.arange(shape[0]) % len(example)]
        return found


def subject_of(
    name: Name,
    size: Size | None = None,
    usual: Mapping[str, Size] | None = None,
    checkpoint: str = "best",
    folded: bool = True,
    graph: str | None = None,
    people: int = 1,
    trust: bool = False,
) -> Subject:
    """Builds or loads what a name means.

    Args:
        name: of it.
        size: rows and columns of the input; needed where nothing else tells it.
        usual: sizes of registered networks that do not tell their own.
        checkpoint: of a run: ``best``, ``last`` or a file.
        folded: with batch norms and branches folded, as it would be used.
        graph: which graph, of a network that is exported as several; the first without it.
        people: P, of graphs that take people.
        trust: a package of PyTorch may be opened, which runs the code in it.

    Raises:
        UserError: it cannot be built or loaded; a package that nobody vouched for; nothing tells the size of its input.
    """
    asked = {
        "size": size, "usual": usual, "checkpoint": checkpoint, "folded": folded, "graph": graph, "people": people
    }  # fmt: skip
    if name.kind == "file":
        if name.backend == "aoti" and not trust:
            raise ConfigError(
                f"{name.what}: holds compiled code, and opening it runs that code; if you made it yourself, add --trust"
            )
        return _of_file(name, size, people)
    if name.kind == "network":
        built = _of_network(name, size, usual or {}, folded)
        built.asked = asked
        return built
    found, task = _of_run(name, checkpoint) if name.kind == "run" else _of_recipe(name)
    kept = subject(name, task.deployment(folded), size or _rows_and_columns(task.example_input()), graph, people)
    kept.task, kept.folded, kept.asked = task, folded, asked
    assert kept.graph is not None
    kept.trained_form = task.deployment(folded=False)[kept.graph.name] if folded else kept.graph
    kept.trained, kept.weights, kept.figures = found
    return kept


def subject(
    name: Name, deployment: Deployment, size: Size | None, graph: str | None = None, people: int = 1
) -> Subject:
    """One graph of a deployment, with inputs of a size.

    Args:
        name: what it is called.
        deployment: its graphs.
        size: rows and columns of the image that the first graph takes.
        graph: which; the first without it.
        people: P.

    Raises:
        ConfigError: no graph of that name, a size that it does not take, or none where one is needed.
    """
    known = [each.name for each in deployment.graphs]
    if graph is not None and graph not in known:
        raise ConfigError(f"{name.short}: no graph '{graph}'{nearest(graph, known)}; it has {', '.join(known)}")
    first, chosen = deployment.graphs[0], deployment[graph or known[0]]
    shapes = {
        key: tuple(chosen.dynamic.get(key, {}).get(axis, int(side)) for axis, side in enumerate(example.shape))
        for key, example in zip(chosen.inputs, chosen.example, strict=True)
    }
    dtypes = {key: example.dtype for key, example in zip(chosen.inputs, chosen.example, strict=True)}
    examples = dict(zip(chosen.inputs, chosen.example, strict=True))
    letters = {**_letters(name, first, size), "P": people}
    for small, large in (("h", "H"), ("w", "W")):
        if any(small in shape for shape in shapes.values()):
            letters[small] = letters[large] * _extent(chosen, small) // _extent(first, large)
    return Subject(name, shapes, letters, chosen, dtypes=dtypes, examples=examples)


def _extent(graph: Graph, letter: str) -> int:
    """What a letter stands for in the example of a graph."""
    for key, example in zip(graph.inputs, graph.example, strict=True):
        for axis, found in graph.dynamic.get(key, {}).items():
            if found == letter:
                return int(example.shape[axis])
    return 1


def _letters(name: Name, graph: Graph, size: Size | None) -> dict[str, int]:
    """Rows and columns of images, checked against what the graph takes."""
    axes = graph.dynamic.get(graph.inputs[0], {})
    shape = graph.example[0].shape
    if "H" not in axes.values():
        if size is not None and len(shape) >= 3 and tuple(shape[-2:]) != size:
            raise ConfigError(
                f"{name.short}: takes {shape[-2]}x{shape[-1]} only, got --size {size[0]}x{size[1]}; leave it out, or "
                "build the network for that size"
            )
        return {}
    if size is None:
        raise ConfigError(f"{name.short}: takes images of any size; say which with --size ROWSxCOLUMNS")
    if min(size) < graph.smallest or any(side % graph.multiple for side in size):
        raise ConfigError(
            f"{name.short}: --size {size[0]}x{size[1]}: expected sides of {graph.smallest} or more that are multiples "
            f"of {graph.multiple}"
        )
    return {"H": size[0], "W": size[1]}


def _rows_and_columns(example: Tensor) -> Size | None:
    return (int(example.shape[-2]), int(example.shape[-1])) if example.ndim >= 4 else None


Found = tuple[bool | None, str | None, dict[str, Any]]


def _of_recipe(name: Name) -> tuple[Found, Task]:
    recipe = load(name.what, name.options).recipe()
    try:
        task = build_task(recipe)
    except DataError as error:
        own = recipe.task.get("network", {})
        network = own.get("type") if isinstance(own, dict) else own
        raise DataError(f"{error}; or measure its network alone, which needs no data: '{network}'") from error
    return (False, None, {}), task


def _of_run(name: Name, checkpoint: str) -> tuple[Found, Task]:
    folder = Path(name.what)
    _, _, task, file = load_run(folder, checkpoint, list(name.options))
    return (True, file.name, figures_of(single_run(folder))), task


def figures_of(run: Path) -> dict[str, Any]:
    """What the evaluation of a run on its test split found, else that on its validation split; empty without one."""
    for split in ("test", "val"):
        file = RunFolder(run).path / "eval" / split / "result.json"
        if file.is_file():
            result = read_json(file)
            return {**result["metrics"], "primary": result.get("primary"), "split": split}
    return {}


def description_of(file: Path) -> Description:
    """What an exported file says of itself: beside it, else, of an ONNX file, in it.

    Raises:
        ExportedFileError: it says nothing, or is damaged.
    """
    beside = file.parent / SIDECAR
    if beside.is_file():
        return parsed(read_text(beside), str(beside))
    text = OnnxSession({"": file}).metadata[""] if file.suffix.lower() == ".onnx" else None
    if text is None:
        raise ExportedFileError(f"{file}: no {SIDECAR} beside it that tells its inputs; export it with tools/export.py")
    return parsed(text, str(file))


def _of_file(name: Name, size: Size | None, people: int) -> Subject:
    file = Path(name.what)
    told = description_of(file)
    graphs = list(told.graphs.values())
    own = next((graph for graph in graphs if graph.file == file.name), graphs[0] if len(graphs) == 1 else None)
    if own is None:
        raise ExportedFileError(f"{file}: was renamed; its graphs are {', '.join(graph.file for graph in graphs)}")
    shapes = {key: port.shape for key, port in own.inputs.items()}
    dtypes = {key: getattr(torch, port.dtype) for key, port in own.inputs.items()}
    if size is None and any({"H", "W", "h", "w"} & set(shape) for shape in shapes.values()):
        raise ConfigError(f"{file}: takes images of any size; say which with --size ROWSxCOLUMNS")
    for port in own.inputs.values():
        if size and (min(size) < port.smallest or any(side % port.multiple for side in size)):
            raise ConfigError(
                f"{file}: --size {size[0]}x{size[1]}: expected sides of {port.smallest} or more that are multiples of "
                f"{port.multiple}"
            )
    letters = {"H": size[0], "W": size[1], "h": size[0] // STRIDE, "w": size[1] // STRIDE} if size else {}
    whole = {key: torch.zeros(1, *map(int, shape[1:]), dtype=dtypes[key]) for key, shape in shapes.items()
             if not dtypes[key].is_floating_point}  # fmt: skip
    trained, precision = told.text.get("trained"), told.text.get("precision")
    return Subject(name, shapes, {**letters, "P": people}, file=file, precision=precision, dtypes=dtypes,
                   examples=whole, trained=trained, weights=file.name, figures=_figures_of(told, file))  # fmt: skip


def _figures_of(told: Description, file: Path) -> dict[str, Any]:
    """What the run that was exported was judged with, and which figure that goes by."""
    metric = (told.text.get("run") or {}).get("metric") or {}
    parity = file.parent / "parity.json"
    primary = read_json(parity).get("primary") if parity.is_file() else None
    for split in ("test", "val"):
        if isinstance(metric.get(split), dict):
            return {**metric[split], "primary": primary, "split": split}
    return {}


def _of_network(name: Name, size: Size | None, usual: Mapping[str, Size], folded: bool) -> Subject:
    seed_everything(0)
    network: nn.Module = build(block_of(name), "network")
    example = torch.randn(2, *_shape_of(network, name, size, usual), generator=torch.Generator().manual_seed(0))
    as_trained, as_used = (
        images_graph(deployed(network, lambda each: each(example), how), example, ("output",), any_size=False)
        for how in (False, folded)
    )
    found = subject(name, Deployment((as_used,)), None)
    found.trained_form, found.folded = as_trained, folded
    return found


def _shape_of(network: nn.Module, name: Name, size: Size | None, usual: Mapping[str, Size]) -> tuple[int, ...]:
    """Of a registered network's input: what it tells, else what its first layer takes."""
    channels, numbers = getattr(network, "in_channels", None), getattr(network, "inputs", None)
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)), None)
    if channels is None and isinstance(first, nn.Conv2d):
        channels = first.in_channels
    if channels is None:
        numbers = numbers or (first.in_features if isinstance(first, nn.Linear) else None)
        if numbers is None:
            raise ConfigError(f"{name.short}: nothing tells the shape of its input; measure a recipe that uses it")
        if size is not None:
            raise ConfigError(f"{name.short}: takes {numbers} numbers a sample; leave out --size")
        return (int(numbers),)
    found = size or _own_size(network) or usual.get(name.what)
    if found is None:
        raise ConfigError(f"{name.short}: takes images of any size; say which with --size ROWSxCOLUMNS")
    return (int(channels), *found)


def _own_size(network: nn.Module) -> Size | None:
    """Rows and columns as the network tells them: its crops' size, or timm's usual one."""
    crops = getattr(network, "input_size", None)
    if isinstance(crops, tuple) and len(crops) == 2:
        return int(crops[1]), int(crops[0])  # width and height in recipes
    about = getattr(network, "default_cfg", None)
    if isinstance(about, dict) and len(about.get("input_size", ())) == 3:
        return int(about["input_size"][1]), int(about["input_size"][2])
    return None
