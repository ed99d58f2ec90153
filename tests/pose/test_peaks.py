"""From maps to numbers: golden offsets, peaks of each image by itself, and a plain search as oracle."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vision.pose.keypoints import skeleton
from vision.pose.oks import extent, joint_similarity
from vision.pose.peaks import decode_poses, find_centres, joint_positions, smoothed


def test_golden_quarter_offset() -> None:
    heatmap = torch.zeros(1, 2, 8, 8)
    heatmap[0, 0, 4, 4], heatmap[0, 0, 4, 5], heatmap[0, 0, 3, 4] = 1, 0.5, 0.2
    heatmap[0, 1, 0, 7] = 1
    positions, heights = joint_positions(heatmap, kernel=1)
    assert positions[0].tolist() == [[4.25, 3.75], [7.0, 0.0]]
    assert heights[0].tolist() == [1, 1]


def test_poses_are_in_pixels_with_the_score_of_peak_and_centre() -> None:
    heatmap = torch.zeros(1, 1, 8, 8)
    heatmap[0, 0, 4, 4], heatmap[0, 0, 4, 5] = 0.8, 0.1
    poses, scores = decode_poses(heatmap, torch.tensor([0.5]), kernel=1)
    assert poses[0, 0].tolist() == pytest.approx([4.25 * 4 + 2, 4 * 4 + 2, 0.4])
    assert scores.tolist() == pytest.approx([0.4])


def test_smoothing_is_the_mean_of_a_map_and_its_average() -> None:
    torch.manual_seed(0)
    maps = torch.rand(1, 1, 5, 6)
    padded = F.pad(maps, (1, 1, 1, 1))
    expected = torch.zeros(5, 6)
    for row in range(5):
        for column in range(6):
            expected[row, column] = (
                maps[0, 0, row, column] + padded[0, 0, row : row + 3, column : column + 3].mean()
            ) / 2
    torch.testing.assert_close(smoothed(maps, 3)[0, 0], expected)


@pytest.mark.parametrize(("size", "side"), [((20, 30), 3), ((180, 230), 5), ((260, 360), 7)])
def test_centres_are_the_highest_peaks_of_each_image(size: tuple[int, int], side: int) -> None:
    torch.manual_seed(0)
    maps = torch.rand(3, *size) * 0.5
    maps[1] = 0.001
    coords, image, scores = find_centres(maps, most=9, threshold=0.01)
    assert 1 not in image
    for each in (0, 2):
        values = smoothed(maps[each, None, None], 3)[0, 0].numpy()
        reach = side // 2
        padded = np.pad(values, reach, constant_values=-1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side)).max((2, 3))
        peaks = sorted(((values[r, c], r, c) for r, c in np.argwhere(windows == values)), reverse=True)[:9]
        own = image == each
        assert coords[own].tolist() == [[r, c] for _, r, c in peaks]
        assert scores[own].tolist() == pytest.approx([v for v, _, _ in peaks])
    alone = find_centres(maps[2:], most=9)
    assert torch.equal(alone[0], coords[image == 2])


def test_no_more_people_than_the_cap_and_none_in_an_empty_image() -> None:
    torch.manual_seed(0)
    coords, _, _ = find_centres(torch.rand(1, 64, 64), most=5)
    assert len(coords) == 5
    coords, image, scores = find_centres(torch.zeros(2, 4, 4), most=30)
    assert coords.shape == (0, 2) and image.shape == scores.shape == (0,)
    poses, scores = decode_poses(torch.zeros(0, 17, 4, 4), scores)
    assert poses.shape == (0, 17, 3) and scores.shape == (0,)


@pytest.mark.parametrize(("shift", "expected"), [(3, 0.9431483), (60, 0.00187087)])
def test_golden_similarity_that_repetitions_are_told_by(shift: float, expected: float) -> None:
    joints = np.array([[10.0 + 5 * i, 20.0 + 7 * i] for i in range(17)])
    moved = joints + np.array([shift, 0])
    found = joint_similarity(moved, joints, extent(joints), skeleton("coco").sigmas).mean()
    assert found == pytest.approx(expected, rel=1e-6)
