"""Several runs from one file: stages in a row, seeds side by side, resumed at the first one that is not finished."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vision.engine.config import Config
from vision.engine.distributed import World
from vision.engine.errors import ConfigError, UserError
from vision.engine.files import make_folder, read_json, to_json, write_atomically, write_json
from vision.engine.merging import put
from vision.engine.mistakes import dotted, shown
from vision.engine.references import Reference, fill, references_in
from vision.engine.registry import build, find
from vision.engine.run import RunFolder, changed_keys
from vision.engine.signature import signature_of
from vision.engine.sources import node_of
from vision.engine.summary import over_seeds

log = logging.getLogger(__name__)

Train = Callable[[Config, Path, bool], dict[str, Any]]
"""Trains one recipe into a folder, resuming or not. What it returns is the stage's result, or holds it as ``result``;
an empty ``finished`` in it says that training was interrupted."""

DONE = "done.json"
"""The file that a finished stage's folder holds: its result, and the configuration it came from."""

SOURCES = ".sources.json"
"""The file that a begun stage's folder holds: digests of the results it starts from."""


@dataclass(frozen=True)
class Stage:
    """One run of a pipeline.

    Attributes:
        name: its folder below the pipeline's: ``tem``, ``seed1`` or ``seed1/tem``.
        config: its configuration; references to earlier stages are not yet filled.
        seed: the one of ``seeds`` it has, or None.
    """

    name: str
    config: Config
    seed: int | None = None

    @property
    def stage(self) -> str:
        """The stage's name in the file, the same for every seed; the recipe's own where there are only seeds."""
        return self.config.name

    def beside(self, stage: str) -> str:
        """The name of another stage of the same seed."""
        return f"{self.name.rpartition('/')[0]}/{stage}".removeprefix("/")


def plan(config: Config) -> list[Stage]:
    """The runs a configuration stands for, in order: every stage with the first seed, then with the next.

    Raises:
        ConfigError: one line for each mistake in any stage.
    """
    config.check()
    if not config.is_pipeline:
        return [Stage(config.name, config)]
    stages = []
    seeds: list[int | None] = [*config.seeds] or [None]
    for seed in seeds:
        folder = "" if seed is None else f"seed{seed}"
        for inner in config.stages():
            inner = inner if seed is None else with_seed(inner, seed)
            parts = [folder] if "stages" not in config.tree else [folder, inner.name]
            stages.append(Stage("/".join(part for part in parts if part), inner, seed))
    return stages


def with_seed(config: Config, seed: int) -> Config:
    """A recipe with another seed, or a step whose constructor takes a ``seed``."""
    parts = ["seed"]
    if config.is_step:
        if "seed" not in signature_of(find(config.tree["step"]["type"]).factory).fields:
            return config
        parts = ["step", "seed"]
    node = put(config.node, parts, node_of(seed, config.where(("seed",))))
    assert isinstance(node.value, dict)
    return Config(replace(node, value={key: item for key, item in node.value.items() if key != "seeds"}))


def run_pipeline(
    config: Config,
    train: Train,
    folder: Path,
    resume: bool = False,
    world: World | None = None,
    dry: bool = False,
) -> dict[str, Any]:
    """Runs the stages that are not finished, each in its own run folder below ``folder``.

    Args:
        config: with stages, seeds or both.
        train: trains one recipe.
        folder: of the pipeline; ``config.yaml`` and ``summary.json`` go there.
        resume: go on with what is there.
        world: the processes; a step runs in the first one only.
        dry: where a step has a ``rehearse(folder)``, a short form of its ``run``, that is run.

    Returns:
        What ``summary.json`` holds: ``stages`` with their results, and ``table``: for each stage and figure the mean
        and standard deviation (n - 1) over seeds.

    Raises:
        ConfigError: a mistake in a stage; or a finished stage had another configuration, or was made from another
            result of a stage it refers to.
        UserError: ``folder`` is taken, or a stage fails.
    """
    stages = plan(config)
    world = world or World(torch.device("cpu"))
    _on_main(world, lambda: _open(config, folder, resume, stages))
    done: dict[str, dict[str, Any]] = {}
    for position, stage in enumerate(stages, 1):
        record = _on_main(world, partial(_finished, stage, folder / stage.name, done))
        if record is None:
            log.info("stage %d of %d: %s", position, len(stages), stage.name)
            record = _run(stage, folder, train, resume, world, done, dry)
        if record is None:
            log.info("%s: interrupted in stage %s; --resume goes on from there", config.name, stage.name)
            break
        done[stage.name] = record
    return _on_main(world, lambda: _summarise(config, folder, stages, done))


def _on_main(world: World, action: Callable[[], Any]) -> Any:
    """What ``action`` returns in the first process, in every process."""
    box: list[Any] = []
    world.first(lambda: box.append(action()))
    return world.share(box[0] if box else None)


def _open(config: Config, folder: Path, resume: bool, stages: list[Stage]) -> None:
    file = RunFolder(folder).config
    if file.is_file() and not resume:
        raise UserError(f"{folder} exists: add --resume to go on or choose another name=...")
    make_folder(folder)
    if not file.is_file() and (strange := sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))):
        raise UserError(f"{folder} exists and is no pipeline's folder (it holds {strange[0]}): choose another name=...")
    for stage in stages:
        _require_unchanged(stage, folder / stage.name)
    if resume:
        RunFolder(folder).remove_temporaries()
    _write_config(config, file)


