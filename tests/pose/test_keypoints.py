"""Skeletons: against the published orders, pycocotools' constants, and what a user may get wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.cocoeval import Params

from vision.pose.keypoints import SKELETONS, Skeleton, SkeletonError, skeleton

# as the released code of the pose networks and data sets writes them
FLIPS = {
    "coco": [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15],
    "ochuman": [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15],
    "crowdpose": [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12, 13],
    "mpii": [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10],
    "ap10k": [1, 0, 2, 3, 4, 8, 9, 10, 5, 6, 7, 14, 15, 16, 11, 12, 13],
}
SIGMAS = {  # tenths
    "crowdpose": [0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89, 0.79, 0.79],
    "ap10k": [0.25, 0.25, 0.26, 0.35, 0.35, 0.79, 0.72, 0.62, 0.79, 0.72, 0.62, 1.07, 0.87, 0.89, 1.07, 0.87, 0.89],
}


def test_flips_and_constants_are_the_published_ones() -> None:
    assert {name: each.flip_index for name, each in SKELETONS.items()} == FLIPS
    for name, tenths in SIGMAS.items():
        assert np.allclose(np.array(SKELETONS[name].sigmas) * 10, tenths)
    assert np.allclose(skeleton("coco").sigmas, Params("keypoints").kpt_oks_sigmas, rtol=1e-12)


@pytest.mark.parametrize("name", SKELETONS)
def test_a_mirror_image_of_a_mirror_image_is_the_figure(name: str) -> None:
    figure = skeleton(name)
    flip, sigmas = np.array(figure.flip_index), np.array(figure.sigmas)
    assert np.array_equal(flip[flip], np.arange(figure.count))
    assert np.array_equal(sigmas[flip], sigmas)
    limbs = {frozenset(limb) for limb in figure.limb_indices}
    assert {frozenset(flip[list(limb)].tolist()) for limb in limbs} == limbs  # a mirrored drawing has the same limbs
    assert set(flip[figure.upper_indices]) == set(figure.upper_indices)
    assert sorted(figure.upper_indices + figure.lower_indices) == list(range(figure.count))


def test_joints_and_limbs_are_those_of_the_official_file(data_root: Path) -> None:
    path = data_root / "coco_keypoints/annotations/person_keypoints_val2017.json"
    category = json.loads(path.read_text())["categories"][0]
    assert list(skeleton("coco").joints) == category["keypoints"]
    assert [[a + 1, b + 1] for a, b in skeleton("coco").limb_indices] == category["skeleton"]


def test_a_skeleton_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "fish.yaml"
    path.write_text(
        "joints: [left_fin, right_fin, tail]\nflip_pairs: [[left_fin, right_fin]]\n"
        "limbs: [[left_fin, tail]]\nsigmas: 0.05\nupper: [left_fin, right_fin]\n"
    )
    fish = skeleton(str(path))
    assert fish == Skeleton(
        "fish", ("left_fin", "right_fin", "tail"), (("left_fin", "right_fin"),), (("left_fin", "tail"),),
        (0.05, 0.05, 0.05), ("left_fin", "right_fin"), (),
    )  # fmt: skip
    assert fish.flip_index == [1, 0, 2] and fish.limb_indices == [(0, 2)] and fish.lower_indices == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("joints: [a, b]\nsigmas: 0.1\nflip_pairs: [[a, a]]", "flip_pairs: ['a', 'a'] is not two different joints"),
        ("joints: [a, b, c]\nsigmas: 0.1\nflip_pairs: [[a, b], [b, c]]", "flip_pairs: 'b' stands there twice"),
        (
            "joints: [left, right]\nsigmas: 0.1\nflip_pairs: [[left, rigth]]",
            "'rigth', which is not among its joints (did",
        ),
        ("joints: [a, b]\nsigmas: 0.1\nflip_pairs: [[a, b, a]]", "is not a list of pairs"),
        ("joints: [a, b]\nsigmas: 0.1\nlimbs: [[a, z]]", "limbs names 'z'"),
        ("joints: [a, b]\nsigmas: [0.1]", "1 sigmas for 2 joints"),
        ("joints: [a, b]\nsigmas: [0.1, 0]", "the sigma of b is 0.0"),
        ("joints: [a, b]\nsigmas: [0.1, x]", "neither a number nor a list of numbers"),
        ("joints: [a, a]\nsigmas: 0.1", "joints: 'a' stands there twice"),
        ("joints: []\nsigmas: 0.1", "joints is empty"),
        ("joints: [a]", "'sigmas' is missing; one number will do"),
        ("joints: [a]\nsigmas: 0.1\nsigma: 3", "unknown field 'sigma' (did you mean 'sigmas'?)"),
        ("joints: [a]\nsigmas: 0.1\nupper: [a]\nlower: [a]", "upper and lower: 'a' stands there twice"),
        ("joints: [a", "is not YAML"),
        ("just words", "expected fields"),
    ],
)
def test_a_skeleton_that_does_not_hold_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(SkeletonError) as error:
        skeleton(str(path))
    assert told in str(error.value) and str(path) in str(error.value)


def test_an_unknown_name_or_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SkeletonError, match=r"'crowdpos' \(did you mean 'crowdpose'\?\)"):
        skeleton("crowdpos")
    with pytest.raises(SkeletonError, match="No such file"):
        skeleton(str(tmp_path / "none.yaml"))
