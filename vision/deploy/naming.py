"""What is to be measured, in one word: ``WHAT[:a=b,...][@backend[-precision]]``."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision.deploy.shipped import shipped_models
from vision.engine.config import shipped_configs
from vision.engine.errors import ConfigError, nearest
from vision.engine.merging import parse_override, put
from vision.engine.registry import names
from vision.engine.sources import Node

BACKENDS = ("eager", "compiled", "onnxruntime", "aoti", "tensorrt")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
FILES = {".onnx": "onnxruntime", ".pt2": "aoti", ".engine": "tensorrt", ".plan": "tensorrt"}
"""What an exported file ends in, and the backend that runs it."""

_AT = re.compile(rf"^(?P<what>.+)@(?P<backend>[a-z]+)(?:-(?P<precision>{'|'.join(PRECISIONS)}))?$")


@dataclass(frozen=True)
class Name:
    """What is to be measured.

    Attributes:
        what: a registered network, a recipe, a run folder (of a network that ships too) or an exported file.
        kind: which of them: ``network``, ``recipe``, ``run`` or ``file``.
        options: ``a.b=c``: of a network's constructor, or changes to a recipe.
        backend: what runs it; None where the name does not say.
        precision: of its arithmetic; None where the name does not say.
    """

    what: str
    kind: str
    options: tuple[str, ...] = ()
    backend: str | None = None
    precision: str | None = None

    @property
    def short(self) -> str:
        """For tables."""
        what = Path(self.what).name if self.kind in ("run", "file") else self.what
        return f"{what}:{','.join(self.options)}" if self.options else what


def parse(text: str) -> Name:
    """Reads such a word.

    A name of several things is the registered network, or else the network that ships, or else the recipe.

    Args:
        text: for example ``mamkpd_l``, ``timm_pose:model=hrnet_w32@onnxruntime``, ``runs/digits_cnn@compiled-bf16``,
            ``model.onnx``.

    Raises:
        ConfigError: nothing is called so; an unknown backend or precision; options for what takes none.

    Example:
        >>> parse("cifar_resnet:depth=20@onnxruntime-int8")
        Name(what='cifar_resnet', kind='network', options=('depth=20',), backend='onnxruntime', precision='int8')
    """
    if Path(text).exists():
        return _of_path(Path(text), (), None, None)
    match = _AT.match(text)
    backend = match["backend"] if match else None
    if backend is not None and backend not in BACKENDS:
        raise ConfigError(
            f"'{text}': no backend '{backend}'{nearest(backend, BACKENDS)}; expected one of {', '.join(BACKENDS)}"
        )
    body = match["what"] if match else text
    what, _, rest = (body, "", "") if Path(body).exists() else body.partition(":")
    options, precision = tuple(_split(rest)), match["precision"] if match else None
    if Path(what).exists():
        return _of_path(Path(what), options, backend, precision)
    if what in names(kind="network"):
        return Name(what, "network", options, backend, precision)
    if what in (shipped := shipped_models()):
        return Name(str(shipped[what]), "run", options, backend, precision)
    if what.endswith((".yaml", ".yml")) or what in _recipes():
        return Name(what, "recipe", options, backend, precision)
    known = [*names(kind="network"), *shipped, *_recipes()]
    raise ConfigError(
        f"'{what}' is no registered network, network that ships, recipe, run folder or exported file"
        f"{nearest(what, known)}; networks: {', '.join(names(kind='network'))}"
    )


def _recipes() -> set[str]:
    return {key.rpartition("/")[2] for key in shipped_configs()} | set(shipped_configs())


def _of_path(path: Path, options: tuple[str, ...], backend: str | None, precision: str | None) -> Name:
    if path.is_dir():
        if not ((path / "config.yaml").is_file() or (path / "summary.json").is_file()):
            raise ConfigError(f"{path}: a folder without config.yaml; expected a run folder that tools/train.py made")
        return Name(str(path), "run", options, backend, precision)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return Name(str(path), "recipe", options, backend, precision)
    if suffix not in FILES:
        raise ConfigError(f"{path}: cannot be run; expected a file that ends in {', '.join(FILES)}, or a run folder")
    if options:
        raise ConfigError(f"{path}: an exported file takes no options ({', '.join(options)}); set them when exporting")
    if backend not in (None, FILES[suffix]):
        raise ConfigError(f"{path}: a {suffix} file is run by {FILES[suffix]}, not by {backend}")
    return Name(str(path), "file", (), FILES[suffix], precision)


def _split(text: str) -> list[str]:
    """Parts between commas that no bracket is around."""
    parts, depth, begun = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append(text[begun:place])
            begun = place + 1
    return [part.strip() for part in [*parts, text[begun:]] if part.strip()]


def block_of(name: Name) -> dict[str, Any]:
    """The block of a recipe that builds a registered network with the options of the name.

    Raises:
        ConfigError: an option that is no ``key=value``.
    """
    node = Node({"type": Node(name.what, "command line")}, "command line")
    for option in name.options:
        parts, value = parse_override(option)
        node = put(node, parts, value)
    block = node.tree()
    assert isinstance(block, dict)
    return block
