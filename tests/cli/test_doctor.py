"""tools/doctor.py: finds what is wrong, names the fix, and survives what it finds."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from vision.engine.doctor import (
    check_data,
    check_gpu,
    check_packages,
    check_python,
    check_room,
    check_threads,
    check_torchaudio,
    check_torchvision,
    partner_of,
)
from vision.ops.selective_scan import backend

CHECKOUT = Path(__file__).resolve().parents[2]


def doctor(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command; ``path`` comes before everything else that is imported."""
    places = [str(place) for place in (path, CHECKOUT) if place is not None]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    call = [sys.executable, str(CHECKOUT / "tools" / "doctor.py"), *arguments]
    return subprocess.run(call, env=environment, capture_output=True, text=True, timeout=200, check=False)


def statuses(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_this_installation() -> None:
    done = doctor("--json")
    checks = statuses(done)
    assert checks["torch"]["status"] == "ok"
    assert torch.__version__ in checks["torch"]["found"]
    assert checks["torchvision"]["status"] == "ok"
    assert all(check["fix"] for check in checks.values() if check["status"] != "ok")
    assert backend("cpu") in checks["kernels"]["found"]
    assert done.returncode == (1 if any(check["status"] == "fail" for check in checks.values()) else 0)


def test_a_mismatched_torchvision_is_found_before_it_is_imported(tmp_path: Path) -> None:
    info = tmp_path / "torchvision-0.20.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.20.1\n")
    done = doctor(path=tmp_path)
    assert done.returncode == 1
    needed = partner_of(torch.__version__)
    assert f"fail  torchvision    0.20.1 does not belong to torch {torch.__version__}, {needed} does" in done.stdout
    assert f'fix: pip install --force-reinstall --no-deps "torchvision=={needed}.*"' in done.stdout


def test_a_broken_torch_is_a_finding_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object')\n")
    done = doctor("--json", path=tmp_path)
    checks = statuses(done)
    assert done.returncode == 1
    assert checks["torch"]["status"] == "fail"
    assert "libcudart.so.13" in checks["torch"]["found"]
    assert checks["python"]["status"] == "ok"
    assert "disk" in checks
    assert "Traceback" not in done.stderr


def test_partner_is_what_torchvision_itself_asks_for() -> None:
    needs = " ".join(metadata.requires("torchvision") or [])
    asked = re.search(r"\btorch *\(?==(\S+?)[);\s]", needs + " ")
    assert asked is not None, needs
    assert metadata.version("torchvision").startswith(partner_of(asked[1]) + ".")


@pytest.mark.parametrize(
    ("torch_version", "vision"),
    [("2.0.1", "0.15.2"), ("2.1.0", "0.16.0"), ("2.5.1", "0.20.1"), ("2.8.0", "0.23.0"), ("2.11.0", "0.26.0")],
)
def test_published_pairs(torch_version: str, vision: str) -> None:
    assert check_torchvision(torch_version, vision).status == "ok"
    assert check_torchvision(torch_version, "0.14.1").status == "fail"


def test_torchvision_of_another_build() -> None:
    assert check_torchvision("2.11.0+cu130", "0.26.0+cu130").status == "ok"
    check = check_torchvision("2.11.0+cpu", "0.26.0+cu130")
    assert check.status == "fail"
    assert check.fix.endswith('"torchvision==0.26.*" --index-url https://download.pytorch.org/whl/cpu')
    assert check_torchvision("2.11.0", None).found == "missing"


@pytest.mark.parametrize(("version", "status"), [("2.11.0", "ok"), ("2.10.0", "fail"), (None, "fail")])
def test_torchaudio(version: str | None, status: str) -> None:
    check = check_torchaudio("2.11.0+cu130", version)
    assert check.status == status
    assert ("spikingjelly.datasets" in check.found) == (status == "fail")
    assert ('"torchaudio==2.11.*"' in check.fix) == (status == "fail")


@pytest.mark.parametrize(
    ("built_for", "driver", "names", "status", "said"),
    [
        ("13.0", None, [], "ok", "none; runs use the CPU"),
        (None, None, [], "ok", "none; runs use the CPU"),
        ("13.0", (13, 1), ["NVIDIA H200"], "ok", "NVIDIA H200"),
        ("13.0", (12, 4), [], "fail", "supports CUDA 12.4, torch is built for 13.0"),
        ("12.6", (12, 4), [], "warn", "torch finds no GPU"),
        (None, (12, 4), [], "warn", "built for the CPU"),
        ("13.0", (13, 0), ["A", "B, computes wrongly"], "fail", "computes wrongly"),
    ],
)
def test_gpu(built_for: str | None, driver: tuple[int, int] | None, names: list[str], status: str, said: str) -> None:
    check = check_gpu(built_for, driver, names)
    assert check.status == status
    assert said in check.found
    assert bool(check.fix) == (status != "ok")


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="no C compiler to make a driver of")
def test_driver_version_is_read_from_the_driver(tmp_path: Path) -> None:
    (tmp_path / "driver.c").write_text("int cuDriverGetVersion(int *version) { *version = 12020; return 0; }\n")
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "driver.c"], check=True, timeout=60)
    code = "from vision.engine.doctor import driver_cuda; print(driver_cuda())"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "(12, 2)\n"


def test_packages() -> None:
    needs = ["numpy>=2.0", "annotated-types (>=0.6)", "plain", "onnx>=1.20; extra == 'export'"]
    there = {"numpy": "2", "annotated-types": "0.8.0", "plain": "0.1"}
    assert check_packages(needs, there).status == "ok"
    check = check_packages(needs, {**there, "numpy": "1.26.4", "plain": None})
    assert check.status == "fail"
    assert check.found == "numpy 1.26.4, needs 2.0; plain missing"
    assert check.fix == 'pip install "numpy>=2.0" "plain"'


@pytest.mark.parametrize(("version", "status"), [((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((3, 14, 0), "ok")])
def test_python(version: tuple[int, ...], status: str) -> None:
    assert check_python(version).status == status


def test_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_data({}).status == "warn"
    assert check_data({"TRIPTYCH_DATA": "nothing"}).status == "fail"
    assert check_data({"TRIPTYCH_DATA": str(tmp_path)}).status == "warn"
    (tmp_path / "sets" / "cifar10").mkdir(parents=True)
    (tmp_path / "sets" / ".hidden").mkdir()
    assert check_data({"TRIPTYCH_DATA": "sets"}).found == "TRIPTYCH_DATA=sets: cifar10"


@pytest.mark.parametrize(
    ("given", "status"), [(None, "ok"), ("2", "ok"), ("4", "ok"), ("5", "warn"), ("many", "warn"), ("0", "warn")]
)
def test_threads(given: str | None, status: str) -> None:
    assert check_threads({} if given is None else {"OMP_NUM_THREADS": given}, cores=4).status == status


@pytest.mark.parametrize(("there", "status"), [(None, "ok"), (4.0, "ok"), (3.9, "warn")])
def test_room(there: float | None, status: str) -> None:
    check = check_room("memory", there, 4.0, "buy more")
    assert (check.status, check.fix) == (status, "buy more" if status == "warn" else "")
