"""Recipes: YAML, ``extends`` and overrides -> a tree that knows its files and lines -> a validated :class:`Recipe`."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vision.engine.errors import ConfigError, nearest
from vision.engine.merging import escaped, load_file, parse_override, put, shown_path, with_variables
from vision.engine.mistakes import Mistake, Place, report, shown
from vision.engine.recipe import Recipe
from vision.engine.references import is_reference, wrong_references
from vision.engine.schema import data_the_task_refuses, homes, mistakes_in, read
from vision.engine.sources import Node, node_of, to_text
from vision.engine.stages import Pipeline, Step, expand


@dataclass(frozen=True)
class Config:
    """A resolved recipe or pipeline: files merged, overrides applied, variables replaced.

    Attributes:
        node: its values with their places.
    """

    node: Node

    @cached_property
    def tree(self) -> dict[str, Any]:
        """The values as plain dictionaries, lists and scalars."""
        tree = self.node.tree()
        assert isinstance(tree, dict)
        return tree

    def where(self, place: Place) -> str:
        """``file:line`` (or ``command line``) of the value at ``place``, or of the nearest mapping above it."""
        node = self.node
        for part in place:
            below: Any = node.value
            inside = range(len(below)) if isinstance(below, list) else below if isinstance(below, dict) else ()
            if part not in inside:
                break
            node = below[part]
        return node.place

    @property
    def name(self) -> str:
        """The recipe's name, or an empty string where it has none."""
        return str(self.tree.get("name") or "")

    @property
    def yaml(self) -> str:
        """The tree as a file that loads to the same tree and hash."""
        return to_yaml(self.tree)

    @property
    def hash(self) -> str:
        """SHA-256 of the tree as canonical JSON."""
        text = json.dumps(self.tree, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def is_pipeline(self) -> bool:
        """Whether it stands for several runs: stages in a row, or seeds side by side."""
        return "stages" in self.tree or "seeds" in self.tree

    @property
    def is_step(self) -> bool:
        """Whether it is a stage that runs a registered step instead of training."""
        return "step" in self.tree

    def stages(self) -> list["Config"]:
        """The stages of a pipeline, each complete with the pipeline's defaults; of anything else, itself."""
        stages: Any = self.node.value
        return [Config(stage) for stage in stages["stages"].value] if "stages" in self.tree else [self]

    @property
    def seeds(self) -> list[int]:
        """The seeds it is run with side by side; empty where it is run once.

        Raises:
            ConfigError: they are not different integers from 0.
        """
        seeds = self.tree.get("seeds", [])
        are_integers = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
        if not are_integers or len(set(seeds)) < len(seeds) or (not seeds and "seeds" in self.tree):
            place = self.where(("seeds",))
            raise ConfigError(f"{place}: seeds: expected a list of different integers from 0, got {shown(seeds)}")
        return list(seeds)

    def recipe(self) -> Recipe:
        """The recipe, every block in it checked.

        Raises:
            ConfigError: one line for each mistake; or it is a pipeline of stages.
        """
        if "stages" in self.tree:
            raise ConfigError(f"{self.where(('stages',))}: '{self.name}' is a pipeline of stages, expected one recipe")
        values = {key: value for key, value in self.tree.items() if key != "seeds"}
        self._refuse(Recipe, _mistakes_of_recipe(values) + wrong_references(values, earlier=()))
        return read(Recipe, values)

    def check(self) -> None:
        """Checks everything without building or reading data: the recipe, or every stage of a pipeline.

        Raises:
            ConfigError: one line for each mistake.
        """
        _ = self.seeds
        if "stages" not in self.tree:
            self.recipe()
            return
        self._refuse(Pipeline, mistakes_in(Pipeline, self.tree))
        lines: dict[str, list[str]] = {}
        names = [stage.name for stage in self.stages()]
        for position, stage in enumerate(self.stages()):
            try:
                stage._check_as_stage(names[:position], names[position:])
            except ConfigError as error:
                for line in str(error).splitlines():
                    lines.setdefault(line, []).append(stage.name)
        if lines:
            raise ConfigError("\n".join(f"{line} (in stage {_few(among)})" for line, among in lines.items()))

    def _check_as_stage(self, earlier: Sequence[str], later: Sequence[str]) -> None:
        wrong = wrong_references(self.tree, earlier, later)
        if self.is_step:
            self._refuse(Step, _known_by_now(self.tree, mistakes_in(Step, self.tree)) + wrong)
        else:
            self._refuse(Recipe, _mistakes_of_recipe(self.tree) + wrong)

    def _refuse(self, cls: type, mistakes: list[Mistake]) -> None:
        if mistakes:
            raise ConfigError(report(mistakes, self.where, dict(homes(cls, self.tree))))


def _few(names: Sequence[str], most: int = 4) -> str:
    """Names, the first few of many."""
    return (
        ", ".join(names) if len(names) <= most else f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    )


def _mistakes_of_recipe(values: dict[str, Any]) -> list[Mistake]:
    found = mistakes_in(Recipe, values)
    trainer = values.get("trainer", {})
    if isinstance(trainer, dict) and (trainer.get("epochs") is None) == (trainer.get("steps") is None):
        given = "neither" if trainer.get("epochs") is None else "both (trainer.steps=null takes one back)"
        found.append(Mistake(("trainer",), f"expected exactly one of epochs and steps, got {given}"))
    found += data_the_task_refuses(values.get("task"), values.get("data"))
    return _known_by_now(values, found)


def _known_by_now(values: dict[str, Any], mistakes: Iterable[Mistake]) -> list[Mistake]:
    """``mistakes`` less those about a value that an earlier stage has yet to give."""
    return [m for m in mistakes if m.unknown or not is_reference(_value_at(values, m.place))]


def _value_at(values: Any, place: Place) -> Any:
    for part in place:
        if isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            values = values.get(part) if isinstance(values, dict) else None
    return values


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a recipe.

    ``extends: other.yaml`` (or a list, the later ones winning) lays the file, or a stage of it, on others, by paths
    relative to the file. Mappings merge; lists and scalars replace; a block of another ``type`` replaces the whole
    block. Variables, ``${NAME}`` and ``${NAME:-default}``, are replaced last.

    Args:
        path: a file, or the name of a recipe that comes with the package.
        overrides: ``a.b=c``, each a YAML scalar, ``[list]`` or ``{mapping}``; in order.

    Raises:
        ConfigError: what is wrong, with file and line. Blocks are checked by :meth:`Config.recipe`.
    """
    return _config(load_file(find_config(path)), overrides)


def from_tree(tree: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """A recipe from plain values instead of a file.

    Raises:
        ConfigError: as :func:`load`.
    """
    return _config(node_of(tree, "recipe"), overrides)


def _config(node: Node, overrides: Sequence[str]) -> Config:
    parsed = [parse_override(text) for text in overrides]
    assert isinstance(node.value, dict)
    if "stages" in node.value:
        node = expand(node, parsed)
    else:
        for parts, value in parsed:
            node = put(node, parts, value)
    return Config(with_variables(node))


def to_yaml(tree: Any) -> str:
    """A resolved tree as YAML that loads to the same tree."""
    return to_text(_escaped(tree))


def _escaped(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _escaped(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_escaped(value) for value in tree]
    return escaped(tree) if isinstance(tree, str) else tree


def config_folder() -> Path:
    """The recipes that come with the package: in the installed package, or in the source tree."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def shipped_configs() -> dict[str, Path]:
    """The recipes that come with the package, by their path without ``.yaml``; parts that others share are left out."""
    folder = config_folder()
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
    return {name: path for name, path in files.items() if not name.startswith("_")}


def find_config(name: str | Path) -> Path:
    """The file of a recipe: a path, or the name of a recipe that comes with the package, with or without its folder.

    Raises:
        ConfigError: there is none, or the name fits several.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, expected a recipe; a run's own is {path / 'config.yaml'}")
    shipped = shipped_configs()
    wanted = path.as_posix().removesuffix(".yaml").removeprefix("configs/")
    fitting = [key for key in shipped if wanted in (key, key.rpartition("/")[2])]
    if len(fitting) > 1:
        raise ConfigError(f"'{name}' fits several recipes: {', '.join(fitting)}")
    if fitting:
        return shipped[fitting[0]]
    siblings = [shown_path(p) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    hint = nearest(wanted, shipped) or nearest(wanted, [key.rpartition("/")[2] for key in shipped])
    raise ConfigError(f"no recipe '{name}'{nearest(str(name), siblings) or hint}; expected a path or a shipped name")
