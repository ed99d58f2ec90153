"""The networks that ship: they open by name, are as good as their cards say, and came from the recipes of that name."""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

import robust
import vision
from benchmarks import ship
from benchmarks.ship import OF_THIS_MACHINE, TOLD, WEIGHTS, card_of
from tools import eval as judging
from tools import export, predict
from vision.deploy.shipped import MODELS, home_of, run_or_recipe
from vision.engine.config import load
from vision.engine.errors import ConfigError, DataError
from vision.engine.references import is_reference

CHECKOUT = Path(__file__).resolve().parents[2]
DIGITS = [name for name, told in TOLD.items() if "digit" in told.sample]
SMALL = dict.fromkeys(DIGITS, "data.limit=40") | {"tbcnet_lite_synthetic": "data.scenes=2"}


@cache
def opened(name: str) -> Callable[..., Any]:
    """The network, by the function its card names."""
    module, _, function = TOLD[name].load.rpartition(".")
    network: Callable[..., Any] = getattr(import_module(module), function)(name)
    return network


def result_of(name: str, evaluation: str = "test") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MODELS / name / "eval" / evaluation / "result.json").read_text())
    return found


@cache
def digits_for_test() -> list[tuple[NDArray[np.uint8], int]]:
    """Test digits and their classes as scikit-learn has them; only which are for test is the package's word."""
    from sklearn.datasets import load_digits

    from vision.classification.digits import Digits

    bunch, held = load_digits(), Digits().partition("test")[1]
    grey = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    return [(np.repeat(grey[i][..., None], 3, axis=2), int(bunch.target[i])) for i in held]


def test_what_ships_is_what_is_told_of() -> None:
    assert vision.shipped_models() == {name: MODELS / name for name in sorted(TOLD)}
    makefile = (CHECKOUT / "Makefile").read_text()
    (line,) = [line for line in makefile.splitlines() if line.startswith("SHIPPED :=")]
    assert set(line.split()[2:]) == set(TOLD)


@pytest.mark.parametrize("name", DIGITS)
def test_the_accuracy_on_test_digits_is_the_card_s(name: str) -> None:
    digits, told = digits_for_test(), result_of(name)
    right = sum(
        said.label == str(label) for said, (_, label) in zip(opened(name)([p for p, _ in digits]), digits, strict=True)
    )
    assert (len(digits), right / len(digits)) == (told["samples"], pytest.approx(told["metrics"]["accuracy"], abs=1e-9))


def test_targets_found_in_test_scenes_are_the_card_s() -> None:
    network, told = opened("tbcnet_lite_synthetic"), result_of("tbcnet_lite_synthetic")
    overlap = union = found = targets = 0
    scenes = network.task.test_data()  # type: ignore[attr-defined]
    for scene in scenes:
        seen, true = network(scene["raw"].numpy()).probability > 0.5, scene["mask"].numpy()
        overlap, union = overlap + int((seen & true).sum()), union + int((seen | true).sum())
        hits, those = _matched(true, seen)
        found, targets = found + hits, targets + those
    assert len(scenes) == told["samples"]
    assert overlap / union == pytest.approx(told["metrics"]["IoU"], abs=2e-4)
    assert found / targets == pytest.approx(told["metrics"]["Pd"], abs=1.01 / targets)


def _matched(true: NDArray[np.bool_], seen: NDArray[np.bool_]) -> tuple[int, int]:
    """True regions with a predicted centroid nearer than 3 pixels that no earlier region took, and all true regions."""
    regions = [ndimage.label(mask, np.ones((3, 3))) for mask in (true, seen)]
    centres, free = [list(ndimage.center_of_mass(labels > 0, labels, range(1, n + 1))) for labels, n in regions]
    hits = 0
    for centre in centres:
        near = next((other for other in free if np.hypot(*np.subtract(centre, other)) < 3), None)
        if near is not None:
            free.remove(near)
            hits += 1
    return hits, len(centres)


