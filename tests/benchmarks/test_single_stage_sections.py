"""The ablation of DHRNet's dual path on the pages: arms beside each other, what they show, absent until measured."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.collect import check
from benchmarks.collect import main as collect
from benchmarks.figures import label
from benchmarks.performance_page import performance_page, speed_in_short, timed_block
from benchmarks.pose_sections import UNMEASURED, poses_block
from benchmarks.results_page import readme_block, results_page
from benchmarks.single_stage_sections import relations_block
from tests.benchmarks.folders import MACHINE, recipe, write_config, write_evaluation, write_training
from tests.benchmarks.test_results_page import record
from vision.engine.files import write_json

Documents = dict[str, dict[str, Any]]
ARMS = {"cid": {"dual_path": False}, "release": {"attention": "release"}, "keys": {"attention": "keys"}}
DATA = {"type": "pose_images", "root": "../shared/data/coco_keypoints", "test_split": "val2017"}
PLAIN = "a plain reading of the release"
FIGURES = {"AP": 0.05, "AP50": 0.2, "AP75": 0.01, "APM": 0.02, "APL": 0.07, "AR": 0.1}


def ablation(*seeds: int) -> Documents:
    """Arms whose AP is 5, 6 and 8 points, a tenth more with each seed and that of ``keys`` by two."""
    records = [
        record(stage, seed, {**FIGURES, "AP": 0.05 + 0.01 * place * (place + 1) / 2 + 0.001 * seed * (1 + place // 2)},
               recipe="dhrnet_w18s_coco_ablation", network={"type": "dhrnet", **options}, data=DATA, samples=81,
               primary="AP", loss=None)
        for place, (stage, options) in enumerate(ARMS.items())
        for seed in seeds
    ]  # fmt: skip
    document = {"kind": "runs", "note": "", "records": records}
    check(document, "ablation")
    return {"dhrnet_coco_ablation": document}


def test_arms_stand_beside_each_other_with_what_they_change() -> None:
    lines = relations_block("", ablation(0)).splitlines()
    assert lines[0] == "`dhrnet_w18s_coco_ablation`, judged on coco_keypoints, val2017, 81 images:"
    assert lines[4] == "| CID, no dual path | 125,937 | 5.0 | 20.0 | 1.0 | 2.0 | 7.0 | 10.0 | 0 |"
    assert lines[5].startswith("| DHRNet, attention `release` | 125,937 | 6.0 |")
    assert lines[6].startswith("| DHRNet, attention `keys` | 125,937 | 8.0 |")
    said = "- DHRNet, attention `keys`, AP: +3.0 points with it; one seed says nothing of how sure that is."
    assert said in lines


def test_with_seeds_the_differences_are_paired() -> None:
    page = relations_block("", ablation(0, 1, 2))
    assert "| DHRNet, attention `release` | 125,937 | 6.1 ± 0.1 |" in page
    assert "`release`, AP: +1.0 points with it (seed by seed +1.0, +1.0, +1.0;" in page
    assert "`keys`, AP: +3.1 points with it (seed by seed +3.0, +3.1, +3.2;" in page
    assert "AR: 0.0 points with it" in page and "no effect shown" in page


def test_it_has_a_section_of_its_own_and_no_row_among_the_runs() -> None:
    documents = ablation(0)
    page = results_page(documents)
    section = page.split("## Ablation: the dual path of DHRNet")[1].split("\n## ")[0]
    assert "| `dhrnet_w18s_coco_ablation`, stage keys |" in section, "what it cost"
    assert "attention `keys`" not in page.replace(section, "")
    assert "dhrnet" not in readme_block(documents)
    assert relations_block("", {}) == UNMEASURED
    assert UNMEASURED in results_page({}).split("## Ablation: the dual path of DHRNet")[1].split("\n## ")[0]


def test_a_network_without_its_dual_path_is_called_cid() -> None:
    networks = [{"type": "dhrnet", "dual_path": False}, {"type": "cid"}, {"type": "dhrnet"}]
    labels = [label(record(None, 0, FIGURES, recipe="a", network=network)) for network in networks]
    assert labels == ["CID, `a`", "CID, `a`", "DHRNet, `a`"]


def speed(ratio: float) -> dict[str, Any]:
    times = {"ours": 1000.0 * ratio, "theirs": 1000.0, "ratio": ratio, "aim": 0.7692, "repeats": 3}
    rows = [{"what": f"image to heatmaps, {n}", "against": PLAIN, **times} for n in ("1 person", "5 people")]
    about = {"title": "DHRNet (W32) at inference, 512x512", "command": "python x.py", "unit": "ms", "better": "lower"}
    errors = [{"what": "largest difference of a probability", "value": 3e-7, "aim": 1e-4}]
    made = {"machine": MACHINE, "commit": None, "date": "2026-01-02T00:00:00+00:00"}
    return {"kind": "comparison", "rows": rows, "errors": errors, **about, **made}


def test_inference_is_told_with_its_error_wherever_it_stands() -> None:
    documents = {"dhrnet_inference": speed(0.5)}
    check(documents["dhrnet_inference"], "speed")
    row = (
        "| image to heatmaps, 1 person | a plain reading of the release | 500 | 1,000 | 2× as fast | 1.3× as fast | – |"
    )
    error = "largest difference of a probability: 3.0e-07, at most 1e-04 allowed."
    for text in (timed_block("dhrnet_inference", documents), performance_page(documents)):
        assert row in text.splitlines()
        assert error in text.splitlines()
    assert "image to heatmaps | a plain reading of the release | 2× as fast | 1.3× as fast |" in speed_in_short(
        documents
    )
    assert timed_block("dhrnet_inference", {}) == "Not timed yet."


def test_from_run_folders_to_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Collected as measured runs are, under the names they have, then written onto the page."""
    run, results = tmp_path / "runs" / "dhrnet_w18s_coco_ablation", tmp_path / "results"
    results.mkdir()
    write_config(run, recipe("dhrnet_w18s_coco_ablation"))
    for stage, options in ARMS.items():
        tree = recipe(f"dhrnet_w18s_coco_ablation_{stage}", data=DATA)
        tree["task"] = {"type": "single_stage_pose", "network": {"type": "dhrnet", **options}}
        write_config(run / stage, tree)
        write_training(run / stage)
        write_evaluation(run / stage, FIGURES, data=DATA, samples=81, primary="AP")
    overfit = tmp_path / "runs" / "dhrnet_w18s_coco_overfit"
    tree = recipe("dhrnet_w18s_coco_overfit", data=DATA | {"overfit": True})
    tree["task"] = {"type": "single_stage_pose", "network": {"type": "dhrnet"}}
    write_config(overfit, tree)
    write_training(overfit)
    write_evaluation(overfit, FIGURES | {"AP": 0.8123}, data=DATA | {"overfit": True}, samples=32, primary="AP")
    assert collect([str(run), "--unfinished", "-o", str(results / "dhrnet_coco_ablation.json")]) == 0
    assert collect([str(overfit), "-o", str(results / "dhrnet_coco_overfit.json")]) == 0
    write_json(results / "dhrnet_inference.json", speed(0.8))

    read = tables.read_results
    monkeypatch.setattr(tables, "read_results", lambda: read(results))
    monkeypatch.setattr(tables, "CHECKOUT", tmp_path)
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "dhrnet.md"
    shipped = (Path(__file__).resolve().parents[2] / "docs" / "dhrnet.md").read_text()
    page.write_text(shipped)
    (tmp_path / "README.md").write_text("<!-- results: -->\n<!-- end -->\n<!-- speed: -->\n<!-- end -->\n")
    assert tables.main([]) == 0
    text = page.read_text()
    assert "| DHRNet, `dhrnet_w18s_coco_overfit` | scratch | coco_keypoints, the 32 images it was trained on |" in text
    assert "| 81.2 |" in text
    assert "| CID, no dual path | " in text and "attention `keys` |" in text
    assert "| image to heatmaps, 5 people |" in text
    assert "AP 81.2 %" in (tmp_path / "README.md").read_text()
    assert "DHRNet (W32) at inference" in (tmp_path / "README.md").read_text()
    assert "DHRNet (W32) at inference" in (tmp_path / "docs" / "performance.md").read_text()
    assert "81.2" in (tmp_path / "docs" / "results.md").read_text()
    assert poses_block("single_stage", {}) == UNMEASURED
