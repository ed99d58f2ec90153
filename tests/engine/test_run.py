"""The run folder: made once, resumed only with the same recipe, files written whole or not at all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from vision.engine.environment import environment, git_commit, machine_summary
from vision.engine.errors import ConfigError, UserError
from vision.engine.files import read_json, replacing, to_json, write_atomically, write_json
from vision.engine.run import RunFolder, changed_keys

RECIPE = "name: a\ntrainer:\n  epochs: 3\n"


def test_create_writes_recipe_under_its_hash(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "runs" / "a", RECIPE, "abc123")
    assert run.config.read_text() == "# sha256: abc123\n" + RECIPE
    assert run.config_hash == "abc123"
    assert run.name == "a"
    assert run.checkpoints.is_dir()


def test_create_refuses_a_run_that_is_there(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "a", RECIPE, "abc123")
    with pytest.raises(UserError, match=r"exists: add --resume to go on or choose another name="):
        RunFolder.create(tmp_path / "a", RECIPE, "abc123")


def test_resume_opens_the_run_and_removes_leftovers(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "a", RECIPE, "abc123")
    leftover = run.checkpoints / ".last.safetensors.123.tmp"
    leftover.write_bytes(b"half")
    run.last.write_bytes(b"whole")
    assert RunFolder.create(tmp_path / "a", RECIPE, "abc123", resume=True) == run
    assert not leftover.exists()
    assert run.last.read_bytes() == b"whole"


def test_resume_with_another_recipe_lists_what_changed(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "a", RECIPE, "abc123")
    with pytest.raises(ConfigError, match=r"trainer\.epochs was 3, now 5.*Undo the change"):
        RunFolder.create(tmp_path / "a", RECIPE.replace("3", "5"), "def456", resume=True)


def test_resume_of_nothing_begins_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run = RunFolder.create(tmp_path / "a", RECIPE, "abc123", resume=True)
    assert run.config.is_file()
    assert "starts from the beginning" in caplog.text


def test_create_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"no run folder \(it holds cat\.jpg"):
        RunFolder.create(tmp_path / "photos", RECIPE, "abc123")


def test_create_takes_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert RunFolder.create(tmp_path / "a", RECIPE, "abc123").config.is_file()


def test_create_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a: the folder cannot be made: Not a directory"):
        RunFolder.create(tmp_path / "file" / "a", RECIPE, "abc123")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_create_in_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be made"):
        RunFolder.create(tmp_path / "a", RECIPE, "abc123")
    tmp_path.chmod(0o700)


def test_config_hash_of_a_file_by_hand(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: a\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:1: expected '# sha256"):
        _ = RunFolder(tmp_path).config_hash


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden"])
def test_eval_dir_stays_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot name an evaluation"):
        RunFolder(tmp_path).eval_dir(name)


def test_eval_dir_is_made(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path).eval_dir("test-eps0.03")
    assert folder.is_dir()
    assert folder == tmp_path / "eval" / "test-eps0.03"


def test_environment_is_kept_when_resumed(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "a", RECIPE, "abc123")
    run.write_environment()
    first = read_json(run.environment)
    run.write_environment()
    run.write_environment()
    after = read_json(run.environment)
    assert len(after.pop("resumed")) == 2
    assert after == first


def test_environment_tells_the_truth() -> None:
    found = environment()
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert found["command"] == sys.argv
    assert found["threads"] == torch.get_num_threads()
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert len(found["gpus"]) == torch.cuda.device_count()
    assert json.loads(to_json(found)) == found
    assert machine_summary().items() <= {**found, "torch": torch.__version__}.items()


def test_git_commit_is_that_of_the_checkout() -> None:
    root = Path(__file__).resolve().parents[2]
    call = ["git", "-C", str(root), "rev-parse", "HEAD"]
    asked = subprocess.run(call, capture_output=True, text=True, check=False) if (root / ".git").exists() else None
    found = git_commit()
    if asked is None or asked.returncode != 0:
        assert found is None
    else:
        assert found is not None
        assert found.removesuffix("+changes") == asked.stdout.strip()


def test_measuring_is_no_change_to_the_checkout(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("README.md", "docs/page.md", "benchmarks/results/a.json", "vision/code.py")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("before")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for call in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "first")):
        subprocess.run(["git", "-C", str(tmp_path), *call], check=True)
    for file in files[:3]:
        file.write_text("after")
    unchanged = git_commit(tmp_path)
    assert unchanged is not None and len(unchanged) == 40
    files[3].write_text("after")
    assert git_commit(tmp_path) == f"{unchanged}+changes"


def test_to_json_is_standard() -> None:
    value = {"a": float("inf"), "b": np.float32(0.5), "c": torch.tensor([1, 2]), "d": Path("x"), 3: (True, None)}
    assert to_json(value) == '{"a": null, "b": 0.5, "c": [1, 2], "d": "x", "3": [true, null]}'


def test_read_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{\n"a": 1,\n')
    with pytest.raises(UserError, match=r"result\.json:3: is not JSON"):
        read_json(path)
    with pytest.raises(UserError, match=r"nothing\.json: cannot be read: No such file"):
        read_json(tmp_path / "nothing.json")


def test_changed_keys_against_flattening() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "d": None, "e": {"f": {}}}
    now = {"a": {"b": 1, "c": [1, 3]}, "d": 0, "e": {"f": {"g": 2}}, "h": "new"}
    assert changed_keys(before, now) == [
        ("a.c", [1, 2], [1, 3]),
        ("d", None, 0),
        ("e.f.g", "(absent)", 2),
        ("h", "(absent)", "new"),
    ]
    assert changed_keys(now, now) == []


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write_atomically(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_bytes(b"new")
        _ = 1 / 0
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights"]


LIMITED = """
import resource, sys
from pathlib import Path
from vision.engine.errors import UserError
from vision.engine.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(Path(sys.argv[1]), b"x" * 5000)
except UserError as error:
    print(error)
"""


def _python(code: str, *arguments: str) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[2]
    environ = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, env=environ)


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits")
def test_a_full_disk_names_the_file_and_leaves_no_litter(tmp_path: Path) -> None:
    """The kernel refuses to let the file grow, as on a full disk."""
    path = tmp_path / "weights"
    path.write_bytes(b"old")
    said, _ = _python(LIMITED, str(path)).communicate(timeout=120)
    assert said.strip() == f"{path}: cannot be written: File too large"
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights"]


REWRITE = """
import sys
from pathlib import Path
from vision.engine.files import write_atomically
path, number = Path(sys.argv[1]), 0
while True:
    number += 1
    write_atomically(path, str(number % 10).encode() * 3_000_000)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_kill_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    process = _python(REWRITE, str(path))
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    data = path.read_bytes()
    assert len(data) == 3_000_000
    assert len(set(data)) == 1


def test_write_json_round_trip(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, 2.5, "x"]})
    assert read_json(tmp_path / "a.json") == {"é": [1, 2.5, "x"]}
