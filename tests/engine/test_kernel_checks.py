"""What the doctor says of the kernels: which path runs, why not a faster one, and the command that mends it."""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vision.engine import kernel_checks
from vision.engine.check import Check
from vision.engine.kernel_checks import (
    INSTALL,
    check_compiler,
    check_kernels,
    check_toolkit,
    kernels,
    newer_sources,
)
from vision.ops.selective_scan import backend, backends, facts, library, mamba
from vision.ops.selective_scan.library import LIBRARY

CHECKOUT = Path(__file__).resolve().parents[2]
COMPILED = {
    "cpu": "cpu-avx2", "cuda": "cuda", "library": "/p/_kernels.abi3.so", "reason": "", "fix": "", "cuda_reason": "",
    "mamba": "not installed",
}  # fmt: skip
CPU_ONLY = COMPILED | {"cuda": "reference", "cuda_reason": "the compiled library holds no kernels for cuda"}


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def setup_file(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """setup.py, whose own words the doctor reads."""
    monkeypatch.chdir(CHECKOUT)
    for name in ("TRIPTYCH_BUILD", "CUDA_HOME", "CUDA_PATH", "CXX"):
        monkeypatch.delenv(name, raising=False)
    specification = importlib.util.spec_from_file_location("setup_read", CHECKOUT / "setup.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "setup_read", module)
    specification.loader.exec_module(module)
    return module


class TestCompiler:
    def test_the_one_that_was_asked_for(self, tmp_path: Path) -> None:
        compiler = program(tmp_path / "mycc", "echo mycc 7.1")
        assert check_compiler({"CXX": str(compiler)}).found == f"{compiler}, mycc 7.1"
        assert check_compiler({"CXX": f"{compiler} -m64"}).status == "ok"
        check = check_compiler({"CXX": "/nothing/cc"})
        assert (check.status, check.fix) == ("warn", "correct CXX or unset it")

    def test_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        check = check_compiler({})
        assert check.status == "warn"
        assert "building the compiled kernels" in check.found
        assert "install g++" in check.fix


class TestToolkit:
    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        home = tmp_path / "cuda"
        program(home / "bin/nvcc", "echo 'Cuda compilation tools, release 13.0, V13.0.88'")
        (home / "include").mkdir()
        (home / "include/cuda_runtime.h").touch()
        return home

    def test_the_one_that_is_named(self, home: Path) -> None:
        check = check_toolkit({"CUDA_HOME": str(home)}, built_for="13.2", gpu=True)
        assert (check.status, check.found) == ("ok", f"{home}, CUDA 13.0; only building CUDA kernels needs one")

    def test_one_that_is_named_and_not_there(self, tmp_path: Path) -> None:
        check = check_toolkit({"CUDA_PATH": str(tmp_path)})
        assert (check.status, check.fix) == ("warn", "correct CUDA_PATH or unset it")
        assert check.found == f"CUDA_PATH={tmp_path} holds no bin/nvcc and include/cuda_runtime.h"

    def test_a_script_called_nvcc_leads_to_the_toolkit(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program(home / "bin/nvcc", f"echo '#$ TOP={home}' >&2\necho 'release 12.4,'")
        script = program(home.parent / "usr/bin/nvcc", f'exec {home}/bin/nvcc "$@"')
        monkeypatch.setenv("PATH", f"{script.parent}:/bin:/usr/bin")
        assert check_toolkit({}).found.startswith(f"{home}, CUDA 12.4;")

    def test_one_of_another_cuda_is_a_fault_only_where_a_gpu_would_use_it(self, home: Path) -> None:
        check = check_toolkit({"CUDA_HOME": str(home)}, built_for="12.8", gpu=True)
        assert check.status == "warn"
        assert check.found == f"{home}, CUDA 13.0, builds nothing for this torch, which is of CUDA 12.8"
        assert check.fix.startswith("set CUDA_HOME to a toolkit of CUDA 12, then in a checkout: TRIPTYCH_BUILD=cuda")
        assert check_toolkit({"CUDA_HOME": str(home)}, built_for="12.8").status == "ok"

    def test_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(kernel_checks, "USUAL_HOME", tmp_path / "cuda")
        assert check_toolkit({}) == Check("cuda toolkit", "ok", "none; only building CUDA kernels needs one")

    def test_the_doctor_finds_what_setup_finds(self, setup_file: ModuleType) -> None:
        found = setup_file.toolkit()
        told = check_toolkit({}).found
        assert told.startswith(f"{found}, CUDA") if found else "CUDA kernels" in told


class TestKernelsThatRun:
    def test_on_cpus_and_gpus(self) -> None:
        check = check_kernels(COMPILED, {"built": "cuda", "reason": "", "torch": "2.11.0"}, gpu=True)
        assert check == Check("kernels", "ok", "cpu-avx2 on the CPU, cuda on GPUs; built with torch 2.11.0")

    def test_only_on_cpus_is_a_fault_where_there_is_a_gpu(self) -> None:
        report = {"asked": "auto", "built": "cpu", "reason": "no CUDA toolkit: set CUDA_HOME"}
        check = check_kernels(CPU_ONLY, report, gpu=False)
        assert check.status == "ok"
        assert check.found == "cpu-avx2 on the CPU, the PyTorch reference on GPUs (no CUDA toolkit: set CUDA_HOME)"
        check = check_kernels(CPU_ONLY, report, gpu=True)
        assert check.status == "warn"
        assert check.fix.endswith(f"in a checkout: TRIPTYCH_BUILD=cuda {INSTALL}")

    def test_mamba_is_told_of_where_it_can_be_chosen(self) -> None:
        assert "force_backend='mamba'" in check_kernels(COMPILED | {"mamba": ""}, {}, gpu=True).found
        assert "mamba" not in check_kernels(COMPILED, {}, gpu=True).found

    def test_sources_that_are_newer(self, tmp_path: Path) -> None:
        (tmp_path / "csrc/cpu").mkdir(parents=True)
        built, source = tmp_path / "_kernels.abi3.so", tmp_path / "csrc/cpu/scan.h"
        built.touch()
        assert newer_sources(built) == []
        source.touch()
        os.utime(built, (1e9, 1e9))
        os.utime(source, (1e9 + 1, 1e9 + 1))
        assert newer_sources(built) == ["scan.h"]
        check = check_kernels(COMPILED, {}, gpu=False, stale=True)
        assert check.status == "warn"
        assert check.found.endswith("its sources have changed since")
        assert check.fix == f"build it again: {INSTALL}"

    def test_those_of_this_process(self) -> None:
        check = kernels()
        if LIBRARY.loaded:
            assert check.found.startswith(f"{backend('cpu')} on the CPU")
        else:
            assert check.status in ("warn", "fail")

    @pytest.mark.skipif(not LIBRARY.loaded, reason="no compiled kernels")
    def test_an_instruction_set_that_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse() -> None:
            raise RuntimeError("choose, dispatch.cpp:53, triptych: no CPU kernels for 'sse'; there are auto, baseline")

        monkeypatch.setenv("TRIPTYCH_CPU_ISA", "sse")
        monkeypatch.setattr(backends, "cpu_isa", refuse)
        found = "TRIPTYCH_CPU_ISA=sse: no CPU kernels for 'sse'; there are auto, baseline"
        assert kernels() == Check("kernels", "fail", found, "unset TRIPTYCH_CPU_ISA")


def examined(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """What is said where ``folder`` is what the build left."""
    monkeypatch.setattr(backends, "LIBRARY", library.load(folder))
    monkeypatch.setattr(library, "FOLDER", folder)
    monkeypatch.setattr(mamba, "unavailable", lambda: "not installed")
    return kernels()


class TestKernelsThatAreNotThere:
    @pytest.mark.parametrize(
        ("report", "why", "fix"),
        [
            ({"asked": "none", "reason": ""}, " (TRIPTYCH_BUILD=none)", "unset TRIPTYCH_BUILD, then in a checkout: "),
            ({"asked": "auto", "reason": "the CPU kernels do not compile (x)"}, " (the CPU kernels do not compile (x))",
             "in a checkout, see what the compiler says: TRIPTYCH_BUILD=cpu "),
            ({}, "", "in a checkout: "),
        ],
    )  # fmt: skip
    def test_the_reference_runs_and_the_command_fits_the_reason(
        self, report: dict[str, Any], why: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "_build.json").write_text(json.dumps(report))
        check = examined(tmp_path, monkeypatch)
        assert check.status == "warn"
        assert check.found == f"the PyTorch reference, much slower: the compiled kernels are not built{why}"
        assert check.fix.startswith(f"{fix}{INSTALL}")
        assert facts()["cpu"] == "reference"

    @pytest.mark.parametrize(
        ("lost", "fix"),
        [
            ("compiler", f"install g++ (Debian, Ubuntu: apt-get install g++), then in a checkout: {INSTALL}"),
            ("torch", f"in a checkout: {INSTALL}"),
        ],
    )
    def test_what_setup_says_is_understood(
        self, lost: str, fix: str, setup_file: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if lost == "compiler":
            monkeypatch.setattr(setup_file, "compiler", lambda: None)
        else:
            monkeypatch.setattr(setup_file, "compiler", lambda: "c++")
            monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
        build, _ = setup_file.plan()
        monkeypatch.undo()
        setup_file.write_report(build, tmp_path)
        check = examined(tmp_path, monkeypatch)
        assert build.reason in check.found
        assert check.fix == fix


class TestKernelsThatDoNotLoad:
    def test_a_file_that_is_no_library(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "_kernels.abi3.so"
        path.write_text("version https://git-lfs.github.com/spec/v1\n" * 40)
        check = examined(tmp_path, monkeypatch)
        assert check.status == "fail"
        assert check.found.startswith("_kernels.abi3.so cannot be loaded: it was built for another platform")
        assert check.fix.startswith(f"build it again on this machine: {INSTALL}; or delete {path}")
        assert facts()["cpu"] == "none"

    @pytest.mark.skipif(LIBRARY.path is None or sys.platform != "linux", reason="no compiled kernels to change")
    def test_one_for_another_processor(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert LIBRARY.path is not None
        shutil.copy(LIBRARY.path, tmp_path)
        with (tmp_path / LIBRARY.path.name).open("r+b") as file:
            file.seek(18)  # the machine, in the header of an ELF file
            file.write((21 if os.uname().machine != "ppc64" else 62).to_bytes(2, sys.byteorder))
        check = examined(tmp_path, monkeypatch)
        assert check.status == "fail"
        assert "it was built for another platform" in check.found
        assert INSTALL in check.fix

    @pytest.mark.skipif(not LIBRARY.loaded, reason="no compiled kernels")
    def test_one_of_another_version_of_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(library.SCHEMAS, "ss2d", "(Tensor x) -> Tensor")
        assert LIBRARY.path is not None
        check = examined(LIBRARY.path.parent, monkeypatch)
        assert check.status == "fail"
        assert check.found.endswith("is of another version of this package: ss2d differ")
        assert check.fix.startswith(f"build it again: {INSTALL}")