def _write_config(config: Config, file: Path) -> None:
    write_atomically(file, f"# sha256: {config.hash}\n{config.yaml}".encode())


def _require_unchanged(stage: Stage, folder: Path) -> None:
    if not (folder / DONE).is_file():
        return
    record = read_json(folder / DONE)
    if record["config_sha256"] != stage.config.hash:
        changed = "; ".join(
            f"{key} was {shown(before)}, now {shown(now)}"
            for key, before, now in changed_keys(record["config"], stage.config.tree)
        )
        raise ConfigError(
            f"stage '{stage.name}' is finished and its recipe has changed: {changed}. "
            f"Undo the change, or delete {folder} to run it again"
        )


def _finished(stage: Stage, folder: Path, done: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """What a finished stage left, or None."""
    file = folder / DONE
    if not file.is_file():
        return None
    record: dict[str, Any] = read_json(file)
    _require_same_sources(stage, folder, record["from"], _sources(stage, done))
    return record


def _require_same_sources(stage: Stage, folder: Path, before: dict[str, str], now: dict[str, str]) -> None:
    for earlier, digest in now.items():
        if before.get(earlier) != digest:
            raise ConfigError(
                f"stage '{stage.name}' was made from another result of '{earlier}'; delete {folder} to run it again"
            )


def _begin(stage: Stage, folder: Path, sources: dict[str, str]) -> bool:
    """Notes what a training stage starts from; whether it was begun before."""
    note = folder / SOURCES
    begun = RunFolder(folder).config.is_file()
    if begun and note.is_file():
        _require_same_sources(stage, folder, read_json(note), sources)
    make_folder(folder)
    write_json(note, sources)
    return begun


def _sources(stage: Stage, done: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Digests of the earlier stages that a stage refers to."""
    names = dict.fromkeys(stage.beside(reference.stage) for reference in references_in(stage.config.tree))
    return {name: hashlib.sha256(to_json(done[name]).encode()).hexdigest() for name in names}


def _run(
    stage: Stage,
    folder: Path,
    train: Train,
    resume: bool,
    world: World,
    done: dict[str, dict[str, Any]],
    dry: bool = False,
) -> dict[str, Any] | None:
    """Runs a stage; what it leaves, or None where it was interrupted."""
    place = folder / stage.name
    filled = Config(fill(stage.config.node, lambda reference: _look_up(reference, stage, folder, done)))
    if stage.config.is_step:
        outcome = _on_main(world, lambda: _run_step(filled, place, dry))
    else:
        filled.recipe()
        begun = _on_main(world, lambda: _begin(stage, place, _sources(stage, done)))
        outcome = train(filled, place, resume and begun)
        if not outcome.get("finished", True):
            return None
    record = {
        "config_sha256": stage.config.hash,
        "config": stage.config.tree,
        "from": _sources(stage, done),
        "result": outcome.get("result", outcome),
    }

    def write() -> Any:
        write_json(place / DONE, record)
        return read_json(place / DONE)  # what a resumed pipeline will see

    written: dict[str, Any] = _on_main(world, write)
    return written


def _run_step(config: Config, folder: Path, dry: bool) -> dict[str, Any]:
    make_folder(folder)
    _write_config(config, RunFolder(folder).config)
    step = build(config.tree["step"], "step")
    run = getattr(step, "rehearse", step.run) if dry else step.run
    outcome: dict[str, Any] = run(folder)
    return outcome


def _look_up(reference: Reference, stage: Stage, folder: Path, done: dict[str, dict[str, Any]]) -> Any:
    name = stage.beside(reference.stage)
    run, what = RunFolder(folder / name), reference.what
    where = f"{stage.config.where(reference.place)}: {dotted(reference.place)}: {reference.text}"
    if what == ("run",):
        return str(run.path)
    if what in (("best",), ("last",)):
        file = run.best if what == ("best",) else run.last
        if not file.is_file():
            others = [p.stem for p in (run.best, run.last) if p.is_file()]
            raise ConfigError(f"{where}: stage '{name}' left no such weights; it has {', '.join(others) or 'none'}")
        return str(file)
    value = done[name]["result"]
    for key in what[1:]:
        if not isinstance(value, dict) or key not in value:
            known = ", ".join(value) if isinstance(value, dict) else f"the value {shown(value)}"
            raise ConfigError(f"{where}: the result of '{name}' has no '{key}'; there is {known}")
        value = value[key]
    return value


def _summarise(config: Config, folder: Path, stages: list[Stage], done: dict[str, dict[str, Any]]) -> dict[str, Any]:
    ran = [stage for stage in stages if stage.name in done]
    summary = {
        "name": config.name,
        "config_sha256": config.hash,
        "finished": len(ran) == len(stages),
        "stages": [{"name": s.name, "stage": s.stage, "seed": s.seed, "result": done[s.name]["result"]} for s in ran],
        "table": over_seeds([(stage.stage, done[stage.name]["result"]) for stage in ran]),
    }
    write_json(RunFolder(folder).summary, summary)
    return summary
