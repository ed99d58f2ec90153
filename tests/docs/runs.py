"""Runs as ``make demo`` leaves them, with the weights that training begins with."""

from pathlib import Path
from typing import Any

import torch

from tests.docs.pages import CHECKOUT
from vision.engine.checkpoint import save_weights
from vision.engine.config import from_tree, load
from vision.engine.pipeline import plan
from vision.engine.references import references_in
from vision.engine.run import RunFolder
from vision.engine.train import build_task


def demo_stage(stage: str, folder: Path) -> Path:
    """Makes a stage of the demo; what it takes from earlier stages is left out, as the constraint of TBC-Net is."""
    (config,) = [found.config for found in plan(load(CHECKOUT / "configs/demo.yaml")) if found.name == stage]
    semantic = ["task.semantic=false"] if stage == "tbcnet" else []
    config = from_tree(_without_references(config.tree), semantic)
    run = RunFolder.create(folder, config.yaml, config.hash)
    torch.manual_seed(0)
    save_weights(run.best, build_task(config.recipe()).network, {})
    return run.path


def _without_references(tree: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in tree.items() if isinstance(value, dict) or not list(references_in(value))}
    return {key: _without_references(value) if isinstance(value, dict) else value for key, value in kept.items()}
