"""Infrared images and masks from files and folders; whatever cannot be used is reported by name."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from vision.engine.errors import DataError, nearest

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8] | NDArray[np.float32]
Mask = NDArray[np.bool_]

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
LARGEST_COLOUR_DIFFERENCE = 0.1  # mean over pixels of the spread of R, G and B, in [0, 1]
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError)  # what Pillow raises for a broken file


def _open(path: Path) -> PIL.Image.Image:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        image = PIL.Image.open(path)
        image.load()
    except UNREADABLE as error:
        raise DataError(f"{path}: not a readable image ({error}); replace the file") from error
    return image


def _gray(path: str, image: PIL.Image.Image) -> NDArray[np.uint8]:
    """One 8-bit channel; colour channels are weighted as in ITU-R 601 when they differ slightly."""
    if image.mode in ("L", "1"):
        return np.asarray(image.convert("L"))
    colours = image.convert("RGB")
    channels = np.asarray(colours).astype(np.int16)
    spread = float((channels.max(axis=2) - channels.min(axis=2)).mean() / 255)
    if spread > LARGEST_COLOUR_DIFFERENCE:
        raise DataError(
            f"{path}: a colour image (channels differ by {spread:.2f} on average, at most "
            f"{LARGEST_COLOUR_DIFFERENCE} is taken); give the gray infrared image, not a colour map of it"
        )
    return np.asarray(colours.convert("L"))


def read_pixels(path: str | Path, bits: int | None = None) -> Pixels:
    """Read an infrared image as it is stored: uint8 for 8-bit files, float32 in [0, 1] for deeper ones. ``[H, W]``.

    As :func:`read_infrared`, but at a quarter of the memory for the common case.
    """
    path = Path(path)
    return pixels_of(_open(path), str(path), bits)


def pixels_of(image: PIL.Image.Image, name: str, bits: int | None = None) -> Pixels:
    """The pixels of an image that is open, as :func:`read_pixels`; ``name`` is what an error calls it."""
    if image.mode == "F":
        values = np.asarray(image, dtype=np.float32)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise DataError(f"{name}: floating-point pixels must lie in [0, 1]; rescale the file")
        return values
    if image.mode.startswith("I"):
        counts = np.asarray(image).astype(np.int64)
        full_scale = 2 ** (bits or 16) - 1
        if counts.min() < 0 or counts.max() > full_scale:
            raise DataError(f"{name}: values {counts.min()} to {counts.max()} do not fit 0 to {full_scale}; check bits")
        return (counts / full_scale).astype(np.float32)
    return _gray(name, image)


def as_float(pixels: Pixels) -> NDArray[np.float32]:
    """Stored pixels (uint8 or float32) as float32 in [0, 1]; always a copy."""
    image = pixels.astype(np.float32)
    return image / np.float32(255) if pixels.dtype == np.uint8 else image


def read_infrared(path: str | Path, bits: int | None = None) -> NDArray[np.float32]:
    """Read one infrared image.

    PNG, BMP, TIFF or JPEG of 8 or 16 bits; RGB with equal channels, or channels so close that their ITU-R 601 luma is
    meant. 8-bit values are divided by 255, deeper ones by ``2 ** bits - 1``.

    Args:
        path: the file.
        bits: significant bits of a deeper file, for example 14 for a 14-bit camera; 16 when None.

    Returns:
        float32, shape ``[H, W]``, in [0, 1].

    Raises:
        DataError: no such file, a file that cannot be decoded, a colour image, values beyond the bits.
    """
    return as_float(read_pixels(path, bits))


def read_mask(path: str | Path) -> Mask:
    """Read a target mask: above 127, or above 0 where a file has no such value (masks stored as 0 and 1).

    Returns:
        bool, shape ``[H, W]``.

    Raises:
        DataError: no such file, or a file that cannot be decoded.
    """
    image = _open(Path(path))
    values = np.asarray(image) if image.mode.startswith(("I", "F")) else np.asarray(image.convert("L"))
    return values > (127 if values.max() > 127 else 0)


def list_images(folder: str | Path) -> list[Path]:
    """The image files of a folder, by name.

    Raises:
        DataError: no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder}: no image in it; expected {', '.join(SUFFIXES)}")
    return paths


def read_backgrounds(folder: str | Path, bits: int | None = None) -> list[Pixels]:
    """All images of a folder, for :class:`vision.infrared.data.InfraredCrops`; they must be free of targets."""
    return [read_pixels(path, bits) for path in list_images(folder)]


@dataclass(frozen=True)
class InfraredSample:
    """An image with its mask: ``pixels`` uint8 or float32 (see :func:`read_pixels`) and ``mask`` bool, ``[H, W]``."""

    name: str
    pixels: Pixels = field(repr=False)
    mask: Mask = field(repr=False)