def test_the_robust_classifier_withstands_what_the_plain_one_does_not() -> None:
    def survive(name: str) -> int:
        network = robust.load(name)
        tried = [network.attacked(pixels, label, eps=0.1, steps=20) for pixels, label in digits_for_test()[:40]]
        return sum(
            found.scores.label == str(label) for found, (_, label) in zip(tried, digits_for_test()[:40], strict=True)
        )

    assert survive("robust_digits") >= 20
    assert survive("digits_cnn") < survive("robust_digits")


@pytest.mark.parametrize("name", TOLD)
def test_every_evaluation_is_of_the_weights_that_ship(name: str) -> None:
    digest = hashlib.sha256((MODELS / name / WEIGHTS).read_bytes()).hexdigest()
    judged = {path.parent.name: json.loads(path.read_text()) for path in (MODELS / name).glob("eval/*/result.json")}
    assert {"val", "test", *TOLD[name].judged} == set(judged)
    assert {result["weights_sha256"] for result in judged.values()} == {digest}
    assert digest in (CHECKOUT / "docs" / "models.md").read_text()
    assert digest in (MODELS / name / "README.md").read_text()


@pytest.mark.parametrize("name", TOLD)
def test_it_is_what_the_recipe_of_its_name_makes(name: str) -> None:
    config = load(name)
    recipe = config.stages()[-1].tree if config.is_pipeline else config.tree
    shipped = yaml.safe_load((MODELS / name / "config.yaml").read_text())
    assert _less_references(recipe, recipe) == _less_references(shipped, recipe)


def _less_references(tree: Any, recipe: Any) -> Any:
    """A recipe without what stages before it give."""
    if isinstance(recipe, dict) and isinstance(tree, dict):
        return {
            k: _less_references(v, recipe.get(k)) for k, v in tree.items() if not _refers(recipe.get(k)) and k != "name"
        }
    return tree


def _refers(value: Any) -> bool:
    return any(map(_refers, value)) if isinstance(value, list) else is_reference(value)


@pytest.mark.parametrize("name", TOLD)
def test_its_card_is_generated_and_complete(name: str) -> None:
    card = (MODELS / name / "README.md").read_text()
    assert card == card_of(name), "run python benchmarks/ship.py --cards"
    for part in ("Use", "Good for", "Not for", "Training data and terms", "Licence", "Figures", "Limits"):
        assert f"\n## {part}\n" in card
    environment = json.loads((MODELS / name / "environment.json").read_text())
    for fact in (environment["git_commit"][:12], environment["cpu"], "seed 0", TOLD[name].data, "Apache-2.0"):
        assert fact in card
    assert "with changes" not in card


def test_they_are_small_and_tell_of_no_machine_s_folders() -> None:
    files = [path for path in MODELS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4_000_000
    assert [path for path in files if OF_THIS_MACHINE.search(path.read_bytes())] == []
    assert {path.suffix for path in files} == {".yaml", ".json", ".jsonl", ".safetensors", ".md"}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOLD)
def test_its_export_equals_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert export.main([name]) == 0  # raises where the file is not equal to PyTorch
    module, _, function = TOLD[name].load.rpartition(".")
    exported = getattr(import_module(module), function)(Path("shipped", name, "export", "onnx-fp32"))
    sample = CHECKOUT / TOLD[name].sample
    here, there = opened(name)(sample).to_dict(), exported(sample).to_dict()
    assert here.get("label") == there.get("label")
    assert len(here.get("detections", [])) == len(there.get("detections", []))


@pytest.mark.parametrize("name", TOLD)
def test_the_commands_of_a_card_write_nothing_into_the_package(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in MODELS.rglob("*")}
    monkeypatch.chdir(tmp_path)
    sample = CHECKOUT / TOLD[name].sample
    assert predict.main([name, str(sample)]) == 0
    assert judging.main([name, SMALL[name]]) == 0
    assert {path.name for path in Path("shipped", name, "predict").iterdir()} == {
        "predictions.json", f"{sample.stem}.png",
    }  # fmt: skip
    assert Path("shipped", name, "eval", "test", "result.json").is_file()
    assert {path: path.stat().st_mtime_ns for path in MODELS.rglob("*")} == before


