"""The data blocks of infrared recipes: a folder of real images, synthetic scenes, and target images for the SCM."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from torch.utils.data import Dataset

from vision.engine.data import DataModule, Sample
from vision.engine.errors import ConfigError, DataError
from vision.engine.exported import Given
from vision.engine.registry import register
from vision.infrared.backgrounds import procedural_background
from vision.infrared.data import SMALLEST_SCENE, Image, InfraredCrops, InfraredImages, InputTransform
from vision.infrared.exported import read_gray
from vision.infrared.reading import (
    InfraredSample,
    IRSTFolder,
    as_float,
    read_backgrounds,
    validation_split,
)
from vision.infrared.synthesis import SynthTargets, cut_targets, scm_scene
from vision.infrared.targets import SMALLEST_SIDE

Positive = Annotated[int, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]


@dataclass(kw_only=True, eq=False)
class InfraredData(DataModule):
    """What every infrared data block shares: crops, their synthetic share, and normalisation.

    Args:
        patch: side of a training crop, pixels.
        normalise: ``image`` by each image's own mean and deviation, ``dataset`` by ``mean`` and ``std``.
        mean: of gray values in [0, 1], for ``dataset``.
        std: of gray values in [0, 1], for ``dataset``.
        high_pass: append the high-pass channel; the network then needs ``in_channels: 2``.
        target_mode: train on the ``mask``, or on the ``intensity`` layer.
        targets: synthetic targets are ``gaussian`` blobs, or ``patch``: cut out of the training images.
        length: training samples an epoch; by default one an image.

    Raises:
        ConfigError: ``dataset`` without both statistics, or statistics that nothing uses.
    """

    patch: Annotated[int, Ge(SMALLEST_SIDE)] = 128
    normalise: Literal["image", "dataset"] = "image"
    mean: Share | None = None
    std: Annotated[float, Gt(0)] | None = None
    high_pass: bool = False
    target_mode: Literal["mask", "intensity"] = "mask"
    targets: Literal["gaussian", "patch"] = "gaussian"
    length: Positive | None = None

    def __post_init__(self) -> None:
        fixed = [name for name in ("mean", "std") if getattr(self, name) is not None]
        if self.normalise == "dataset" and len(fixed) < 2:
            raise ConfigError(
                "data.normalise is 'dataset', which needs data.mean and data.std, of gray values in [0, 1]"
            )
        if self.normalise == "image" and fixed:
            raise ConfigError(f"data.{fixed[0]} is given but data.normalise is 'image'; set data.normalise=dataset")

    @property
    def transform(self) -> InputTransform:
        """From an image in [0, 1] to what the network takes."""
        return InputTransform(self.normalise, self.mean, self.std, self.high_pass)

    def read(self, given: Given, name: str) -> Image:
        """What a user gives, as this data's own images are read: float32, shape ``[H, W]``, in [0, 1].

        Raises:
            DataError: as :func:`~vision.infrared.exported.read_gray`.
        """
        return read_gray(given, name)

    @property
    def in_channels(self) -> int:
        """Channels of the network's input."""
        return 2 if self.high_pass else 1


@register("infrared_folder")
@dataclass(kw_only=True, eq=False)
class InfraredFolder(InfraredData):
    """Real infrared images with masks, in the field's folder layout (:class:`~vision.infrared.reading.IRSTFolder`).

    Args:
        root: the folder with ``images/``, ``masks/`` and the split files.
        train_split: name of the training split.
        test_split: name of the test split; None has none. It is never used to choose anything.
        validation: share of the training split that is held out to choose the checkpoint on.
        split_seed: of what is held out; independent of the run's seed, so that runs compare.
        synthetic: ``mixed`` real and synthetic crops, ``none`` real alone, ``only`` synthetic alone.
        p_real: share of real crops in the mixture.
        p_target: probability with which a real crop contains a target pixel.
        procedural: share of synthetic scenes on procedural backgrounds.
        backgrounds: folder of target-free images for synthetic scenes; by default ``root/backgrounds`` if it exists.
        on_error: ``stop`` at images that cannot be used, naming them; ``skip`` leaves them out and logs them.
        bits: significant bits of files deeper than 8 bits.
    """

    root: str
    train_split: str = "train"
    test_split: str | None = "test"
    validation: Annotated[float, Gt(0), Lt(1)] = 0.2
    split_seed: Annotated[int, Ge(0)] = 7
    synthetic: Literal["mixed", "none", "only"] = "mixed"
    p_real: Share = 0.6
    p_target: Share = 0.5
    procedural: Share = 0.2
    backgrounds: str | None = None
    on_error: Literal["stop", "skip"] = "stop"
    bits: Annotated[int, Gt(0), Le(32)] | None = None

    def read(self, given: Given, name: str) -> Image:
        return read_gray(given, name, self.bits)

    def train(self) -> Dataset[Sample]:
        """Crops of the training split without what is held out."""
        samples = self._parts["train"]
        cutouts = (
            [c for s in samples for c in cut_targets(as_float(s.pixels), s.mask)] if self.targets == "patch" else []
        )
        return InfraredCrops(
            samples, self.patch, self.synthetic, self.p_real, self.p_target,
            SynthTargets(self.targets, cutouts), self._backgrounds(), self.procedural,
            self.target_mode, self.transform, length=self.length,
        )  # fmt: skip

    def val(self) -> Dataset[Sample]:
        """What is held out of the training split, at full size."""
        return InfraredImages(self._parts["val"], self.transform)

    def test(self) -> Dataset[Sample] | None:
        """The test split at full size."""
        if self.test_split is None:
            return None
        return InfraredImages(IRSTFolder(self.root, self.test_split, self.on_error, self.bits), self.transform)

    @cached_property
    def _parts(self) -> dict[str, list[InfraredSample]]:
        folder = IRSTFolder(self.root, self.train_split, self.on_error, self.bits)
        train, val = validation_split(folder.names, self.validation, self.split_seed)
        return {"train": folder.subset(train), "val": folder.subset(val)}

    def _backgrounds(self) -> list[Any]:
        if self.synthetic == "none":
            return []
        folder = Path(self.backgrounds) if self.backgrounds is not None else Path(self.root) / "backgrounds"
        if self.backgrounds is None and not folder.is_dir():
            return []
        return read_backgrounds(folder, self.bits)


