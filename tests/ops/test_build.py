"""What is built where: every value of TRIPTYCH_BUILD, with and without a compiler, PyTorch and a CUDA toolkit."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from vision.ops.selective_scan.library import LIBRARY

CHECKOUT = Path(__file__).resolve().parents[2]
SCAN = "vision/ops/selective_scan"


@pytest.fixture
def setup_file(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """setup.py as a module, in the checkout and without wishes of the environment."""
    monkeypatch.chdir(CHECKOUT)
    for name in ("TRIPTYCH_BUILD", "CUDA_HOME", "CUDA_PATH", "CXX"):
        monkeypatch.delenv(name, raising=False)
    specification = importlib.util.spec_from_file_location("setup_file", CHECKOUT / "setup.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "setup_file", module)
    specification.loader.exec_module(module)
    return module


def _program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def _toolkit(folder: Path) -> Path:
    """A folder that looks like a CUDA toolkit; its nvcc names it as the real one does."""
    _program(folder / "bin/nvcc", f"echo '#$ TOP={folder}' >&2")
    (folder / "include").mkdir()
    (folder / "include/cuda_runtime.h").touch()
    return folder


class TestPlan:
    def test_a_value_that_is_none_of_the_four(self, setup_file: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRIPTYCH_BUILD", "gpu")
        with pytest.raises(SystemExit, match="TRIPTYCH_BUILD=gpu is not one of auto, cuda, cpu, none"):
            setup_file.plan()

    def test_none_builds_none_without_a_word(
        self, setup_file: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("TRIPTYCH_BUILD", "none")
        assert setup_file.plan() == (setup_file.Build("none", "none"), None)
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("lost", ["compiler", "torch"])
    @pytest.mark.parametrize("asked", ["auto", "cpu", "cuda"])
    def test_what_is_missing_is_said_and_stops_what_was_asked_for(
        self,
        setup_file: ModuleType,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        lost: str,
        asked: str,
    ) -> None:
        monkeypatch.setenv("TRIPTYCH_BUILD", asked)
        if lost == "compiler":
            monkeypatch.setenv("PATH", "")
            words = "there is no C++ compiler"
        else:
            monkeypatch.setattr(setup_file, "compiler", lambda: "c++")
            monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
            words = "torch cannot be imported where kernels are built"
        if asked == "auto":
            build, tools = setup_file.plan()
            assert (build.built, tools) == ("none", None)
            assert words in build.reason
            assert "compiled kernels are left out: " + build.reason in capsys.readouterr().err
        else:
            with pytest.raises(SystemExit, match=rf"error: TRIPTYCH_BUILD={asked}: {words.replace('+', '.')}"):
                setup_file.plan()

    def test_without_a_toolkit_auto_builds_for_the_cpu_and_cuda_stops(
        self, setup_file: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(setup_file, "compiler", lambda: "c++")
        monkeypatch.setattr(setup_file, "toolkit", lambda: None)
        monkeypatch.setattr(setup_file, "SOURCES", CHECKOUT / SCAN / "csrc")
        if not any((CHECKOUT / SCAN / "csrc/cuda").glob("*.cu")):
            pytest.skip("no CUDA sources")
        build, tools = setup_file.plan()
        assert build.built == "cpu" and tools is not None
        assert "CUDA_HOME" in build.reason
        monkeypatch.setenv("TRIPTYCH_BUILD", "cuda")
        with pytest.raises(SystemExit, match="error: TRIPTYCH_BUILD=cuda: no CUDA toolkit: set CUDA_HOME"):
            setup_file.plan()


class TestToolkit:
    def test_it_is_the_folder_that_is_named(
        self, setup_file: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        home = _toolkit(tmp_path / "cuda")
        monkeypatch.setenv("CUDA_HOME", str(home))
        assert setup_file.toolkit() == home.resolve()

    def test_a_script_called_nvcc_leads_to_the_toolkit_it_calls(
        self, setup_file: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        home = _toolkit(tmp_path / "cuda")
        script = _program(tmp_path / "usr/bin/nvcc", f'exec {home}/bin/nvcc "$@"')
        monkeypatch.setenv("PATH", f"{script.parent}:/bin:/usr/bin")
        assert setup_file.toolkit() == home.resolve()

    def test_a_compiler_without_headers_is_no_toolkit(
        self, setup_file: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        home = _toolkit(tmp_path / "cuda")
        (home / "include/cuda_runtime.h").unlink()
        monkeypatch.setenv("CUDA_HOME", str(home))
        monkeypatch.setenv("PATH", "/bin")
        found = setup_file.toolkit()
        assert found != home.resolve()


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project with sources that compile in a moment."""
    tree = tmp_path_factory.mktemp("small") / "triptych"
    for package in ("vision", "vision/ops", SCAN, "snn", "robust", "tools"):
        (tree / package).mkdir(parents=True)
        (tree / package / "__init__.py").touch()
    shutil.copy(CHECKOUT / "setup.py", tree)
    (tree / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "triptych"\nversion = "0"\n[tool.setuptools]\ninclude-package-data = false\n'
    )
    (tree / SCAN / "csrc").mkdir()
    yield tree


