"""What every test stands on: one thread a process, where real data lies, and a word on what was skipped without it."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that would download is wrong, and says so at once

import pytest
import torch

torch.set_num_threads(1)

CHECKOUT = Path(__file__).resolve().parents[1]
NO_DATA = "no real data"


def _folder(variable: str, fallback: Path) -> Path:
    """The folder that an environment variable names, else the one beside the checkout; skips where there is none."""
    named = os.environ.get(variable)
    folder = Path(named).expanduser().resolve() if named else fallback
    if folder.is_dir():
        return folder
    if named:
        pytest.fail(f"{variable}={named} is not a folder; correct it or unset it", pytrace=False)
    pytest.skip(f"{NO_DATA}: set {variable} to its folder")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Where the real data sets lie: ``TRIPTYCH_DATA``, else ``../shared/data`` beside the checkout."""
    return _folder("TRIPTYCH_DATA", CHECKOUT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Where the golden arrays lie: ``TRIPTYCH_GOLDEN``, else ``../shared/golden`` beside the checkout."""
    return _folder("TRIPTYCH_GOLDEN", CHECKOUT.parent / "shared" / "golden")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for real data is a ``data`` test, marked so or not."""
    for item in items:
        if {"data_root", "golden_root"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.data)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line on the tests that did not run because real data is missing."""
    skipped = terminalreporter.stats.get("skipped", [])
    without_data = [report for report in skipped if NO_DATA in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} tests were skipped, {len(without_data)} of them for want of real data"
        )
