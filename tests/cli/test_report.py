"""tools/report.py: writes the page and the card, says where, and refuses what is no run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.report import main

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "config.yaml").write_text("# sha256: 12ab\nname: a\nseed: 0\ntask: {type: x}\ndata: {type: y}\n")
    return folder


def test_page_and_card_in_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--card"]) == 0
    assert capsys.readouterr().out.split() == [str(run / "report.html"), str(run / "card.md")]
    assert "<title>a</title>" in (run / "report.html").read_text()
    assert (run / "card.md").read_text().startswith("# a\n")


def test_output_is_where_it_is_asked_for(run: Path, tmp_path: Path) -> None:
    assert main([str(run), "-o", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").is_file()
    assert not (run / "report.html").exists()


def test_a_network_that_ships_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["stop_digits", "--card"]) == 0
    assert "<title>stop_digits</title>" in Path("shipped/stop_digits/report.html").read_text()
    assert Path("shipped/stop_digits/card.md").read_text().startswith("# stop_digits\n")


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, str(CHECKOUT / "tools" / "report.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(call, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_command_of_several_writes_here(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "b"
    other.mkdir()
    (other / "config.yaml").write_text((run / "config.yaml").read_text().replace("name: a", "name: b"))
    done = command("a", "b", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "report.html\n", "")
    assert "<title>2 runs</title>" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing",), "error: nothing: no such file or folder; expected a run's folder; with the package come"),
        ((), "usage: report.py"),
    ],
)
def test_mistakes_have_status_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert "Traceback" not in done.stderr
