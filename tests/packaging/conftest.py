"""A copy of the source tree to build in, so that building leaves nothing behind in the checkout."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "shared")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the source tree."""
    return CHECKOUT


@pytest.fixture(scope="session")
def source_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with a config and a template of known content, and the leavings of an older build."""
    tree = tmp_path_factory.mktemp("source") / "triptych"
    shutil.copytree(CHECKOUT, tree, ignore=LEFT_OUT)
    for path, text in {
        "configs/probe/deep/er.yaml": "probe: 1\n",
        "configs/probe/notes.txt": "not a recipe\n",
        "vision/report/templates/probe/page.html.j2": "{{ probe }}\n",
        "build/lib/vision/abandoned.py": "raise SystemExit('shipped by mistake')\n",
        "tests/test_probe.py": "def test_probe(): ...\n",
    }.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    return tree


@pytest.fixture(scope="session")
def build_wheel() -> Callable[[Path, Path], Path]:
    """Builds a wheel from a source tree into a folder, without network, with this environment's setuptools."""

    def build(source: Path, folder: Path) -> Path:
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
        command = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
        pure = os.environ | {"TRIPTYCH_BUILD": "none"}  # tests/ops builds kernels
        done = subprocess.run(command, capture_output=True, text=True, env=pure, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (made,) = folder.glob("triptych-*.whl")
        return made

    return build


@pytest.fixture(scope="session")
def wheel(
    source_tree: Path, build_wheel: Callable[[Path, Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The wheel built from the source tree."""
    return build_wheel(source_tree, tmp_path_factory.mktemp("wheel"))
