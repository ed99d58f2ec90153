"""The networks there are to predict with: below a folder, and those that ship with the package."""

from pathlib import Path

from vision.deploy.description import SIDECAR
from vision.engine.errors import ConfigError, nearest

MODELS = Path(__file__).resolve().parents[1] / "models"
"""The folder of networks that ship with the package, each a run's folder under the name of its recipe."""


def shipped_models() -> dict[str, Path]:
    """The networks that ship with the package: their folders, by the names that every ``load`` takes.

    Example:
        >>> "tbcnet_lite_synthetic" in shipped_models()
        True
    """
    return {path.name: path for path in sorted(MODELS.glob("*")) if path.is_dir()}


def home_of(network: Path) -> Path:
    """Where what is made with a network is written: its own folder; of one that ships, ``shipped/NAME`` from here."""
    return Path("shipped", network.name) if network.absolute().parent == MODELS else network


def run_or_recipe(given: str, checkpoint: str) -> Path:
    """The folder of the network of that name that ships with the package, or else the path, which may be a recipe's.

    Args:
        given: a path that is there comes first.
        checkpoint: a file of weights asks for a recipe to put them into.
    """
    if checkpoint in ("best", "last") and not Path(given).exists():
        return shipped_models().get(given, Path(given))
    return Path(given)


PREDICTS = "a run's folder, a checkpoint in one, or an exported file or folder"
"""What a path may be that predicts."""


def place_of(given: str | Path, expected: str = PREDICTS) -> Path:
    """The path that is there, or else the folder of the network of that name that ships with the package.

    Args:
        given: a path or a name.
        expected: what the path may be, for the error.

    Raises:
        ConfigError: neither.
    """
    path, shipped = Path(given), shipped_models()
    if path.exists():
        return path
    if str(given) in shipped:
        return shipped[str(given)]
    known = f"; with the package come {', '.join(shipped)}" if shipped else ""
    raise ConfigError(f"{given}: no such file or folder; expected {expected}{known}{nearest(str(given), shipped)}")


def networks_below(folder: Path) -> list[Path]:
    """The runs with weights and the exports of ONNX below a folder, by path; stages of a pipeline each by itself."""
    runs = {file.parent.parent for file in folder.rglob("checkpoints/*.safetensors")}
    exports = {file.parent for file in folder.rglob(SIDECAR) if any(file.parent.glob("*.onnx"))}
    return sorted({run for run in runs if (run / "config.yaml").is_file()} | exports)
