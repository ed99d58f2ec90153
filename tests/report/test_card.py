"""The model card: what the folder holds, no more."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.report.conftest import MakeRun
from vision.engine.errors import CheckpointError
from vision.report.card import count_values, write_card


def test_card_of_one_run(make_run: MakeRun) -> None:
    folder = make_run("digits", accuracy=0.875)
    save_file(
        {"a": np.zeros((3, 5), np.float32), "b": np.zeros(7, np.float32)}, folder / "checkpoints/best.safetensors"
    )
    text = write_card(folder).read_text()
    assert text.startswith("# digits\n\nA small test.\n")
    for said in (
        "- Task: `classification`",
        '- Options: `{"network": {"type": "cnn", "width": 8}}`',
        "22 values in 2 tensors",
        "type: digits",
        "| test | test | 20 | **accuracy** | 0.8750 |",
        "| val | val | 20 | nll | 0.5000 |",
        "seed 0, 1 min 40 s of training, best at epoch 2, Some CPU (4 cores), torch 2.11.0",
        "One seed: how much the figures vary",
        "chosen on the validation split",
        "1/20 are single samples",
    ):
        assert said in text
    assert (folder / "config.yaml").read_text().split()[2] in text  # the recipe's SHA-256


def test_card_over_seeds(make_run: MakeRun, tmp_path: Path) -> None:
    accuracies = [0.5, 0.625, 0.875]
    for seed, accuracy in enumerate(accuracies):
        make_run(f"s/seed{seed}", seed, accuracy)
    text = write_card(tmp_path / "s", tmp_path / "card.md").read_text()
    assert text.count("\n# ") + text.startswith("# ") == 1
    expected = f"{np.mean(accuracies):.4f} ± {np.std(accuracies, ddof=1):.4f}"
    assert f"| test | test | 20 | **accuracy** | {expected} |" in text
    assert "Seed 0, 1, 2; ± is the sample standard deviation" in text
    assert "One seed" not in text


def test_card_without_figures_says_so(make_run: MakeRun) -> None:
    text = write_card(make_run("fresh", accuracy=None, trained=False)).read_text()
    assert "Not evaluated yet." in text
    assert "Nothing was measured" in text


def test_card_without_a_test_split_says_so(make_run: MakeRun) -> None:
    folder = make_run("digits")
    for file in sorted((folder / "eval" / "test").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    assert "No test split was judged" in write_card(folder).read_text()


def test_what_is_no_weights_file(tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(CheckpointError, match=r"best\.safetensors: cannot be read as safetensors"):
        count_values(tmp_path / "best.safetensors")
