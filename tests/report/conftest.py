"""Run folders written by hand, file by file, as the contract of the run folder says."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

MakeRun = Callable[..., Path]

TABLES = {
    "confusion": {"type": "matrix", "title": "Confusion", "labels": ["cat", "dog"], "values": [[8, 2], [1, 9]]},
    "roc": {
        "type": "curve",
        "title": "ROC",
        "x_label": "false alarms",
        "y_label": "detections",
        "x": [0.1, 1.0, 10.0],
        "y": [0.2, 0.5, 0.9],
        "log_x": True,
    },
    "bins": {"type": "bins", "title": "Reliability", "columns": ["bin", "count"], "rows": [[0.5, 3], [1.0, 7]]},
}


def train_line(step: int) -> dict[str, Any]:
    losses = {"ce": 2.0 / step, "weight": 0.5, "_entropy": 1.0}
    return {
        "kind": "train",
        "step": step,
        "epoch": step / 10,
        "loss": losses["ce"] + losses["weight"],
        "losses": losses,
        "lr": 0.001,
        "samples_per_second": 50.0,
        "seconds": step * 2.0,
        "grad_norm": 1.0 / step,
    }


def eval_line(step: int, accuracy: float, best: bool) -> dict[str, Any]:
    metrics = {"nll": 1.0 - accuracy, "accuracy": accuracy}
    return {
        "kind": "eval",
        "split": "val",
        "step": step,
        "epoch": step / 10,
        "metrics": metrics,
        "seconds": 1.0,
        "best": best,
    }


def write_result(folder: Path, split: str, metrics: dict[str, Any], pictures: int = 2, **more: Any) -> None:
    folder.mkdir(parents=True)
    result = {
        "split": split,
        "samples": 20,
        "metrics": metrics,
        "tables": TABLES,
        "checkpoint": "best",
        "seed": 0,
        "train_seconds": 100.0,
        "eval_seconds": 1.0,
        "primary": "accuracy",
        "mode": "max",
        **more,
    }
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "examples").mkdir()
    for index in range(pictures):
        picture = np.full((24, 32, 3), 40 * index, np.uint8)
        Image.fromarray(picture).save(folder / "examples" / f"sample_{index}.png")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(
        name: str = "a",
        seed: int = 0,
        accuracy: float | None = 0.875,
        trained: bool = True,
        recipe: dict[str, Any] | None = None,
        **result: Any,
    ) -> Path:
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        tree = {
            "name": name,
            "description": "A small test.",
            "task": {"type": "classification", "network": {"type": "cnn", "width": 8}},
            "data": {"type": "digits"},
            "optimizer": {"type": "sgd", "lr": 0.1},
            "trainer": {"epochs": 2},
            "seed": seed,
            **(recipe or {}),
        }
        text = yaml.safe_dump(tree, sort_keys=False)
        (folder / "config.yaml").write_text(f"# sha256: {hashlib.sha256(text.encode()).hexdigest()}\n{text}")
        if trained:
            about = {"cpu": "Some CPU", "cores": 4, "gpus": [], "versions": {"torch": "2.11.0"}, "git_commit": None}
            (folder / "environment.json").write_text(json.dumps(about))
            lines = [train_line(step) for step in range(1, 21)]
            lines += [eval_line(10, 0.5, True), eval_line(20, 0.75, True), eval_line(30, 0.7, False)]
            lines.append({"kind": "event", "step": 20, "message": "stopped: time budget"})
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if accuracy is not None:
            write_result(folder / "eval" / "val", "val", {"nll": 0.5, "accuracy": accuracy + 0.01}, **result)
            write_result(folder / "eval" / "test", "test", {"nll": 0.25, "accuracy": accuracy}, **result)
        return folder

    return make
