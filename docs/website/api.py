"""The pages of the API reference: one a module, found by reading the source, with every public name of it."""

import ast
from inspect import cleandoc
from pathlib import Path

PACKAGES = ("vision", "snn", "robust")

NOT_SHOWN = ("logging.getLogger", "TypeVar")
"""Calls whose results are a module's own business, whatever their name."""
LONGEST_VALUE = 100
"""Characters of a constant's value; a longer one is left to the source."""


def pages(checkout: Path) -> dict[str, str]:
    """The pages' text by name: ``{"api/vision.pose.codecs": ...}``."""
    names = sorted(name for package in PACKAGES for name in modules(checkout, package))
    return {f"api/{name}": page(checkout, name, names) for name in names}


def modules(checkout: Path, package: str) -> list[str]:
    """A package's public modules and subpackages by their dotted names, itself among them."""
    files = [path.relative_to(checkout).with_suffix("") for path in (checkout / package).rglob("*.py")]
    names = [[part for part in file.parts if part != "__init__"] for file in files]
    return [".".join(parts) for parts in names if not any(part.startswith("_") for part in parts)]


def page(checkout: Path, name: str, names: list[str]) -> str:
    """A module's page: its docstring, what it exports, its modules, and what it defines."""
    below = [other for other in names if other.rpartition(".")[0] == name]
    file = checkout.joinpath(*name.split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    parts = [title(name), f".. automodule:: {name}\n"]
    shown = defined(tree, name)
    exports = [other for other in exported(tree) if other not in shown]
    if exports:
        parts.append("Importable from here: " + ", ".join(f":py:obj:`~{name}.{other}`" for other in exports) + ".\n")
    parts += shown.values()
    if below:
        toctree = "\n".join(f"   {other}" for other in below)
        parts.append(f".. toctree::\n   :maxdepth: 1\n\n{toctree}\n")
    return "\n".join(parts)


def title(text: str) -> str:
    """A page's title."""
    shown = text.replace("_", r"\_")
    return f"{shown}\n{'=' * len(shown)}\n"


def defined(tree: ast.Module, module: str) -> dict[str, str]:
    """The public names that a module defines, in its order, each with the directive that shows it."""
    found = {}
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef):
            found[node.name] = f".. autoclass:: {module}.{node.name}\n   :members:\n"
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = f".. autofunction:: {module}.{node.name}\n"
        for name, value in constants(node):
            found[name] = constant(name, value, docstring(after))
    return {name: text for name, text in found.items() if not name.startswith("_")}


def constants(node: ast.stmt) -> list[tuple[str, str]]:
    """The names that an assignment gives, each with its value as the source has it."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return []
    if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in NOT_SHOWN:
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [(target.id, ast.unparse(node.value)) for target in targets if isinstance(target, ast.Name)]


def constant(name: str, value: str, told: str) -> str:
    """What shows a constant: its value where that is short, and the docstring below it in the source."""
    lines = [f".. py:data:: {name}"]
    lines += [f"   :value: {value}"] if len(value) <= LONGEST_VALUE and "\n" not in value else []
    return "\n".join([*lines, "", *(f"   {line}" for line in told.splitlines())]) + "\n"


def docstring(node: ast.stmt | None) -> str:
    """The string that a statement is; empty for any other."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return cleandoc(node.value.value)
    return ""


def exported(tree: ast.Module) -> list[str]:
    """What a module's ``__all__`` lists."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []
