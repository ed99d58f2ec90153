"""From training to figures of best and last weights, on digits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robust.corruptions import corruption_accuracy
from robust.evaluation import Judged
from robust.judging import RobustEvaluation, counts_of, figures_of
from robust.table import Row
from tools.train import main
from vision.engine.errors import ConfigError, DataError
from vision.report.html import write_report

RECIPE = """
name: r
stages:
  - name: train
    task:
      type: {task}
      network: {{type: digits_cnn, width: 4}}
    data: {{type: digits, normalise: {normalise}, limit: 200}}
    optimizer: {{type: adam, lr: 0.01}}
    trainer: {{epochs: 3, batch_size: 50, device: cpu, evaluate_every: 2}}
  - name: judge
    step:
      type: robust_evaluation
      trained: "${{stages.train.run}}"
      attacks: [clean, fgsm, pgd20]
      threat: {{eps: 0.05}}
      limit: 50
      few: 20
      sweep: [0.0, 0.05]
"""


def train(folder: Path, task: str = "adversarial_classification", normalise: str = "false") -> Path:
    recipe = folder / "r.yaml"
    recipe.write_text(RECIPE.format(task=task, normalise=normalise))
    assert main([str(recipe), f"output={folder}"]) == 0
    return folder / "r"


@pytest.mark.parametrize(("task", "normalise"), [("adversarial_classification", "false"), ("classification", "true")])
def test_a_pipeline_judges_best_and_last_and_their_difference(tmp_path: Path, task: str, normalise: str) -> None:
    folder = train(tmp_path, task, normalise)
    result = json.loads((folder / "judge" / "done.json").read_text())["result"]
    assert set(result) == {"best", "last", "gap"}
    for name in ("clean", "fgsm", "pgd20"):
        assert result["gap"][name] == pytest.approx(result["best"][name] - result["last"][name])
    assert result["best"]["clean"] >= result["best"]["fgsm"] >= result["best"]["pgd20"] - 0.02
    assert result["best"]["clean"] > 0.3  # the normalisation is right, whoever does it
    for checkpoint in ("best", "last"):
        place = folder / "judge" / "eval" / checkpoint
        written = json.loads((place / "result.json").read_text())
        assert written["metrics"] == result[checkpoint] and written["warnings"].keys() <= {"gradients", "attacks"}
        assert ("gap" in written["tables"]) == (checkpoint == "last")
        assert (written["data"]["type"], written["seed"], written["name"]) == ("digits", 0, "train")
        assert written["tables"]["sweep"]["y"][0] >= written["tables"]["sweep"]["y"][1]
        assert len(list((place / "examples").glob("*.png"))) == 6
        rows = [json.loads(line) for line in (place / "predictions.jsonl").read_text().splitlines()]
        assert np.mean([not row["pgd20"] for row in rows]) == pytest.approx(result[checkpoint]["pgd20"])
    table = json.loads((folder / "judge" / "eval" / "last" / "result.json").read_text())["tables"]["gap"]
    assert {row[0]: row[3] for row in table["rows"]} == result["gap"]
    assert table["rows"][0] == ["clean", result["best"]["clean"], result["last"]["clean"], result["gap"]["clean"]]
    write_report([folder], folder / "report.html")
    page = (folder / "report.html").read_text()
    assert all(text in page for text in ("Best less last weights", "Accuracy over eps", "pgd20_<wbr>ece"))


def test_clean_accuracy_is_that_of_the_training_run(tmp_path: Path) -> None:
    folder = train(tmp_path)
    trained = json.loads((folder / "train" / "done.json").read_text())["result"]["test"]["accuracy"]
    found = RobustEvaluation(trained=str(folder / "train"), checkpoints=("best",), attacks=("clean",), few=0).run(
        tmp_path / "again"
    )
    assert found["best"]["clean"] == pytest.approx(trained, abs=1e-9)


def test_other_runs_and_numbers_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="limit: 0"):
        RobustEvaluation(trained="x", limit=0)
    with pytest.raises(ConfigError, match="different names"):
        RobustEvaluation(trained="x", attacks=("clean", "clean"))
    with pytest.raises(ConfigError, match="not a run folder"):
        RobustEvaluation(trained=str(tmp_path)).run(tmp_path / "out")


def test_slow_attacks_see_fewer_images_and_pgd_is_held_against_autoattack_on_the_same_ones() -> None:
    def row(number: int, broken: str) -> Row:
        return Row(str(number), 0, [1.0, 0.0], 0.1, broken)

    pgd = Judged("pgd20", [row(i, "pgd20" if i < 2 else "") for i in range(8)])
    auto = Judged("autoattack", [row(i, "apgd-ce" if i < 3 else "") for i in range(4)])
    found = figures_of({"pgd20": pgd, "autoattack": auto})
    assert (found["pgd20"], found["autoattack"], found["autoattack_images"]) == (0.75, 0.25, 4.0)
    assert found["overestimation"] == pytest.approx(0.5 - 0.25) and "pgd20_images" not in found
    assert counts_of({"pgd20": pgd, "autoattack": auto})["autoattack"] == 4
    assert not any(name.startswith("pgd20") for name in counts_of({"pgd20": pgd, "autoattack": auto}))


def test_corruptions_are_read_by_severity(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    with torch.no_grad():
        network[1].weight.copy_(torch.stack([torch.zeros(12), torch.ones(12)]))
        network[1].bias.copy_(torch.tensor([0.0, -6.0]))  # class 1 where the mean is above a half
    labels = np.tile(np.array([0, 1, 1, 0]), 5)
    bright = np.where(labels == 1, 255, 0).astype(np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    wrong = bright.copy()
    wrong[16:] = 255 - wrong[16:]  # the last severity
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "fog.npy", bright)
    np.save(tmp_path / "noise.npy", wrong)
    found = corruption_accuracy(network, tmp_path, batch_size=3)
    assert found == {"corruption_fog": 1.0, "corruption_noise": 0.8, "corruptions": 0.9}
    assert corruption_accuracy(network, tmp_path, limit=1)["corruption_noise"] == 0.8
    np.save(tmp_path / "noise.npy", wrong[:7])
    with pytest.raises(DataError, match="severities"):
        corruption_accuracy(network, tmp_path)
    with pytest.raises(DataError, match=r"labels\.npy"):
        corruption_accuracy(network, tmp_path / "nowhere")


def test_the_tool_judges_a_run_under_attack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    from tools.eval import main as judge

    folder = train(tmp_path)
    capsys.readouterr()
    options = ["robust.attacks=[clean, fgsm]", "robust.limit=30", "robust.few=0", "robust.threat.eps=0.05"]
    assert judge([str(folder / "train"), "--robust", *options]) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [f.parent.name for f in files] == ["robust-best", "robust-last"]
    written = json.loads(files[0].read_text())
    assert set(written["images"].values()) == {30} and written["threat"]["eps"] == 0.05
    assert "best less last: clean" in caplog.text
    run = str(folder / "train")
    assert judge([run, "--robust", "--checkpoint", "best", "--split", "val", *options, "robust.prefix=val-"]) == 0
    assert [Path(line).parent.name for line in capsys.readouterr().out.splitlines()] == ["val-best"]
    for wrong, message in (
        (["--robust", "robust.attakcs=[clean]"], "attakcs"),
        (["--robust", "robust.attacks=[clean,"], "not valid YAML"),
        (["--robust", "robust.threat=1", "robust.threat.eps=0.1"], "not a mapping"),
        (["--robust", "robust.threat.eps=8"], r"did you mean 8/255 = 0\.031373"),
        (["--robust", "robust.trained=x"], "said without robust"),
        (["--robust", "--name", "x"], "set robust.prefix"),
        (["robust.limit=3"], "add --robust"),
    ):
        with pytest.raises(ConfigError, match=message):
            judge([run, *wrong])
