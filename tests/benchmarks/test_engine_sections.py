"""The table of engines: what was built, what was not and why, and no word of their having been run."""

from typing import Any

import pytest

from benchmarks.collect import check
from benchmarks.engine_sections import engines_block
from benchmarks.tensorrt_builds import document_of, main
from vision.engine.errors import ConfigError, DataError

BUILT = {
    "network": "Net, 32x32", "graph": "model", "precision": "fp16", "scan_form": "scan", "nodes": 1234,
    "sizes": {"N": [1, 2, 16]}, "built": True, "layers": 4321, "seconds": 1.254, "bytes": 3 << 20, "said": "",
}  # fmt: skip
FAILED = {**BUILT, "graph": "step", "scan_form": None, "sizes": {}, "built": False, "layers": None, "seconds": None,
          "bytes": None, "said": "cannot build __m: a | b"}  # fmt: skip


def made(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return document_of(rows, "1.7")


def test_every_row_is_told() -> None:
    document = made([BUILT, FAILED])
    check(document, "engines")
    text = engines_block("name", {"name": document})
    assert "| Net, 32x32, scan | `model` | fp16 | N 1:2:16 | 1,234 | 4,321 | 1.25 | 3 |" in text
    assert "| Net, 32x32 | `step` | fp16 | fixed | 1,234 | – | – | – |" in text
    assert "- Net, 32x32, fp16: cannot build \\_\\_m: a \\| b" in text
    assert "Built, not run" in text and "tensorrt-rtx 1.7" in text and "no GPU" in text
    assert "**Not built:**" not in engines_block("name", {"name": made([BUILT])})
    assert "**Not tried yet:** ResNet-20, 32x32; TBC-Net lite" in text
    assert "Not built yet" in engines_block("name", {})


def test_a_document_cannot_claim_that_engines_were_run() -> None:
    with pytest.raises(DataError, match="run"):
        check({**made([BUILT]), "run": True}, "engines")


def test_an_unknown_network_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"--only 'MamKPD-X' \(did you mean 'MamKPD-"):
        main(["--only", "MamKPD-X"])
