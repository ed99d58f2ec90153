"""The package's public names: each is that of its module, and none costs anything before it is asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import robust


def homes() -> dict[str, str]:
    """The module of each public name, as type checkers see it."""
    tree = ast.parse(Path(str(robust.__file__)).read_text(encoding="utf-8"))
    return {
        alias.name: str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("robust.")
        for alias in node.names
    }


def test_every_public_name_is_that_of_the_module_that_defines_it() -> None:
    assert set(robust.__all__) == set(homes()) <= set(dir(robust))
    for name, home in homes().items():
        found = getattr(robust, name)
        assert found is getattr(importlib.import_module(home), name)
        assert found.__module__ == home
    with pytest.raises(AttributeError, match="no attribute 'pgdd'"):
        robust.pgdd  # noqa: B018


def test_the_package_alone_imports_no_torch() -> None:
    code = "import sys, robust\nassert 'torch' not in sys.modules\nassert robust.ThreatModel().eps == 8 / 255"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
