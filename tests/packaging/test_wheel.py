"""What a wheel carries: the packages, the recipes, the templates and the type markers, and nothing else."""

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.metadata import Metadata

pytestmark = pytest.mark.slow


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _relative(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern) if path.is_file()}


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-index", "--no-compile", "--quiet", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    return folder


def _run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=installed, env=environment, capture_output=True, text=True, check=False
    )


def test_every_recipe_travels_unchanged_inside_vision(source_tree: Path, installed: Path) -> None:
    sources, shipped = source_tree / "configs", installed / "vision" / "_configs"
    expected = _relative(sources, "*.yaml")
    assert "probe/deep/er.yaml" in expected
    assert _relative(shipped, "*") == expected
    for name in expected:
        assert (shipped / name).read_bytes() == (sources / name).read_bytes(), name


def test_every_module_travels_under_its_import_name(source_tree: Path, wheel: Path) -> None:
    expected = {
        f"{installed_as}/{name}"
        for folder, installed_as in {"vision": "vision", "snn": "snn", "robust": "robust", "tools": "triptych"}.items()
        for name in _relative(source_tree / folder, "*.py")
    }
    assert {name for name in _names(wheel) if name.endswith(".py")} == expected


def test_templates_samples_networks_and_type_markers_travel(source_tree: Path, wheel: Path) -> None:
    templates = {f"vision/report/templates/{name}" for name in _relative(source_tree / "vision/report/templates", "*")}
    assert "vision/report/templates/probe/page.html.j2" in templates
    samples = {f"vision/samples/{name}" for name in _relative(source_tree / "vision/samples", "*")}
    assert "vision/samples/people/images/astronaut.jpg" in samples
    assert samples <= _names(wheel)
    models = {f"vision/models/{name}" for name in _relative(source_tree / "vision/models", "*")}
    assert "vision/models/tbcnet_lite_synthetic/checkpoints/best.safetensors" in models
    assert models <= _names(wheel)
    assert templates | {"vision/py.typed", "snn/py.typed", "robust/py.typed"} <= _names(wheel)


def test_nothing_else_travels(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in _names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"vision", "snn", "robust", "triptych"}
    assert "vision/abandoned.py" not in _names(wheel), "an older build's leavings were shipped"


def test_metadata_is_valid_and_complete(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        raw = archive.read(name)
    metadata = Metadata.from_email(raw, validate=True)  # raises on any field that breaks the specification
    assert metadata.name == "triptych"
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.requires_python is not None
    assert "3.11" in metadata.requires_python
    assert "3.10" not in metadata.requires_python
    extras = {"export", "tensorrt", "tensorrt-rtx", "robust-eval", "mamba", "video", "demo", "docs", "dev"}
    assert extras == set(metadata.provides_extra or [])
    assert str(message_from_bytes(raw).get_payload()).startswith("# Triptych"), "the README is the long description"


def test_the_console_script_is_declared(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert "triptych = triptych.__main__:run" in archive.read(name).decode()


def test_the_installed_packages_are_the_ones_imported(installed: Path) -> None:
    done = _run(installed, "-c", "import vision, snn, robust, triptych; print(vision.__file__, triptych.__file__)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(installed / "vision/__init__.py"), str(installed / "triptych/__init__.py")]


def test_the_command_runs_from_an_installed_wheel(installed: Path) -> None:
    done = _run(installed, "-m", "triptych", "--help")
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_a_source_archive_builds_the_same_wheel(
    source_tree: Path, wheel: Path, build_wheel: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    build = f"import setuptools.build_meta as backend; backend.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source_tree, check=True, capture_output=True)
    (archive,) = tmp_path.glob("triptych-*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert _names(build_wheel(unpacked, tmp_path)) == _names(wheel)
