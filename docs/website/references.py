"""Leads references in docstrings to what Python itself would find under that name, wherever that is documented."""

import builtins
from importlib import import_module
from typing import Any

from api import PACKAGES
from docutils import nodes
from sphinx.addnodes import desc_signature, pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


def locate(dotted: str) -> Any:
    """The object of a dotted name.

    Raises:
        LookupError: there is none.
    """
    parts = dotted.split(".")
    for split in range(len(parts), 0, -1):
        name = ".".join(parts[:split])
        try:
            found = import_module(name)
        except ImportError:
            continue
        try:
            for part in parts[split:]:
                found = getattr(found, part)
        except AttributeError:
            continue
        return found
    raise LookupError(dotted)


def home(found: Any, dotted: str) -> str:
    """The name of an object where it is defined; of a constant, which does not know, the one it was found under."""
    if hasattr(found, "__qualname__") and getattr(found, "__module__", None):
        return f"{found.__module__}.{found.__qualname__}"
    return str(getattr(found, "__name__", dotted))


def constant(name: str, found: Any, documented: dict[str, Any]) -> str:
    """The documented name of a constant that was imported from elsewhere."""
    same = [other for other in documented if other.rpartition(".")[2] == name.rpartition(".")[2]]
    return next((other for other in same if _is(other, found)), name)


def _is(dotted: str, found: Any) -> bool:
    try:
        return locate(dotted) is found
    except LookupError:
        return False


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.TextElement) -> nodes.Element | None:
    """A reference to what is documented; plain text for what others define; None, an error, for what does not exist."""
    if node.get("refdomain") != "py":
        return None
    target, module, owner = node["reftarget"], node.get("py:module"), node.get("py:class")
    scopes = [f"{module}.{owner}" if owner else None, module, None]
    for scope in scopes:
        dotted = f"{scope}.{target}" if scope else target
        try:
            found = locate(dotted)
        except LookupError:
            continue
        return _link(app, env, node["refdoc"], home(found, dotted), found, shown)
    return shown if hasattr(builtins, target) or in_signature(node) else None


def in_signature(node: nodes.Node | None) -> bool:
    """Whether it stands in a signature, where Sphinx takes every string for a name."""
    while node is not None and not isinstance(node, desc_signature):
        node = node.parent
    return node is not None


def _link(
    app: Sphinx, env: BuildEnvironment, page: str, name: str, found: Any, shown: nodes.TextElement
) -> nodes.Element | None:
    if name.partition(".")[0] not in PACKAGES:
        return shown
    documented = env.domains.python_domain.objects
    name = name if name in documented else constant(name, found, documented)
    while name and name not in documented:  # a method that only repeats its base's: its class
        name = name.rpartition(".")[0]
    if not name:
        return None
    entry = documented[name]
    return make_refnode(app.builder, page, entry.docname, entry.node_id, [shown], name)