def _wheel(tree: Path, folder: Path, asked: str, source: str, **environment: str) -> tuple[Path | None, str]:
    """Builds a wheel of the small tree with one C++ source; None and what was said where that stops."""
    (tree / SCAN / "csrc/library.cpp").write_text(source)
    shutil.rmtree(tree / "build", ignore_errors=True)
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "--no-index"]
    variables = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "CUDA_PATH", "CXX")}
    variables |= {"TRIPTYCH_BUILD": asked, "MAX_JOBS": "1", **environment}
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(tree)], capture_output=True, text=True, env=variables, check=False
    )
    made = list(folder.glob("*.whl"))
    assert (done.returncode == 0) == bool(made), done.stdout + done.stderr
    return (made[0] if made else None), done.stdout + done.stderr


def _contents(wheel: Path | None) -> tuple[dict[str, str], bool]:
    """The report in a wheel, and whether it carries a library."""
    assert wheel is not None
    with zipfile.ZipFile(wheel) as archive:
        report = json.loads(archive.read(f"{SCAN}/_build.json"))
        return report, any("_kernels" in name for name in archive.namelist())


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")
class TestWheel:
    def test_sources_that_compile_travel_as_a_library(self, small_tree: Path, tmp_path: Path) -> None:
        wheel, _ = _wheel(small_tree, tmp_path, "auto", "extern const int kept; const int kept = 1;")
        report, library = _contents(wheel)
        assert (report["asked"], report["built"], library) == ("auto", "cpu", True)
        assert report["reason"] == "there are no CUDA sources"
        assert "abi3" in wheel.name  # for every Python from the one it names

    def test_sources_that_do_not_compile_are_left_out_and_the_reason_is_kept(
        self, small_tree: Path, tmp_path: Path
    ) -> None:
        wheel, said = _wheel(small_tree, tmp_path, "auto", "#error broken on purpose")
        report, library = _contents(wheel)
        assert (report["built"], library) == ("none", False)
        assert "the CPU kernels do not compile" in report["reason"]
        assert "compiled kernels are left out" in said
        assert "broken on purpose" in said

    def test_sources_that_do_not_compile_stop_what_was_asked_for(self, small_tree: Path, tmp_path: Path) -> None:
        wheel, said = _wheel(small_tree, tmp_path, "cpu", "#error broken on purpose")
        assert wheel is None
        assert "error: TRIPTYCH_BUILD=cpu: the kernels do not compile" in said

    def test_none_is_a_wheel_for_any_platform(self, small_tree: Path, tmp_path: Path) -> None:
        wheel, _ = _wheel(small_tree, tmp_path, "none", "#error never read")
        report, library = _contents(wheel)
        assert (report["built"], report["reason"], library) == ("none", "", False)
        assert wheel.name.endswith("-py3-none-any.whl")

    def test_a_compiler_that_is_not_there(self, small_tree: Path, tmp_path: Path) -> None:
        wheel, said = _wheel(small_tree, tmp_path, "auto", "int x;", CXX="no-such-compiler")
        report, library = _contents(wheel)
        assert (report["built"], library) == ("none", False)
        assert "there is no C++ compiler" in report["reason"] and report["reason"] in said
        assert wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.skipif(LIBRARY.path is None, reason="no compiled kernels")
class TestLibrary:
    def test_it_holds_no_python(self) -> None:
        """Nothing of Python's C interface is asked for, so that one file serves every interpreter."""
        if shutil.which("nm") is None:
            pytest.skip("no nm")
        listed = subprocess.run(["nm", "-D", "--undefined-only", str(LIBRARY.path)], capture_output=True, text=True)
        names = [line.split()[-1] for line in listed.stdout.splitlines() if line.strip()]
        assert names
        assert not [name for name in names if name.startswith(("Py", "_Py"))]

    def test_it_asks_torch_for_its_stable_interface_only(self) -> None:
        """C functions, whose names C++ does not decorate; C++ classes of torch change from release to release."""
        if shutil.which("nm") is None:
            pytest.skip("no nm")
        listed = subprocess.run(["nm", "-D", "--undefined-only", str(LIBRARY.path)], capture_output=True, text=True)
        names = [line.split()[-1] for line in listed.stdout.splitlines() if line.strip()]
        assert any(name.startswith("aoti_torch_") for name in names)
        assert not [
            name for name in names if name.startswith(("_ZN2at", "_ZN3c10", "_ZNK2at", "_ZNK3c10", "_ZN5torch"))
        ]

    def test_the_report_says_what_the_library_holds(self) -> None:
        report = LIBRARY.path.with_name("_build.json")
        if not report.exists():
            pytest.skip("the library was put there by hand")
        built = json.loads(report.read_text())["built"]
        assert built == ("cuda" if "cuda" in LIBRARY.devices else "cpu")
