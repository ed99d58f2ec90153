"""Writing run folders by hand, file by file, so that every figure in them is known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

MACHINE = {"cpu": "Some CPU", "cores": 4, "threads": 2, "memory_gb": 8.0, "gpus": [], "torch": "2.11.0"}
SHA = {letter: letter * 64 for letter in "abcdef"}

MakeRun = Callable[..., Path]


def recipe(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "task": {"type": "classification", "network": {"type": "mlp", "inputs": 64, "hidden": []}},
        "data": {"type": "digits"},
        "optimizer": {"type": "sgd", "lr": 0.1},
        "trainer": {"epochs": 1, "batch_size": 8},
        **more,
    }


def write_config(folder: Path, tree: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(f"# sha256: {SHA['a']}\n{yaml.safe_dump(tree, sort_keys=False)}")


def write_evaluation(folder: Path, metrics: dict[str, Any], name: str = "test", **more: Any) -> None:
    place = folder / "eval" / name
    place.mkdir(parents=True)
    result = {
        "split": "test",
        "name": "named",
        "samples": 20,
        "metrics": metrics,
        "tables": {},
        "checkpoint": "best",
        "weights_sha256": SHA["b"],
        "data": {"type": "digits"},
        "seed": 0,
        "primary": "accuracy",
        "mode": "max",
        "train_seconds": 120.0,
        "eval_seconds": 1.0,
        "machine": MACHINE,
        "config_sha256": SHA["a"],
        **more,
    }
    (place / "result.json").write_text(json.dumps(result))


def write_training(folder: Path, steps: int = 30, best: int = 20) -> None:
    lines = [{"kind": "train", "step": step, "loss": 1.0, "seconds": 1.0} for step in range(10, steps + 1, 10)]
    lines += [
        {"kind": "eval", "split": "val", "step": step, "metrics": {}, "best": step <= best}
        for step in range(10, steps + 1, 10)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = {"date": "2026-01-02T03:04:05+00:00", "git_commit": "0" * 40, "command": ["/home/someone/tools/train.py"]}
    (folder / "environment.json").write_text(json.dumps(made))
