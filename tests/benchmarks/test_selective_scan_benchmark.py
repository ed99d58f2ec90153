"""The benchmark of the selective scan: what it times computes the same thing, and what it writes adds up."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import selective_scan as benchmark
from benchmarks.collect import check
from vision.ops.selective_scan.library import LIBRARY

pytestmark = pytest.mark.skipif("cpu" not in LIBRARY.devices, reason=f"no compiled kernels: {LIBRARY.reason}")

SMALL = benchmark.Case(2, 12, 37, 3, 2, (20, 15), (30, 25))


def test_every_way_computes_the_same_scan() -> None:
    inputs = benchmark.scan_inputs(SMALL)
    expected = benchmark.loop(*(t.double() for t in inputs)).float()
    ways = {"ours": benchmark.ours(*inputs), "two levels": benchmark.two_level(*inputs)}
    ways["channels first"] = benchmark.ours_channels_first(*benchmark.channels_first(inputs)).transpose(1, 2)
    for name, found in ways.items():
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    errors = benchmark.errors_of(inputs)
    assert "cpu-baseline" in errors
    assert 0 < max(errors.values()) < 1e-6


def test_the_rows_hold_ratios_of_what_was_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "CASES", (SMALL,))
    monkeypatch.setattr(benchmark, "IMAGES", ((1, 20, 5, 2, (2.0, 4.0)),))
    monkeypatch.setattr(benchmark, "keep_freed_memory", lambda: None)  # it would last as long as the process
    monkeypatch.setattr(benchmark, "copy_rate", lambda: 1e10)
    monkeypatch.setattr(benchmark, "multiply_add_rate", lambda: 1e10)
    threads = torch.get_num_threads()
    try:
        assert benchmark.main(["-o", str(tmp_path / "result.json"), "--rounds", "1"]) == 0
    finally:
        torch.set_num_threads(threads)
    document = json.loads((tmp_path / "result.json").read_text())
    check(document, "result")
    aims = {(row["against"], row["aim"], row["stretch"]) for row in document["rows"] if row["aim"] is not None}
    assert aims == {
        ("loop over steps (unbind)", 1 / 20, 0.03333),
        ("loop over steps (unbind)", 0.06667, 1 / 25),
        ("unfused, our scan", 1 / 2, 1 / 4),
    }
    assert len(document["errors"]) == len(benchmark.instruction_sets())
    assert all(0 < error["value"] < error["aim"] for error in document["errors"])
    assert {row["against"] for row in document["rows"]} >= {
        "loop over steps (unbind)",
        "two-level scan",
        "floor of memory",
        "floor of multiply-adds",
        "unfused, our scan",
    }
    for row in document["rows"]:
        assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"], rel=0.2, abs=0.01)
    assert "largest relative L2 error against float64" in capsys.readouterr().out
