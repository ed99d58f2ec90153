"""Where distillers read a network: paths of its modules, by hooks, so that no network is edited."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.classification import CifarResNet, DigitsCNN, Normalised, PreActResNet
from vision.engine.errors import ConfigError, nearest


@dataclass(frozen=True)
class Taps:
    """What to read of a network.

    A path names a module by its place (``stages.1``), whose output is read. ``path:input`` reads its (first) input,
    ``path:relu`` puts a ReLU behind, ``one+other`` adds two.

    Attributes:
        stages: the outputs of the stages, ``[N, C, H, W]``, first to last.
        pooled: the vector before the classifier, ``[N, D]``; None takes the input of the last linear layer.
        stem: what enters the first stage; FSP reads it.
        preactivations: the stages before their last ReLU; AB reads them.
    """

    stages: tuple[str, ...] = ()
    pooled: str | None = None
    stem: str | None = None
    preactivations: tuple[str, ...] = ()

    def all(self) -> list[str]:
        """Every path."""
        found = [*self.stages, self.pooled, self.stem, *self.preactivations]
        return list(dict.fromkeys(path for path in found if path is not None))


@dataclass(frozen=True)
class Seen:
    """What a forward pass showed.

    Attributes:
        logits: ``[N, C]``.
        taps: what was read.
        features: by path.
    """

    logits: Tensor
    taps: Taps
    features: dict[str, Tensor]

    @property
    def stages(self) -> list[Tensor]:
        """The outputs of the stages."""
        return [self.features[path] for path in self.taps.stages]

    @property
    def preactivations(self) -> list[Tensor]:
        """The stages before their last ReLU."""
        return [self.features[path] for path in self.taps.preactivations]

    @property
    def pooled(self) -> Tensor:
        """The vector before the classifier, ``[N, D]``."""
        assert self.taps.pooled is not None
        return self.features[self.taps.pooled].flatten(1)

    @property
    def stem(self) -> Tensor:
        """What enters the first stage."""
        assert self.taps.stem is not None
        return self.features[self.taps.stem]

    def first(self, count: int) -> "Seen":
        """The same of the first ``count`` samples."""
        features = {path: value[:count] for path, value in self.features.items()}
        return Seen(self.logits[:count], self.taps, features)

    def in_float32(self) -> "Seen":
        """The same with numbers of half precision, as autocast gives them, as float32."""
        features = {path: _in_float32(value) for path, value in self.features.items()}
        return Seen(_in_float32(self.logits), self.taps, features)

    def detached(self) -> "Seen":
        """The same without gradients."""
        return Seen(self.logits.detach(), self.taps, {path: value.detach() for path, value in self.features.items()})


def _in_float32(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def look(network: nn.Module, taps: Taps, images: Tensor) -> Seen:
    """Runs a network and reads it on the way.

    A module that runs several times (a spiking network does, once a time step) gives the mean over them; so does one
    that runs all time steps at once.

    Args:
        network: gives logits ``[N, C]``.
        taps: what to read.
        images: ``[N, ...]``.

    Raises:
        ConfigError: a path that does not exist (with the nearest), or whose module did not run.
    """
    sources = dict.fromkeys(part for path in taps.all() for part in _sources(path))
    held: dict[str, list[Tensor]] = {source: [] for source in sources}
    with _hooked(network, held):
        # past torch.compile, which would leave out hooks that come and go
        logits = network.forward(images) if sources else network(images)
    for source, values in held.items():
        if not values:
            raise ConfigError(f"'{source}': this module of {type(network).__name__} did not run; choose another path")
    parts = {source: _over_time(values, len(images)) for source, values in held.items()}
    return Seen(logits, taps, {path: _combine(path, parts) for path in taps.all()})


def _sources(path: str) -> list[str]:
    return path.removesuffix(":relu").split("+")


def _combine(path: str, parts: dict[str, Tensor]) -> Tensor:
    first, *others = (parts[source] for source in _sources(path))
    for other in others:
        first = first + other
    return F.relu(first) if path.endswith(":relu") else first


def _over_time(values: list[Tensor], samples: int) -> Tensor:
    values = [_mean_over_time(value, samples) for value in values]
    return values[0] if len(values) == 1 else torch.stack(values).mean(0)


def _mean_over_time(value: Tensor, samples: int) -> Tensor:
    """``[N, ...]`` of values ``[T N, ...]``, as layers without a state have them that run all steps at once."""
    if len(value) > samples and len(value) % samples == 0:
        return value.unflatten(0, (-1, samples)).mean(0)
    return value


def _without_time(module: nn.Module, value: Tensor) -> Tensor:
    """``[T N, ...]`` of the ``[T, N, ...]`` that spiking layers and blocks have where they run all steps at once."""
    at_once = getattr(module, "step_mode", "s") == "m" or (getattr(module, "runs_sequences", False) and value.ndim == 5)
    return value.flatten(0, 1) if at_once else value


@contextmanager
def _hooked(network: nn.Module, held: dict[str, list[Tensor]]) -> Iterator[None]:
    handles = []
    try:
        for source in held:
            module = module_at(network, source.removesuffix(":input"))
            if source.endswith(":input"):
                handles.append(module.register_forward_pre_hook(_note_input(held[source])))
            else:
                handles.append(module.register_forward_hook(_note_output(held[source], source)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _note_input(into: list[Tensor]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    return lambda module, inputs: into.append(_without_time(module, inputs[0]))


def _note_output(into: list[Tensor], source: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor):
            raise ConfigError(f"'{source}': gives {type(output).__name__}, expected a tensor; choose another path")
        into.append(_without_time(module, output))

    return note


def module_at(network: nn.Module, path: str) -> nn.Module:
    """The module of that path.

    Raises:
        ConfigError: there is none; with the nearest names.
    """
    known = dict(network.named_modules())
    known.pop("", None)
    if path not in known:
        beginning = path.rpartition(".")[0]
        near = nearest(path, known) or f"; modules there: {', '.join(_children(network, known, beginning))}"
        raise ConfigError(f"'{path}': {type(network).__name__} has no such module{near}")
    return known[path]


def _children(network: nn.Module, known: dict[str, nn.Module], path: str) -> list[str]:
    home = known.get(path, network)
    return [name for name, _ in home.named_children()][:8] or ["none"]


def taps_of(network: nn.Module, chosen: Taps | None = None) -> Taps:
    """What to read of a network: the chosen paths, and the known ones of its kind for what is left out.

    Raises:
        ConfigError: a chosen path does not exist.
    """
    known = _known(network)
    chosen = chosen or Taps()
    taps = Taps(
        tuple(chosen.stages) or known.stages,
        chosen.pooled or known.pooled or _classifier_input(network),
        chosen.stem or known.stem,
        tuple(chosen.preactivations) or known.preactivations,
    )
    for path in taps.all():
        for source in _sources(path):
            module_at(network, source.removesuffix(":input"))
    return taps


def _classifier_input(network: nn.Module) -> str | None:
    names = [name for name, module in network.named_modules() if "linear" in type(module).__name__.lower() and name]
    return f"{names[-1]}:input" if names else None


def _known(network: nn.Module) -> Taps:
    if isinstance(network, Normalised):
        return _below("network", _known(network.network))
    own = getattr(network, "taps", None)
    if isinstance(own, Taps):
        return own
    if isinstance(network, PreActResNet):
        last = len(network.stages) - 1
        later = tuple(f"stages.{i + 1}.0.bn1" for i in range(last))
        return Taps(
            (*(f"stages.{i}" for i in range(last)), "norm:relu"), "linear:input", "stem", (*later, "norm"),
        )  # fmt: skip
    if isinstance(network, CifarResNet):
        before = [f"layer{i}.{len(getattr(network, f'layer{i}')) - 1}" for i in (1, 2, 3)]
        sums = tuple(f"{block}.bn2+{block}.shortcut" for block in before)
        return Taps(("layer1", "layer2", "layer3"), "linear:input", "bn1:relu", sums)
    if isinstance(network, DigitsCNN):
        places = [i for i, layer in enumerate(network.layers) if isinstance(layer, nn.ReLU)]
        before_relu = tuple(f"layers.{i - 1}" for i in places)
        return Taps(tuple(f"layers.{i}" for i in places), "linear:input", None, before_relu)
    return _of_timm(network)


def _of_timm(network: nn.Module) -> Taps:
    info = getattr(network, "feature_info", None)
    modules = dict(network.named_modules())
    names = [entry.get("module") for entry in info] if isinstance(info, list) else []
    return Taps(tuple(name for name in names if name in modules)[-4:])


def _below(prefix: str, taps: Taps) -> Taps:
    def under(path: str) -> str:
        return "+".join(f"{prefix}.{part}" for part in path.split("+"))

    return replace(
        taps,
        stages=tuple(map(under, taps.stages)),
        pooled=under(taps.pooled) if taps.pooled else None,
        stem=under(taps.stem) if taps.stem else None,
        preactivations=tuple(map(under, taps.preactivations)),
    )
