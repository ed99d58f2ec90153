"""The run folder: where a run keeps its configuration, environment, figures, checkpoints and results."""

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vision.engine.environment import environment
from vision.engine.errors import ConfigError, UserError
from vision.engine.files import make_folder, read_json, read_text, write_atomically, write_json

log = logging.getLogger(__name__)

_HASH_LINE = re.compile(r"#\s*sha256:?\s*(\w+)")


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; every path in it has its name here and nowhere else.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def create(cls, path: str | Path, config_yaml: str, config_hash: str, resume: bool = False) -> "RunFolder":
        """Makes the folder of a new run, or opens that of a run to go on with.

        Args:
            path: the folder; the folders above it are made too.
            config_yaml: the resolved recipe.
            config_hash: SHA-256 of the recipe, kept in the first line of ``config.yaml``.
            resume: go on with the run that is there. Where there is none, a new one begins, and the log says so.

        Raises:
            UserError: a run is there and ``resume`` was not asked for; something else is there; or it cannot be made.
            ConfigError: the run that is there had another recipe; the keys that differ are listed.
        """
        run = cls(Path(path))
        if run.config.is_file():
            if not resume:
                raise UserError(f"{run.path} exists: add --resume to go on or choose another name=...")
            run._require_same(config_yaml, config_hash)
            run.remove_temporaries()
            return run
        run._make()
        if resume:
            run.remove_temporaries()
        write_atomically(run.config, f"# sha256: {config_hash}\n{config_yaml}".encode())
        if resume:
            log.info("%s: no run to resume there; it starts from the beginning", run.path)
        return run

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def config(self) -> Path:
        """The resolved recipe."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """What the run was made with."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """Every figure over time, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of weights and resumable state."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The newest weights."""
        return self.checkpoints / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights that scored best on the validation split."""
        return self.checkpoints / "best.safetensors"

    @property
    def resume_state(self) -> Path:
        """What, with :attr:`last`, training goes on from."""
        return self.checkpoints / "last.resume"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def report(self) -> Path:
        """The page made of this folder."""
        return self.path / "report.html"

    @property
    def summary(self) -> Path:
        """A pipeline's results by stage."""
        return self.path / "summary.json"

    def eval_dir(self, name: str) -> Path:
        """The folder of one evaluation, made when it is not there.

        Args:
            name: a split, or what the user called the evaluation.

        Raises:
            UserError: ``name`` is no plain folder name, or the folder cannot be made.
        """
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise UserError(f"'{name}' cannot name an evaluation: use letters, digits and any of _ . + -")
        folder = self.path / "eval" / name
        make_folder(folder)
        return folder

    @property
    def config_hash(self) -> str:
        """The SHA-256 in the first line of ``config.yaml``.

        Raises:
            ConfigError: the file is not there or begins otherwise.
        """
        text = read_text(self.config)
        match = _HASH_LINE.match(text)
        if match is None:
            raise ConfigError(f"{self.config}:1: expected '# sha256: ...'; this file was not written by a run")
        return match[1]

    def write_environment(self) -> None:
        """Notes :func:`environment`; of a resumed run, beside what it began with, under ``resumed``.

        Raises:
            UserError: it cannot be written.
        """
        now = environment()
        if self.environment.is_file():
            first = read_json(self.environment)
            now = {**first, "resumed": [*first.get("resumed", []), now]}
        write_json(self.environment, now)

    def _make(self) -> None:
        make_folder(self.path)
        strange = sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))
        if strange:
            raise UserError(
                f"{self.path} exists and is no run folder (it holds {strange[0]}, no config.yaml): "
                "choose another name=..."
            )
        make_folder(self.checkpoints)

    def _require_same(self, config_yaml: str, config_hash: str) -> None:
        if self.config_hash == config_hash:
            return
        before, now = yaml.safe_load(read_text(self.config)), yaml.safe_load(config_yaml)
        differences = changed_keys(before or {}, now or {})
        changed = [f"{key} was {_shown(then)}, now {_shown(given)}" for key, then, given in differences]
        listed = "; ".join(changed[:8]) + (f"; and {len(changed) - 8} more" if len(changed) > 8 else "")
        raise ConfigError(
            f"{self.path} was started with another recipe: {listed or 'config.yaml was edited'}. "
            "Undo the change to resume, or choose another name=..."
        )

    def remove_temporaries(self) -> None:
        """Removes what a killed process left half-written."""
        for leftover in self.path.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)


_MISSING = "(absent)"


def _shown(value: Any) -> str:
    if value is _MISSING:
        return _MISSING
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def changed_keys(before: Any, now: Any, at: str = "") -> list[tuple[str, Any, Any]]:
    """Where two trees of dictionaries differ: (dotted key, value before, value now), by key.

    A key that one side lacks has the value ``(absent)`` there.

    Example:
        >>> changed_keys({"trainer": {"epochs": 1}}, {"trainer": {"epochs": 2}, "seed": 1})
        [('seed', '(absent)', 1), ('trainer.epochs', 1, 2)]
    """
    if isinstance(before, dict) and isinstance(now, dict):
        found: list[tuple[str, Any, Any]] = []
        for key in sorted({*before, *now}, key=str):
            inside = f"{at}.{key}" if at else str(key)
            found += changed_keys(before.get(key, _MISSING), now.get(key, _MISSING), inside)
        return found
    return [] if before == now else [(at, before, now)]
