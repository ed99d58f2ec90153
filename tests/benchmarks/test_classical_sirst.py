"""The classical detectors on SIRST against the golden figures, through the script and back from its folders."""

from pathlib import Path

import pytest

from benchmarks.classical_sirst import main
from benchmarks.collect import collect, read_results

# Computed once with SciPy and once with scikit-image, which agreed: IoU, nIoU, Pd, Fa x 1e-6, Fa as older code has it.
GOLDEN = {
    "top_hat_9": (0.27510496, 0.52921063, 0.92395437, 639.0170, 634.70),
    "top_hat_5": (0.22518778, 0.42875082, 0.86311787, 388.8982, 383.20),
    "local_z_score": (0.30695642, 0.40386477, 0.80608365, 5.2137, 5.21),
}
FIGURES = ("IoU", "nIoU", "Pd", "Fa")


def assert_golden(metrics: dict[str, float], name: str) -> None:
    assert [metrics[figure] for figure in FIGURES] == pytest.approx(GOLDEN[name][:4], rel=2e-5)
    assert metrics["Fa_legacy"] == pytest.approx(GOLDEN[name][4], abs=0.005)


@pytest.mark.data
def test_the_script_measures_the_golden_figures(data_root: Path, tmp_path: Path) -> None:
    assert main(["--root", str(data_root / "sirst"), "-o", str(tmp_path)]) == 0
    records = collect([tmp_path / name for name in GOLDEN])["records"]
    for record in records:
        assert_golden(record["metrics"], record["recipe"])
        assert record["samples"] == 214
        assert record["data"]["root"] == "sirst"


def test_the_committed_figures_are_the_golden_ones() -> None:
    found = {r["recipe"]: r["metrics"] for r in read_results()["classical_sirst"]["records"]}
    assert set(found) == set(GOLDEN)
    for name, metrics in found.items():
        assert_golden(metrics, name)
