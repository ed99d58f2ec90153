"""Exported graphs as engines of TensorRT."""

from pathlib import Path
from typing import Any

from vision.engine.deployment import DeploymentError


def build(files: dict[str, Path], precision: str, folder: Path) -> dict[str, Any]:
    """Builds an engine of each ONNX file into a folder.

    Raises:
        DeploymentError: this version has no builder.
    """
    raise DeploymentError(
        "--format tensorrt: this version builds no engines; export with --format onnx and give the files to trtexec"
    )
