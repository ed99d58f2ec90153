"""The table of MamKPD's sizes is that of the networks."""

import re

import pytest

from tests.docs.pages import CHECKOUT
from vision.engine.registry import build

ROWS = re.findall(
    r"^\| `(mamkpd_\w)` \| (\d+) \| ([\d, ]+) \| ([\d, ]+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|",
    (CHECKOUT / "docs" / "pose.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def test_all_sizes_are_there() -> None:
    assert [row[0] for row in ROWS] == ["mamkpd_t", "mamkpd_s", "mamkpd_b", "mamkpd_l"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_is_the_network(row: tuple[str, ...]) -> None:
    name, stem, widths, depths, hidden, *parameters = row
    for keypoints, count in zip((17, 16), parameters, strict=True):
        network = build({"type": name, "keypoints": keypoints}, "network")
        assert sum(p.numel() for p in network.parameters()) == int(count.replace(",", ""))
    assert network.stem.first[0].out_channels == int(stem)
    assert [stage.down.out_channels for stage in network.stages] == [int(width) for width in widths.split(",")]
    assert [len(stage.blocks) for stage in network.stages] == [int(depth) for depth in depths.split(",")]
    assert network.decoder.doublings[0].conv.out_channels == int(hidden)
