"""The package's public names: each is that of its module, and none costs anything before it is asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import robust


def test_every_public_name_is_that_of_the_module_that_defines_it() -> None:
    assert set(robust.__all__) == set(robust._HOMES) <= set(dir(robust))
    for name in robust.__all__:
        found = getattr(robust, name)
        assert found is getattr(importlib.import_module(f"robust.{robust._HOMES[name]}"), name)
        assert found.__module__ == f"robust.{robust._HOMES[name]}"
    with pytest.raises(AttributeError, match="no attribute 'pgdd'"):
        robust.pgdd  # noqa: B018


def test_what_type_checkers_see_is_what_is_given() -> None:
    tree = ast.parse(Path(str(robust.__file__)).read_text(encoding="utf-8"))
    seen = {
        alias.name: str(node.module).removeprefix("robust.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("robust.")
        for alias in node.names
    }
    assert seen == robust._HOMES


def test_the_package_alone_imports_no_torch_and_its_modules_are_there() -> None:
    code = (
        "import sys, robust\n"
        "assert 'torch' not in sys.modules\n"
        "assert robust.calibration.search_calibration is robust.search_calibration"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
