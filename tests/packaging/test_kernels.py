"""Compiled kernels in what is built: what fails to compile costs only itself, and sources travel to be built."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SCAN = "vision/ops/selective_scan"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler"),
]


@pytest.fixture
def small_tree(checkout: Path, tmp_path: Path) -> Path:
    """The project's setup.py over one C++ source that compiles, and one CUDA source."""
    tree = tmp_path / "tree"
    for package in ("vision", "vision/ops", SCAN, "snn", "robust", "tools"):
        (tree / package).mkdir(parents=True)
        (tree / package / "__init__.py").touch()
    shutil.copy(checkout / "setup.py", tree)
    (tree / "pyproject.toml").write_text('[project]\nname = "triptych"\nversion = "0"\n')
    (tree / SCAN / "csrc/cuda").mkdir(parents=True)
    (tree / SCAN / "csrc/library.cpp").write_text("extern const int kept; const int kept = 1;\n")
    (tree / SCAN / "csrc/cuda/kernels.cu").write_text("\n")
    return tree


@pytest.fixture
def broken_toolkit(tmp_path: Path) -> Path:
    """A folder that looks like a CUDA toolkit and whose nvcc compiles nothing."""
    home = tmp_path / "cuda"
    (home / "bin").mkdir(parents=True)
    (home / "include").mkdir()
    (home / "include/cuda_runtime.h").touch()
    (home / "bin/nvcc").write_text("#!/bin/sh\necho this nvcc is broken on purpose >&2\nexit 1\n")
    (home / "bin/nvcc").chmod(0o755)
    return home


def build_in_place(tree: Path, asked: str, home: Path) -> subprocess.CompletedProcess[str]:
    """What an editable install does of it: the library is put beside the sources."""
    variables = {name: value for name, value in os.environ.items() if name not in ("CXX", "CC", "CUDA_PATH")}
    variables |= {"TRIPTYCH_BUILD": asked, "CUDA_HOME": str(home), "MAX_JOBS": "1"}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True, check=False)


def report_in(tree: Path) -> dict[str, str]:
    report: dict[str, str] = json.loads((tree / SCAN / "_build.json").read_text())
    return report


def test_cuda_kernels_that_do_not_compile_cost_no_cpu_kernels(small_tree: Path, broken_toolkit: Path) -> None:
    done = build_in_place(small_tree, "auto", broken_toolkit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((small_tree / SCAN).glob("_kernels*.so"))
    report = report_in(small_tree)
    assert (report["asked"], report["built"], report["toolkit"]) == ("auto", "cpu", "")
    assert report["reason"].startswith("the CUDA kernels do not compile")
    assert "Triptych: CUDA kernels are left out: the CUDA kernels do not compile" in done.stderr
    assert "broken on purpose" in done.stdout + done.stderr


def test_they_stop_a_build_that_asked_for_them(small_tree: Path, broken_toolkit: Path) -> None:
    done = build_in_place(small_tree, "cuda", broken_toolkit)
    assert done.returncode != 0
    assert "error: TRIPTYCH_BUILD=cuda: the kernels do not compile" in done.stderr
    assert not list((small_tree / SCAN).glob("_kernels*"))


def test_when_nothing_compiles_the_report_names_both(small_tree: Path, broken_toolkit: Path) -> None:
    (small_tree / SCAN / "csrc/library.cpp").write_text("#error broken too\n")
    (small_tree / SCAN / "_kernels.abi3.so").write_text("of an earlier build")
    done = build_in_place(small_tree, "auto", broken_toolkit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list((small_tree / SCAN).glob("_kernels*")), "an earlier build's kernels are not those of these sources"
    report = report_in(small_tree)
    assert report["built"] == "none"
    assert "the CUDA kernels do not compile" in report["reason"]
    assert "the CPU kernels do not compile" in report["reason"]


def test_a_toolkit_that_is_named_and_not_there_is_told(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    specification = importlib.util.spec_from_file_location("setup_here", checkout / "setup.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "setup_here", module)
    specification.loader.exec_module(module)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert module.toolkit() != tmp_path
    assert f"Triptych: CUDA_HOME={tmp_path} holds no CUDA toolkit; " in capsys.readouterr().err


def test_a_source_archive_carries_every_source_of_the_kernels(source_tree: Path, tmp_path: Path) -> None:
    build = f"import setuptools.build_meta as backend; backend.build_sdist({str(tmp_path)!r})"
    environment = os.environ | {"TRIPTYCH_BUILD": "none"}
    subprocess.run([sys.executable, "-c", build], cwd=source_tree, env=environment, check=True, capture_output=True)
    (archive,) = tmp_path.glob("triptych-*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    sources = {
        path.relative_to(source_tree).as_posix() for path in (source_tree / SCAN / "csrc").rglob("*") if path.is_file()
    }
    assert sources
    assert {"setup.py", *sources} <= names
    assert not [name for name in names if name.endswith((".so", "_build.json"))], "what was built here is no source"
