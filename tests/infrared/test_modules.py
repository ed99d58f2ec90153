"""The infrared data blocks: who is trained, validated and tested on, what is fixed, and what is passed on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vision.engine.errors import ConfigError, DataError
from vision.engine.registry import build
from vision.infrared.data import InfraredCrops, InfraredImages
from vision.infrared.modules import InfraredFolder, InfraredSynthetic, ScmScenes
from vision.infrared.reading import read_pixels
from vision.infrared.synthesis import count_components

NAMES = [f"n{index:02d}" for index in range(12)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve images of 60x70, the last four for testing, each with a bright target of its own place."""
    root = tmp_path / "set"
    for folder in ("images", "masks", "splits"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index, name in enumerate(NAMES):
        image = rng.integers(40, 60, (60, 70), dtype=np.uint8)
        mask = np.zeros_like(image)
        mask[10 + index : 13 + index, 30:33] = 255
        Image.fromarray(np.where(mask > 0, 250, image).astype(np.uint8)).save(root / "images" / f"{name}.png")
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    (root / "splits" / "train.txt").write_text("\n".join(NAMES[:8]))
    (root / "splits" / "test.txt").write_text("\n".join(NAMES[8:]))
    return root


def ids(dataset: Any) -> list[str]:
    return [dataset[index]["id"] for index in range(len(dataset))]


def sources(dataset: Any) -> set[str]:
    """The images that real crops of a training set come from."""
    assert isinstance(dataset, InfraredCrops)
    return {sample.name for sample in dataset.samples}


# -- real images ---------------------------------------------------------------------------------------------------


def test_training_validation_and_test_share_no_image(root: Path) -> None:
    data = InfraredFolder(root=str(root), patch=48, validation=0.25)
    train, val, test = sources(data.train()), ids(data.val()), data.test()
    assert len(val) == 2
    assert train | set(val) == set(NAMES[:8])
    assert not train & set(val)
    assert ids(test) == NAMES[8:]
    assert {name.partition("/")[0] for name in ids(data.train())} <= {*train, "synthetic"}


def test_what_is_held_out_depends_on_its_own_seed_alone(root: Path) -> None:
    held = []
    for seed, split_seed in ((0, 7), (1, 7), (0, 8)):
        torch.manual_seed(seed)
        np.random.seed(seed)
        held.append(ids(InfraredFolder(root=str(root), split_seed=split_seed, validation=0.4).val()))
    assert held[0] == held[1]
    assert held[0] != held[2]


def test_images_are_judged_whole_and_as_they_are(root: Path) -> None:
    data = InfraredFolder(root=str(root))
    sample = data.test()[0]  # type: ignore[index]
    pixels = read_pixels(root / "images" / f"{NAMES[8]}.png")
    np.testing.assert_allclose(sample["raw"].numpy(), pixels / 255, rtol=1e-6)
    assert sample["mask"].sum() == 9
    raw = sample["raw"]
    torch.testing.assert_close(sample["image"][0], (raw - raw.mean()) / raw.std(correction=0))


def test_fixed_statistics_are_those_given(root: Path) -> None:
    data = InfraredFolder(root=str(root), normalise="dataset", mean=0.25, std=0.5)
    sample = data.test()[0]  # type: ignore[index]
    torch.testing.assert_close(sample["image"][0], (sample["raw"] - 0.25) / 0.5)


def test_without_a_test_split_there_is_none(root: Path) -> None:
    assert InfraredFolder(root=str(root), test_split=None).test() is None


def test_a_list_of_all_images_is_a_split_to_judge_on(root: Path) -> None:
    (root / "all.txt").write_text("\n".join(NAMES))
    (root / "splits" / "train.txt").unlink()  # never trained on
    test = InfraredFolder(root=str(root), test_split="all").test()
    assert ids(test) == NAMES


def test_targets_are_cut_from_the_training_images_alone(root: Path) -> None:
    data = InfraredFolder(root=str(root), patch=48, targets="patch", synthetic="only", validation=0.25, procedural=1.0)
    train = data.train()
    assert isinstance(train, InfraredCrops)
    assert train.synth.mode == "patch"
    assert len(train.synth.cutouts) == len(sources(train)) == 6
    torch.manual_seed(0)
    sample = train[0]
    assert int(sample["count"]) == count_components(sample["mask"][0].numpy() > 0)
    assert InfraredFolder(root=str(root), patch=48).train().synth.cutouts == ()  # type: ignore[attr-defined]


def test_backgrounds_beside_the_images_are_taken_and_others_where_they_are_named(root: Path, tmp_path: Path) -> None:
    def backgrounds(**arguments: Any) -> int:
        train = InfraredFolder(root=str(root), patch=48, **arguments).train()
        return len(train.backgrounds)  # type: ignore[attr-defined]

    assert backgrounds() == 0
    for folder, count in ((root / "backgrounds", 2), (tmp_path / "others", 3)):
        folder.mkdir()
        for index in range(count):
            Image.fromarray(np.full((64, 64), 90, np.uint8)).save(folder / f"{index}.png")
    assert backgrounds() == 2
    assert backgrounds(backgrounds=str(tmp_path / "others")) == 3
    assert backgrounds(synthetic="none") == 0
    with pytest.raises(DataError, match="nowhere: no such folder"):
        backgrounds(backgrounds=str(tmp_path / "nowhere"))


def test_options_reach_the_crops(root: Path) -> None:
    data = InfraredFolder(
        root=str(root), patch=48, length=5, synthetic="mixed", p_real=0.3, p_target=0.9, procedural=0.4,
        target_mode="intensity", high_pass=True,
    )  # fmt: skip
    train = data.train()
    assert isinstance(train, InfraredCrops)
    assert len(train) == 5
    assert (train.p_real, train.p_target, train.procedural) == (0.3, 0.9, 0.4)
    sample = train[0]
    assert sample["image"].shape == (2, 48, 48)
    assert sample["intensity"].shape == (1, 48, 48)
    assert data.in_channels == 2


def test_unusable_images_stop_or_are_left_out_of_every_split(root: Path) -> None:
    (root / "masks" / f"{NAMES[9]}.png").unlink()
    broken = root / "images" / f"{NAMES[2]}.png"
    broken.write_bytes(broken.read_bytes()[:100])
    stops = InfraredFolder(root=str(root))
    with pytest.raises(DataError, match=rf"1 of 8 samples cannot be used: .*{NAMES[2]}\.png: not a readable image"):
        stops.train()
    with pytest.raises(DataError, match=rf"1 of 4 samples cannot be used: masks/{NAMES[9]}: the image has no mask"):
        stops.test()
    skips = InfraredFolder(root=str(root), on_error="skip", patch=48)
    assert NAMES[2] not in sources(skips.train()) | set(ids(skips.val()))
    assert ids(skips.test()) == [NAMES[8], NAMES[10], NAMES[11]]


# -- synthetic scenes ----------------------------------------------------------------------------------------------


def test_scenes_to_judge_on_are_the_same_in_every_run() -> None:
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        data = InfraredSynthetic(size=64, scenes=3)
        found.append([data.val(), data.test()])
    for one, other in zip(*found, strict=True):
        assert isinstance(one, InfraredImages)
        for index in range(3):
            a, b = one[index], other[index]
            assert a["id"] == b["id"]
            assert torch.equal(a["raw"], b["raw"])
            assert torch.equal(a["mask"], b["mask"])
    val, test = found[0]
    assert not any(torch.equal(val[i]["raw"], test[j]["raw"]) for i in range(3) for j in range(3))
    assert ids(val) == ["val_000", "val_001", "val_002"]
    assert val[0]["raw"].shape == (64, 64)


def test_more_scenes_begin_with_the_fewer() -> None:
    few, more = (InfraredSynthetic(size=64, scenes=scenes).val() for scenes in (2, 4))
    assert all(torch.equal(few[index]["raw"], more[index]["raw"]) for index in range(2))


def test_scenes_hold_targets() -> None:
    val = InfraredSynthetic(size=64, scenes=12).val()
    counts = [count_components(val[index]["mask"].numpy()) for index in range(12)]
    assert 0 in counts
    assert max(counts) >= 2


def test_targets_cannot_be_cut_from_no_images() -> None:
    with pytest.raises(DataError, match=r"data\.targets: 'patch' needs real images to cut from; use gaussian"):
        InfraredSynthetic(targets="patch").train()


# -- target images -------------------------------------------------------------------------------------------------


def test_target_images_are_new_while_training_and_fixed_elsewhere() -> None:
    data = ScmScenes(size=64, length=4, held_out=3)
    train, val, test = data.train(), data.val(), data.test()
    assert test is not None
    assert (len(train), len(val), len(test)) == (4, 3, 3)  # type: ignore[arg-type]
    torch.manual_seed(0)
    first = train[0]
    torch.manual_seed(1)
    assert not torch.equal(train[0]["image"], first["image"])
    torch.manual_seed(0)
    assert torch.equal(train[0]["image"], first["image"])
    assert torch.equal(val[1]["image"], ScmScenes(size=64, held_out=3).val()[1]["image"])
    assert not torch.equal(val[1]["image"], test[1]["image"])
    assert first["image"].shape == (1, 64, 64)
    assert 0 <= float(first["image"].min()) <= float(first["image"].max()) <= 1


def test_a_count_is_that_of_the_image() -> None:
    """Of fixed images, which hold some clutter: targets are what is well above it."""
    val = ScmScenes(size=96, held_out=40).val()
    agree = [count_components(val[i]["image"][0].numpy() > 0.25) == int(val[i]["count"]) for i in range(40)]
    assert np.mean(agree) > 0.9


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "infrared_synthetic", "patch": 8}, "patch: expected .*at least 16|patch: .*16"),
        ({"type": "infrared_synthetic", "length": 0}, "length: .*0"),
        ({"type": "infrared_synthetic", "size": 32}, "size: .*48"),
        ({"type": "infrared_synthetic", "scenes": 0}, "scenes: .*0"),
        ({"type": "scm_scenes", "size": 32}, "size: .*64"),
        ({"type": "scm_scenes", "held_out": 0}, "held_out: .*0"),
        ({"type": "infrared_folder", "root": "x", "validation": 0}, "validation: .*0"),
        ({"type": "infrared_folder", "root": "x", "split_seed": -1}, "split_seed: .*0"),
        ({"type": "infrared_folder", "root": "x", "p_real": 1.5}, "p_real: .*1"),
        ({"type": "infrared_folder", "root": "x", "bits": 64}, "bits: .*32"),
        ({"type": "infrared_synthetic", "normalise": "dataset", "mean": 0.4}, r"needs data\.mean and data\.std"),
        ({"type": "infrared_synthetic", "std": 0.1}, r"data\.std is given but data\.normalise is 'image'"),
        ({"type": "infrared_synthetic", "normalise": "dataset", "mean": 0.4, "std": 0}, "std: .*0"),
        ({"type": "infrared_synthetic", "normalise": "dataset", "mean": 101.0, "std": 0.1}, "mean: .*1"),
    ],
)
def test_values_out_of_range_are_refused_before_anything_is_read(block: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(block, "data")


def test_crops_too_small_for_scenes_are_refused_before_training() -> None:
    with pytest.raises(DataError, match="patch: got 32; synthetic scenes need 48 pixels"):
        InfraredSynthetic(patch=32).train()
