"""References of a stage to earlier ones: ``${stages.NAME.best}``, ``.last``, ``.run`` and ``.result.KEY``."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vision.engine.errors import nearest
from vision.engine.mistakes import Mistake, Place
from vision.engine.sources import Node, node_of

_PATTERN = re.compile(r"\$\{stages\.([^{}]*)\}")

PATHS = ("best", "last", "run")
"""What can be asked of a stage besides its result: paths of its weights and of its folder."""


@dataclass(frozen=True)
class Reference:
    """One reference.

    Attributes:
        place: of the text it stands in.
        stage: the stage's name.
        what: one of :data:`PATHS`, or ``result`` and the keys in it.
    """

    place: Place
    stage: str
    what: tuple[str, ...]

    @property
    def text(self) -> str:
        """As a recipe writes it."""
        return f"${{stages.{'.'.join((self.stage, *self.what))}}}"


def _reference(inside: str, place: Place) -> Reference:
    stage, *what = inside.split(".")
    return Reference(place, stage, tuple(what))


def is_reference(value: Any) -> bool:
    """Whether a value holds a reference, so that its type is known only later."""
    return isinstance(value, str) and _PATTERN.search(value) is not None


def references_in(tree: Any, place: Place = ()) -> Iterator[Reference]:
    """Every reference in a tree."""
    if isinstance(tree, str):
        for match in _PATTERN.finditer(tree):
            yield _reference(match[1], place)
    elif isinstance(tree, dict | list):
        for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from references_in(item, (*place, key))


def wrong_references(tree: Any, earlier: Sequence[str], later: Sequence[str] = ()) -> list[Mistake]:
    """The references of a stage that cannot be filled.

    Args:
        tree: the stage.
        earlier: the stages before it.
        later: itself and those after it.
    """
    found = []
    for reference in references_in(tree):
        if not earlier and not later:
            text = "refers to a stage; only the later stages of a pipeline can"
        elif reference.stage in later:
            text = f"the stage '{reference.stage}' does not come before this one"
        elif reference.stage not in earlier:
            known = f"; earlier stages: {', '.join(earlier) or 'none'}"
            text = f"no stage is called '{reference.stage}'{nearest(reference.stage, earlier) or known}"
        elif reference.what[:1] == ("result",) or reference.what in [(name,) for name in PATHS]:
            continue
        else:
            asked = ".".join(reference.what)
            text = f"a stage has no '{asked}'{nearest(asked, PATHS)}; ask for best, last, run or result.KEY"
        found.append(Mistake(reference.place, f"{reference.text}: {text}"))
    return found


def fill(node: Node, look_up: Callable[[Reference], Any], place: Place = ()) -> Node:
    """``node`` with every reference replaced; one that is the whole value keeps the type of what it stands for."""
    if isinstance(node.value, dict):
        return replace(node, value={key: fill(item, look_up, (*place, key)) for key, item in node.value.items()})
    if isinstance(node.value, list):
        return replace(node, value=[fill(item, look_up, (*place, i)) for i, item in enumerate(node.value)])
    if not isinstance(node.value, str):
        return node
    if whole := _PATTERN.fullmatch(node.value):
        return node_of(look_up(_reference(whole[1], place)), node.place)
    return replace(node, value=_PATTERN.sub(lambda match: str(look_up(_reference(match[1], place))), node.value))
