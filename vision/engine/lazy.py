"""Packages whose public names are imported when they are first asked for, so that a part of one can be had alone."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any


def lazily(package: str, names: Mapping[str, Sequence[str]], packages: Sequence[str] = ()) -> None:
    """Makes a package import what it offers only when that is asked for.

    A module of the package may be called as one of the names; importing it does not hide the name.

    Args:
        package: its ``__name__``; called from its ``__init__``.
        names: what is offered, by the module that has it.
        packages: below it, that are offered too.
    """
    sources = {name: module for module, offered in names.items() for name in offered}

    class Lazy(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name in packages:
                return importlib.import_module(f"{package}.{name}")
            if name not in sources:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            value = getattr(importlib.import_module(sources[name]), name)
            self.__dict__[name] = value
            return value

        def __setattr__(self, name: str, value: Any) -> None:
            if name in sources and isinstance(value, ModuleType):
                return  # the import system binds a module of that name here
            super().__setattr__(name, value)

        def __dir__(self) -> list[str]:
            return sorted({*self.__dict__, *sources, *packages})

    sys.modules[package].__class__ = Lazy
