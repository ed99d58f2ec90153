"""What else ran, told from the system's own counters, and the warnings that follow."""

import pytest

from vision.deploy.conditions import BUSY, Conditions, busy_seconds, watched

QUIET = {"cores": 4, "threads": 1, "others": 0.0, "others_before": 0.0, "mhz": (3000.0, 3010.0)}


def conditions(**changed: object) -> Conditions:
    return Conditions(**(QUIET | changed))  # type: ignore[arg-type]


def test_a_quiet_machine_warns_of_nothing() -> None:
    assert conditions().warnings() == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"others": 4 * BUSY * 2}, "the machine was busy: other processes used 0.40 of 4 cores"),
        ({"others_before": 3.0}, "other processes used 3.00 of 4 cores"),
        ({"others": None, "others_before": None}, "does not tell what else ran"),
        ({"threads": 5}, "5 threads on 4 cores"),
        ({"mhz": (2000.0, 3000.0)}, "clock was not constant"),
    ],
)
def test_what_spoils_a_measurement_is_said(changed: dict[str, object], words: str) -> None:
    (found,) = conditions(**changed).warnings()
    assert words in found


def test_busy_ticks_are_all_but_idle_and_waiting() -> None:
    assert busy_seconds("cpu  1 2 4 1000 1000 8 16 32 64 128\ncpu0 9 9", hertz=1) == 1 + 2 + 4 + 8 + 16 + 32


def test_what_others_used_is_what_processors_did_less_what_we_did(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([(0.0, 100.0, 7.0), (2.0, 101.0, 7.0), (12.0, 116.0, 17.0)])  # time, all busy seconds, our own
    monkeypatch.setattr("vision.deploy.conditions._now", lambda: next(moments))
    with watched(2, settle=0.0) as found:
        pass
    assert found.others_before == 0.5
    assert found.others == (15 - 10) / 10
    assert found.threads == 2
    assert found.to_dict()["others"] == 0.5


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vision.deploy.conditions._now", lambda: None)
    with watched(1, settle=0.0) as found:
        pass
    assert found.others is None
    assert "does not tell" in found.warnings()[0]