def test_robustness_of_a_network_that_ships_is_judged_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["robust.attacks=[clean, pgd20]", "robust.sweep=[]", "robust.few=0", "robust.limit=30"]
    assert judging.main(["robust_digits", "--robust", *options]) == 0
    result = json.loads(Path("shipped/robust_digits/eval/robust-best/result.json").read_text())
    assert result["samples"] == 30
    assert result["metrics"]["pgd20"] <= result["metrics"]["clean"]


def test_the_samples_are_what_their_page_says() -> None:
    from sklearn.datasets import load_digits

    from benchmarks.sample_images import SAMPLES, images, scene

    digits = load_digits()
    for name, pixels in images().items():
        assert np.array_equal(np.asarray(Image.open(SAMPLES / name)), pixels), "run python benchmarks/sample_images.py"
    for path in (SAMPLES / "digits").glob("*.png"):
        _, place, _, label = path.stem.split("_")
        assert digits.target[int(place)] == int(label)
        assert np.array_equal(np.asarray(Image.open(path)), np.rint(digits.images[int(place)] * 255 / 16))
    said = (SAMPLES / "README.md").read_text()
    assert all(f"({target.row}, {target.column})" in said for target in scene().targets)


# -- names and paths ---------------------------------------------------------------------------------------------------


def test_where_names_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_or_recipe("stop_digits", "best") == MODELS / "stop_digits"
    assert run_or_recipe("stop_digits", "weights.safetensors") == Path("stop_digits"), "the recipe"
    assert home_of(MODELS / "stop_digits") == Path("shipped/stop_digits")
    assert home_of(Path("runs/stop_digits")) == Path("runs/stop_digits")
    Path("stop_digits").mkdir()
    assert run_or_recipe("stop_digits", "best") == Path("stop_digits"), "what is there comes first"
    with pytest.raises(ConfigError, match="did you mean 'robust_digits'"):
        robust.load("robust_digit")


# -- shipping ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run as a training leaves it, of a network that ships."""
    folder = tmp_path / "runs" / "digits_cnn"
    shutil.copytree(MODELS / "digits_cnn", folder)
    (folder / "README.md").unlink()
    return folder


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_shipping_a_run_makes_the_folder_that_ships(run: Path, tmp_path: Path) -> None:
    change(run / "eval/test/result.json", data={"type": "digits", "root": str(run)})
    (run / "checkpoints/last.resume").write_bytes(b"optimiser")
    made = ship.ship("digits_cnn", run, tmp_path / "models")
    names = {path.relative_to(made) for path in made.rglob("*") if path.is_file()}
    assert names == {p.relative_to(MODELS / "digits_cnn") for p in (MODELS / "digits_cnn").rglob("*") if p.is_file()}
    for name in names:
        assert (made / name).read_bytes() == (MODELS / "digits_cnn" / name).read_bytes(), name


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    commit = json.loads((run / "environment.json").read_text())["git_commit"]
    change(run / "environment.json", git_commit=f"{commit}+changes")
    with pytest.raises(DataError, match="was trained with changes that commit"):
        ship.ship("digits_cnn", run, tmp_path / "models")
    change(run / "environment.json", git_commit=commit, command=["/home/me/tools/train.py"])
    with pytest.raises(DataError, match="tells of a folder of this machine"):
        ship.ship("digits_cnn", run, tmp_path / "models")
    (run / "eval/test/result.json").unlink()
    with pytest.raises(DataError, match="not judged on its test split"):
        ship.ship("digits_cnn", run, tmp_path / "models")
    with pytest.raises(DataError, match="'nothing' is none of the networks that ship; expected one of digits_cnn"):
        ship.main(["nothing"])