@register("infrared_synthetic")
@dataclass(kw_only=True, eq=False)
class InfraredSynthetic(InfraredData):
    """Synthetic scenes on procedural backgrounds: no image is needed at all.

    Args:
        size: side of a validation or test scene, pixels.
        scenes: how many scenes validation and test have each; they are the same in every run.
    """

    size: Annotated[int, Ge(SMALLEST_SCENE)] = 256
    scenes: Positive = 40

    def train(self) -> Dataset[Sample]:
        """New scenes without end."""
        if self.targets == "patch":
            raise DataError("data.targets: 'patch' needs real images to cut from; use gaussian, or infrared_folder")
        return InfraredCrops(
            [], self.patch, "only", procedural=1.0, target_mode=self.target_mode, transform=self.transform,
            length=self.length,
        )  # fmt: skip

    def val(self) -> Dataset[Sample]:
        """Fixed scenes."""
        return InfraredImages(self._scenes("val", 1), self.transform)

    def test(self) -> Dataset[Sample] | None:
        """Other fixed scenes."""
        return InfraredImages(self._scenes("test", 2), self.transform)

    def _scenes(self, name: str, seed: int) -> list[InfraredSample]:
        synth, scenes = SynthTargets(), []
        for index in range(self.scenes):
            rng = np.random.default_rng((seed, index))
            scene = synth(rng, procedural_background(rng, self.size, self.size))
            scenes.append(InfraredSample(f"{name}_{index:03d}", scene.image, scene.mask))
        return scenes


class _TargetImages(Dataset[Sample]):
    """Target images with their number of targets: new ones while training, fixed ones with a ``seed``."""

    def __init__(self, length: int, size: int, intensity: bool, seed: int | None = None) -> None:
        self.length, self.size, self.intensity, self.seed = length, size, intensity, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        seed = int(torch.randint(2**63 - 1, (1,)).item())
        rng = np.random.default_rng(seed if self.seed is None else (self.seed, index))
        image, count = scm_scene(rng, self.size, self.intensity)
        return {"id": f"{index:05d}", "image": torch.from_numpy(image)[None], "count": torch.tensor(count)}


@register("scm_scenes")
@dataclass(kw_only=True, eq=False)
class ScmScenes(DataModule):
    """Synthetic target images for the pre-training of the SCM; no image of a sensor is needed.

    Args:
        size: side, pixels; at least 64.
        intensity: intensity layers in place of masks, for a TEM with ``target_mode: intensity``.
        length: training samples an epoch.
        held_out: samples of the validation and the test split each; they are the same in every run.
    """

    size: Annotated[int, Ge(64)] = 128
    intensity: bool = False
    length: Positive = 3200
    held_out: Positive = 640

    def train(self) -> Dataset[Sample]:
        """New target images without end."""
        return _TargetImages(self.length, self.size, self.intensity)

    def val(self) -> Dataset[Sample]:
        """Fixed target images."""
        return _TargetImages(self.held_out, self.size, self.intensity, seed=1)

    def test(self) -> Dataset[Sample] | None:
        """Other fixed target images."""
        return _TargetImages(self.held_out, self.size, self.intensity, seed=2)
