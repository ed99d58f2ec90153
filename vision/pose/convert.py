"""Checkpoints of the released DHRNet, CID and HRNet code, and this package's, into each other.

Released files are pickles; they are read as tensors only, so that no code in them runs. The networks here have the
released names, so that converting means to take off wrappers, to hold every name and shape against the network, and to
write the other format.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vision.engine.checkpoint import read_weights, save_weights
from vision.engine.errors import CheckpointError
from vision.engine.files import write_atomically
from vision.pose.dhrnet import BACKBONE, DHRNet
from vision.pose.hrnet import hrnet

Kind = Literal["dhrnet", "cid", "hrnet"]

NESTED = ("state_dict", "model_state_dict", "model", "best_state_dict", "net")
"""Keys under which training scripts keep a state dict beside an optimiser's."""

WRAPPERS = ("module.", "model.")
"""Prefixes that wrappers put before every name."""

HEADS = ("incre_modules", "downsamp_modules", "final_layer", "final_layers", "deconv_layers", "classifier", "head")
"""Parts of released HRNet files that come after the features; they are left out."""

WIDTHS = {32: "hrnet_w32", 48: "hrnet_w48", 18: "hrnet_w18", 40: "hrnet_w40", 44: "hrnet_w44", 64: "hrnet_w64"}
SMALL = {16: "hrnet_w18_small", 18: "hrnet_w18_small_v2"}
"""HRNets with fewer modules, by the width of their first branch."""

COUNTER = "num_batches_tracked"
"""BatchNorm's counter, which files before PyTorch 0.4.1 lack and which nothing here depends on."""


def read_released(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a released checkpoint, or in one of this package, without wrappers' prefixes.

    Args:
        path: ``.safetensors``, or anything that ``torch.save`` wrote (``.pth``, ``.pt``, ``.pth.tar``).

    Raises:
        CheckpointError: no such file, one that cannot be read as tensors and plain values, or one without a state dict.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_weights(path).tensors
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path}: truncated, or holds more than tensors and plain values, which is not loaded "
            f"({type(error).__name__}: {str(error).splitlines()[0]})"
        ) from error
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: holds no state dict, at the top or under {', '.join(NESTED)}")
    return unwrapped({str(name): tensor for name, tensor in content.items()})


def unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefix that a wrapper put before every name.

    Example:
        >>> list(unwrapped({"module.conv1.weight": torch.zeros(1)}))
        ['conv1.weight']
    """
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in tensors):
            return unwrapped({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    return tensors


def kind_of(tensors: Mapping[str, Tensor]) -> Kind:
    """What network a state dict is of, told from its names.

    Raises:
        CheckpointError: of none of these.
    """
    if any(name.startswith("gfd.dual_relation.") for name in tensors):
        return "dhrnet"
    if any(name.startswith("gfd.") for name in tensors):
        return "cid"
    if any(name.startswith("stage4.") for name in tensors):
        return "hrnet"
    raise CheckpointError(
        f"these are no weights of DHRNet, CID or HRNet: expected names such as gfd.conv_down.weight or "
        f"stage4.0.branches.0.0.conv1.weight, got {', '.join(list(tensors)[:3])}, ..."
    )


def backbone_of(tensors: Mapping[str, Tensor], prefix: str = "") -> str:
    """Timm's name of the HRNet that a state dict holds, told from the width and number of its modules.

    Raises:
        CheckpointError: a width that no HRNet of timm has.
    """
    first = tensors.get(f"{prefix}stage2.0.branches.0.0.conv1.weight")
    width = 0 if first is None else int(first.shape[0])
    modules = {name.removeprefix(prefix).split(".")[1] for name in tensors if name.startswith(f"{prefix}stage3.")}
    known = SMALL if len(modules) < 4 else WIDTHS
    if width not in known:
        raise CheckpointError(f"a first branch of {width} channels belongs to no HRNet of timm's")
    return known[width]


def network_for(tensors: Mapping[str, Tensor]) -> nn.Module:
    """A fresh network of the sizes that a state dict has.

    Raises:
        CheckpointError: it is of no network known here.
    """
    kind = kind_of(tensors)
    if kind == "hrnet":
        return hrnet(backbone_of(tensors))
    sizes = [tensors.get(f"gfd.{name}.weight") for name in ("heatmap_conv", "conv_down")]
    if any(size is None for size in sizes):
        raise CheckpointError("gfd.heatmap_conv.weight or gfd.conv_down.weight is missing, so sizes cannot be told")
    keypoints, channels = (int(size.shape[0]) for size in sizes if size is not None)
    return DHRNet(keypoints, backbone_of(tensors, BACKBONE), channels, dual_path=kind == "dhrnet")


@dataclass
class Fit:
    """How a state dict fits a network.

    Attributes:
        kind: of network.
        network: with the weights in it.
        missing: names that the network has and the file has not.
        unknown: names that the file has and the network has not.
        left_out: those of a head, which are not wanted.
        shapes: names whose shapes differ, with both shapes.
        counters: BatchNorm's counters that the file lacks.
    """

    kind: Kind
    network: nn.Module
    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    counters: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether every tensor of the network came from the file, and every wanted one of the file was used."""
        return not (self.missing or self.unknown or self.shapes)

    def lines(self) -> list[str]:
        """What to tell a user: one line a finding, every name listed."""
        parts = (
            ("missing, kept fresh", self.missing), ("unknown, not used", self.unknown),
            ("of another shape, kept fresh", self.shapes), ("part of a head, left out", self.left_out),
            ("counters of BatchNorm that the file lacks, set to 0", self.counters),
        )  # fmt: skip
        count = sum(p.numel() for p in self.network.parameters())
        return [f"{self.kind}, {count:,} parameters"] + [
            f"{what}: {len(names)} ({', '.join(names)})" for what, names in parts if names
        ]


def fitted(tensors: Mapping[str, Tensor], network: nn.Module, kind: Kind) -> Fit:
    """Loads what fits of ``tensors`` into ``network``, in place, and tells what did not."""
    own, fit = network.state_dict(), Fit(kind, network)
    used: dict[str, Tensor] = {}
    for name, value in own.items():
        if name not in tensors:
            (fit.counters if name.endswith(COUNTER) else fit.missing).append(name)
        elif tensors[name].shape != value.shape:
            fit.shapes.append(f"{name} {tuple(tensors[name].shape)} for {tuple(value.shape)}")
        else:
            used[name] = tensors[name]
    for name in tensors:
        if name not in own:
            (fit.left_out if kind == "hrnet" and name.split(".")[0] in HEADS else fit.unknown).append(name)
    network.load_state_dict({**own, **used})
    return fit


def convert(source: Path, target: Path, partial: bool = False) -> Fit:
    """Converts a checkpoint: to this package's where ``target`` ends in ``.safetensors``, else to the released form.

    Args:
        source: either form.
        target: is written; ``.safetensors``, or ``.pth`` or ``.pt`` for the released form (a bare state dict, as the
            released code loads it).
        partial: also where tensors are missing, unknown or of another shape.

    Returns:
        What fitted.

    Raises:
        CheckpointError: a file that cannot be read or written, or that does not fit and ``partial`` is not set; nothing
            is written then.
    """
    if target.suffix not in (".safetensors", ".pth", ".pt"):
        raise CheckpointError(
            f"{target}: expected a name ending in .safetensors (this package) or .pth (released code)"
        )
    tensors = read_released(source)
    network = network_for(tensors)
    fit = fitted(tensors, network, kind_of(tensors))
    if not fit.whole and not partial:
        findings = "\n  ".join(fit.lines()[1:])
        raise CheckpointError(f"{source}: does not fit; --partial converts it all the same\n  {findings}")
    if target.suffix == ".safetensors":
        save_weights(target, network, {"network": fit.kind, "converted_from": source.name})
    else:
        buffer = io.BytesIO()
        torch.save({name: tensor.clone() for name, tensor in network.state_dict().items()}, buffer)
        write_atomically(target, buffer.getvalue())
    return fit
