"""A recipe of a few seconds for every task, on data that the package ships or makes itself."""

from pathlib import Path
from typing import Any

import torch

from vision.engine.checkpoint import save_weights
from vision.engine.registry import build
from vision.engine.sources import to_text

Tree = dict[str, Any]

TEACHER = "teacher.safetensors"
"""Fresh weights of the digits network of width 8, beside a recipe that has a teacher."""

_TRAINER: Tree = {
    "steps": 24, "batch_size": 12, "evaluate_every_steps": 7, "save_every_steps": 4, "log_every": 1, "ema": 0.9,
    "clip_norm": 1.0,
}  # fmt: skip
_PLAIN: Tree = {key: value for key, value in _TRAINER.items() if key not in ("ema", "clip_norm")}
_ADAM: Tree = {"type": "adam", "lr": 2e-3}
_COSINE: Tree = {"type": "cosine"}
_SMALL: Tree = {"type": "digits_cnn", "width": 8, "norm": "none"}
_ATTACK: Tree = {"steps": 2}
_DIGITS: Tree = {"type": "digits", "limit": 120, "augment": ["crop"], "crop_padding": 1}
_ATTACKED: Tree = {**_DIGITS, "normalise": False}


def _recipe(task: Tree, data: Tree, trainer: Tree = _TRAINER, **more: Any) -> Tree:
    return {"task": task, "data": data, "optimizer": _ADAM, "schedule": _COSINE, "trainer": trainer, **more}


_COUNTING = _recipe({"type": "target_counting", "network": {"type": "scm", "classes": 5}},
                    {"type": "scm_scenes", "size": 64, "length": 64, "held_out": 12})  # fmt: skip
_SCENES: Tree = {"type": "infrared_synthetic", "patch": 48, "size": 64, "scenes": 4, "length": 40}
_TBCNET: Tree = {"type": "infrared_targets", "network": {"type": "tbcnet"}}
_SHORT: Tree = {**_TRAINER, "steps": 12, "batch_size": 4, "evaluate_every_steps": 5, "save_every_steps": 3}
_CALIBRATION: Tree = {"type": "label_calibration", "network": _SMALL, "attack": _ATTACK, "judge": _ATTACK,
                      "teacher_network": _SMALL}  # fmt: skip
_PGD: Tree = {"type": "adversarial_classification", "network": _SMALL, "attack": _ATTACK, "judge": _ATTACK}

RECIPES: dict[str, Tree] = {
    # dropout, BatchNorm, augmentation of every kind, workers: all that a resume could forget
    "classification": _recipe(
        {"type": "classification",
         "network": {"type": "wide_resnet", "depth": 10, "width": 1, "dropout": 0.3, "in_channels": 1}},
        {**_DIGITS, "augment": ["crop", "rotate", "erase"]}, {**_TRAINER, "workers": 1},
    ),
    "target_counting": _COUNTING,
    "infrared_targets": _recipe({**_TBCNET, "semantic": False}, _SCENES, {**_TRAINER, "batch_size": 4}),
    "top_down_pose": _recipe(
        {"type": "top_down_pose", "network": {"type": "mamkpd_t", "input_size": [64, 64], "drop_path": 0.1}},
        {"type": "sample_people", "input_size": [64, 64]}, {**_TRAINER, "batch_size": 2},
    ),
    "single_stage_pose": _recipe(
        {"type": "single_stage_pose", "flip_test": False,
         "network": {"type": "dhrnet", "backbone": "hrnet_w18_small", "channels": 16, "output_size": 16}},
        {"type": "sample_people_whole", "size": 64}, {**_TRAINER, "batch_size": 2, "evaluate_every_steps": 12},
    ),
    "spiking_classification": _recipe(
        {"type": "spiking_classification",
         "network": {"type": "spiking_mlp", "inputs": 64, "hidden": [24, 16], "steps": 4}},
        _DIGITS, _PLAIN,
    ),
    "adversarial_classification": _recipe({**_PGD, "method": "trades", "attack": {**_ATTACK, "loss": "kl"}}, _ATTACKED),
    "label_calibration": _recipe({**_CALIBRATION, "teachers": [TEACHER], "weight": 0.2}, _ATTACKED),
    "apart": _recipe(
        {"type": "apart", "network": _SMALL, "judge": _ATTACK, "layers": ["layers.2"], "strength_lr": 1e-5},
        {**_ATTACKED, "augment": []}, _PLAIN,
    ),
    "regularised_classification": _recipe(
        {"type": "regularised_classification", "network": {"type": "digits_cnn", "width": 8}}, _DIGITS
    ),
    "distillation": _recipe(
        {"type": "distillation", "network": {"type": "digits_cnn", "width": 4}, "teacher": _SMALL,
         "teacher_weights": TEACHER, "distiller": {"type": "crd"}},
        _DIGITS,
    ),
    "tbcnet_pipeline": {
        "optimizer": _ADAM, "schedule": _COSINE, "trainer": _SHORT,
        "stages": [
            {"name": "scm", "task": _COUNTING["task"], "data": _COUNTING["data"]},
            {"name": "tem", "task": {**_TBCNET, "loss": "softiou", "scm": "${stages.scm.best}"}, "data": _SCENES},
        ],
    },
    "calibration_pipeline": {
        "optimizer": _ADAM, "schedule": _COSINE, "trainer": _SHORT, "data": _ATTACKED,
        "stages": [
            {"name": "teacher", "task": _PGD},
            {"name": "search", "step": {"type": "calibration_search", "teacher": "${stages.teacher.run}"}},
            {"name": "student", "task": {
                **_CALIBRATION, "teachers": ["${stages.teacher.best}"],
                "temperature": "${stages.search.result.temperature}", "weight": "${stages.search.result.weight}"}},
            {"name": "judge", "step": {"type": "robust_evaluation", "trained": "${stages.student.run}",
                                       "attacks": ["clean", "pgd20"], "sweep": [], "few": 0}},
        ],
    },
}  # fmt: skip
"""By task, and two pipelines."""


def write_recipe(name: str, folder: Path) -> Path:
    """Writes the recipe ``name`` and what it needs into a folder.

    Returns:
        The recipe's file.
    """
    if TEACHER in str(RECIPES[name]):
        torch.manual_seed(0)
        save_weights(folder / TEACHER, build(_SMALL, "network"), {})
    file = folder / f"{name}.yaml"
    file.write_text(to_text({"name": name, **RECIPES[name]}), encoding="utf-8")
    return file
