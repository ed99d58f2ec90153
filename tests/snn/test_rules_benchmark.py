"""The comparison of rules: documents that keep to the schema, and a drawing made of one."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.collect import check
from benchmarks.snn_rules import STEPS, WAYS, main


def test_it_measures_and_draws(tmp_path: Path) -> None:
    image = tmp_path / "deep" / "memory.png"
    arguments = [
        "--batch",
        "1",
        "--width",
        "2",
        "--rounds",
        "1",
        "-o",
        str(tmp_path / "results"),
        "--image",
        str(image),
    ]
    assert main(arguments) == 0
    found = {part: json.loads((tmp_path / "results" / f"snn_{part}.json").read_text()) for part in ("memory", "speed")}
    for part, document in found.items():
        check(document, part)
    rows = found["memory"]["rows"]
    flat = [row for row in rows if row["aim"] is not None]
    assert [row["ratio"] for row in flat] == [1.0, 1.0]
    assert len(rows) == 2 + (len(WAYS) - 1) * len(STEPS)
    assert {row["what"].split(":")[0] for row in found["speed"]["rows"]} == {
        "update, T = 6",
        "inference, T = 4",
        "inference, T = 6",
    }
    with Image.open(image) as drawn:
        assert drawn.width > 600 and len(np.unique(np.asarray(drawn.convert("L")))) > 20
