"""``triptych``: one name for the tools."""

import subprocess
import sys
from importlib import import_module

import pytest

from triptych.__main__ import COMMANDS, main
from vision.engine.errors import UserError


def _triptych(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "triptych", *arguments], capture_output=True, text=True, check=False)


def test_help_lists_every_command_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    _, _, listing = capsys.readouterr().out.partition("commands:\n")
    assert [line.split()[0] for line in listing.splitlines()] == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_leads_to_a_tool_that_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["triptych"])
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code in (0, None)
    assert f"triptych {name}" in capsys.readouterr().out


def test_a_tool_gets_its_arguments_and_returns_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def tool(argv: list[str]) -> int:
        given.append(argv)
        return 7

    monkeypatch.setattr(sys, "argv", ["triptych"])
    monkeypatch.setattr(import_module("triptych.train"), "main", tool)
    assert main(["train", "recipe.yaml", "seed=1"]) == 7
    assert given == [["recipe.yaml", "seed=1"]]


def test_an_unknown_command_is_the_users_mistake_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"no command 'trian' \(did you mean 'train'\?\)"):
        main(["trian"])


def test_mistakes_end_with_status_2_and_one_line() -> None:
    for arguments in (["trian"], []):
        done = _triptych(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: no command")
        assert len(done.stderr.splitlines()) == 1
