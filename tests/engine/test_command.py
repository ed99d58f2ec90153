"""Commands: one error line and status 2 for a mistake, a traceback and 1 for a fault."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vision.engine import command
from vision.engine.command import run_command
from vision.engine.errors import ConfigError


def status_of(error: BaseException | int | None) -> int:
    def main(argv: list[str] | None) -> int | None:
        assert argv == ["a"]
        if isinstance(error, BaseException):
            raise error
        return error

    with pytest.raises(SystemExit) as ended:
        run_command(main, ["a"])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3), (KeyboardInterrupt(), 130)])
def test_status(returned: BaseException | int | None, status: int) -> None:
    assert status_of(returned) == status


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(ConfigError("recipe.yaml:3: no such key")) == 2
    assert capsys.readouterr() == ("", "error: recipe.yaml:3: no such key\n")


def test_a_fault_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(ZeroDivisionError("division by zero")) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "ZeroDivisionError: division by zero" in said
    assert said.endswith("this is a fault of triptych, please report it with the lines above\n")


def _run(code: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    call = f'cd "{root}" && "{sys.executable}" -c "{code}" {shell}'
    return subprocess.run(["bash", "-c", call], capture_output=True, text=True, check=False, timeout=120)


def test_logs_go_to_standard_error() -> None:
    done = _run(
        "import logging; from vision.engine.command import run_command; "
        "log = lambda argv: (logging.getLogger('vision.x').info('hello'), logging.getLogger('other').info('no'), "
        "print('result')) and 0; run_command(log)"
    )
    assert done.returncode == 0
    assert done.stdout == "result\n"
    assert done.stderr.endswith("hello\n")
    assert "no" not in done.stderr


@pytest.mark.parametrize(("size", "said"), [("1", "done\nPython's own end\n"), ("2", "done\n")])
def test_one_process_of_several_ends_at_once(monkeypatch: pytest.MonkeyPatch, size: str, said: str) -> None:
    """Gloo's threads would find Python gone, and now and then abort the process."""
    monkeypatch.setenv("WORLD_SIZE", size)
    done = _run(
        "import atexit; from vision.engine.command import run_command; "
        "atexit.register(lambda: print('Python\\'s own end')); run_command(lambda argv: print('done') or 3)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, said, "")


def test_a_reader_that_leaves_is_no_fault() -> None:
    done = _run(
        "from vision.engine.command import run_command; "
        "run_command(lambda argv: print('x' * 200000) or print('y' * 200000))",
        "| head -c 10; exit ${PIPESTATUS[0]}",
    )
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("error", "said", "whole"),
    [
        ("OSError(28, 'No space left on device')", "a background thread ended: [Errno 28] No space left on", False),
        ("ValueError('a fault')", "ValueError: a fault", True),
    ],
)
def test_a_thread_that_cannot_write_is_one_line_and_other_faults_are_whole(error: str, said: str, whole: bool) -> None:
    """As TensorBoard's thread on a full disk."""
    done = _run(
        "import threading\n"
        "from vision.engine.command import run_command\n"
        "def fail():\n"
        f"    raise {error}\n"
        "def main(argv):\n"
        "    thread = threading.Thread(target=fail)\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "run_command(main)"
    )
    assert done.returncode == 0
    assert " ".join(said.split()) in " ".join(done.stderr.split())
    assert ("Traceback" in done.stderr) is whole


def test_a_dead_worker_is_not_told_once_more_while_its_loader_is_put_away(capsys: pytest.CaptureFixture[str]) -> None:
    def told(message: str) -> str:
        failed = SimpleNamespace(exc_type=RuntimeError, exc_value=RuntimeError(message))
        command._ignored(failed)  # type: ignore[arg-type]
        return capsys.readouterr().err

    assert told("DataLoader worker (pid 7) is killed by signal: Killed.") == ""