class IRSTFolder(Sequence[InfraredSample]):
    """A data set of infrared images with masks in the field's folder layout, decoded once and held in memory.

    ``images/`` and ``masks/`` hold files of one name (``x.png``, also ``x_pixels0.png`` for a mask); the names of a
    split stand in ``splits/<split>.txt``, ``img_idx/<split>_<data set>.txt`` (BasicIRSTD) or ``<split>.txt``, one a
    line. Images without any target are welcome: their mask is empty.

    Args:
        root: the folder.
        split: name of the split.
        on_error: ``stop`` at samples that cannot be used, naming them; ``skip`` leaves them out and logs them.
        bits: as in :func:`read_infrared`.

    Attributes:
        names: of the samples in use, in the order of the split file.
        skipped: reasons by name of what was left out.

    Raises:
        DataError: a missing folder or split, an empty split, a name given twice, a missing, corrupt or colour image,
            an image without mask, a mask of another size.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        on_error: Literal["stop", "skip"] = "stop",
        bits: int | None = None,
    ) -> None:
        if on_error not in ("stop", "skip"):
            raise DataError(f"on_error: got {on_error!r}, expected 'stop' or 'skip'")
        self.root, self.split, self.bits = Path(root), split, bits
        self.skipped: dict[str, str] = {}
        self._samples: list[InfraredSample] = []
        wanted = self._names_of_split()
        images, masks = (_files_by_stem(self.root / folder) for folder in ("images", "masks"))
        for name in wanted:
            try:
                self._samples.append(self._load(name, images, masks))
            except DataError as error:
                self.skipped[name] = str(error)
        if self.skipped:
            self._report(len(wanted), on_error)

    @property
    def names(self) -> list[str]:
        """Names of the samples in use."""
        return [sample.name for sample in self._samples]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> InfraredSample:  # type: ignore[override]
        return self._samples[index]

    def subset(self, names: Iterable[str]) -> list[InfraredSample]:
        """The samples of these names, in their order.

        Raises:
            DataError: a name that is not in use.
        """
        by_name = {sample.name: sample for sample in self._samples}
        names = list(names)
        for name in names:
            if name not in by_name:
                raise DataError(f"{self.root}: no sample '{name}' in split '{self.split}'{nearest(name, by_name)}")
        return [by_name[name] for name in names]

    def _names_of_split(self) -> list[str]:
        path = _split_file(self.root, self.split)
        names = [_stem(line.strip()) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        if not names:
            raise DataError(f"{path}: the split is empty; write one image name a line")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"{path}: {', '.join(twice[:5])} given more than once ({len(twice)} names); keep one each")
        return names

    def _load(self, name: str, images: dict[str, Path], masks: dict[str, Path]) -> InfraredSample:
        if name not in images:
            raise DataError(f"images/{name}: no such image")
        mask_path = masks.get(name) or masks.get(f"{name}_pixels0")
        if mask_path is None:
            raise DataError(f"masks/{name}: the image has no mask (an all-black one says: no target)")
        pixels, mask = read_pixels(images[name], self.bits), read_mask(mask_path)
        if pixels.shape != mask.shape:
            raise DataError(f"{mask_path}: mask is {_size(mask)}, image is {_size(pixels)} (rows x columns)")
        return InfraredSample(name, pixels, mask)

    def _report(self, wanted: int, on_error: str) -> None:
        listed = "; ".join(list(self.skipped.values())[:5]) + ("; ..." if len(self.skipped) > 5 else "")
        found = f"{self.root}, split '{self.split}': {len(self.skipped)} of {wanted} samples cannot be used: {listed}"
        if on_error == "stop":
            raise DataError(f"{found}. Mend them, or set on_error to 'skip'")
        if not self._samples:
            raise DataError(f"{found}. Nothing is left")
        logger.warning("%s. Left out: %s", found, ", ".join(self.skipped))


def _size(array: NDArray[np.generic]) -> str:
    return "x".join(map(str, array.shape))


def _stem(name: str) -> str:
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name


def _files_by_stem(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in reversed(list_images(folder))}


def _split_file(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    known = [*root.glob("splits/*.txt"), *root.glob("img_idx/*.txt"), *root.glob("*.txt")]
    candidates = [
        root / "splits" / f"{split}.txt",
        root / "img_idx" / f"{split}_{root.name}.txt",
        root / "img_idx" / f"{split}.txt",
        root / f"{split}.txt",
    ]
    for path in candidates:
        if path in known:
            return path
    prefixed = sorted(path for path in known if path.parent.name == "img_idx" and path.stem.startswith(f"{split}_"))
    if len(prefixed) == 1:
        return prefixed[0]
    if prefixed:
        raise DataError(
            f"{root}: split '{split}' may be {', '.join(p.stem for p in prefixed)}; give one of these names"
        )
    stems = sorted(path.stem for path in known)
    raise DataError(f"{root}: no split '{split}'{nearest(split, stems)}; there is: {', '.join(stems) or 'none'}")


def validation_split(names: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Carve a validation split out of a training split.

    Which names are drawn depends on the set of names and the seed, not on their order.

    Args:
        names: of the training split, at least 2.
        fraction: share for validation, in (0, 1); at least one name goes to each side.
        seed: of the draw.

    Returns:
        Names to train on and names to validate on, each in the given order.

    Raises:
        DataError: a fraction out of range, or fewer than 2 names.
    """
    if not 0 < fraction < 1:
        raise DataError(f"validation fraction: got {fraction}, expected a number between 0 and 1")
    if len(names) < 2:
        raise DataError(f"a validation split needs at least 2 names, got {len(names)}")
    size = min(max(round(fraction * len(names)), 1), len(names) - 1)
    drawn = set(np.random.default_rng(seed).permutation(sorted(names))[:size].tolist())
    return [name for name in names if name not in drawn], [name for name in names if name in drawn]
