"""Images of every odd kind: the pixels against what was written, and files that are no images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision.engine.errors import DataError
from vision.pose.images import glance, read_rgb

RAMP = np.linspace(0, 255, 6 * 8 * 3).reshape(6, 8, 3).astype(np.uint8)
GRAY = RAMP[..., 0]


def saved(tmp_path: Path, name: str, image: Image.Image, **options: object) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_colour_comes_back_as_written(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(read_rgb(saved(tmp_path, f"x.{suffix}", Image.fromarray(RAMP), **options)), RAMP)


def test_gray_repeats_its_channel(tmp_path: Path) -> None:
    read = read_rgb(saved(tmp_path, "gray.png", Image.fromarray(GRAY)))
    assert read.dtype == np.uint8 and np.array_equal(read, np.stack([GRAY] * 3, axis=-1))


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_deep_gray_keeps_its_high_byte(tmp_path: Path, kind: type) -> None:
    deep = Image.fromarray((GRAY.astype(np.uint16) * 257).astype(kind))
    read = read_rgb(saved(tmp_path, "deep.tif", deep))
    assert np.array_equal(read[..., 1], GRAY)


def test_deep_png_is_not_clipped(tmp_path: Path) -> None:
    read = read_rgb(saved(tmp_path, "deep.png", Image.fromarray(GRAY.astype(np.uint16) * 257)))
    assert np.array_equal(read[..., 2], GRAY)


def test_values_beyond_16_bits_are_refused(tmp_path: Path) -> None:
    for values in (
        np.full((4, 4), 70000, np.int32),
        np.full((4, 4), -1, np.int32),
        np.full((4, 4), np.nan, np.float32),
    ):
        with pytest.raises(DataError, match="do not fit 16 bits"):
            read_rgb(saved(tmp_path, "beyond.tif", Image.fromarray(values)))


def test_cmyk_palette_and_transparency(tmp_path: Path) -> None:
    flat = np.full((16, 16, 3), (200, 90, 30), np.uint8)
    cmyk = read_rgb(saved(tmp_path, "cmyk.jpg", Image.fromarray(flat).convert("CMYK"), quality=98))
    assert np.abs(cmyk.astype(int) - flat).max() <= 4
    palette = saved(tmp_path, "palette.png", Image.fromarray(flat).quantize(4))
    assert np.array_equal(read_rgb(palette), flat)
    clear = np.dstack([flat, np.zeros((16, 16), np.uint8)])
    assert np.array_equal(read_rgb(saved(tmp_path, "clear.png", Image.fromarray(clear))), flat)
    two = saved(tmp_path, "two.png", Image.fromarray(GRAY > 100))
    assert np.array_equal(read_rgb(two)[..., 0], np.where(GRAY > 100, 255, 0))


def test_exif_orientation_is_ignored_unless_asked_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it by 90 degrees clockwise
    path = saved(tmp_path, "turned.png", Image.fromarray(RAMP), exif=exif)
    assert np.array_equal(read_rgb(path), RAMP)
    assert np.array_equal(read_rgb(path, "upright"), np.rot90(RAMP, -1))
    assert glance(path) == (8, 6) and glance(path, "upright") == (6, 8)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_file_that_was_cut_off_is_told_from_a_whole_one(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, f"x.{suffix}", Image.fromarray(noise))
    whole = path.read_bytes()
    assert glance(path) == (64, 64)
    path.write_bytes(whole[: len(whole) // 2])
    for look in (glance, read_rgb):
        with pytest.raises(DataError, match="cannot be decoded") as error:
            look(path)
        assert str(path) in str(error.value)
    path.write_bytes(whole + b"\0" * 100)  # more than an image is still an image
    assert glance(path) == (64, 64)


def test_what_is_no_image_is_told(tmp_path: Path) -> None:
    (tmp_path / "words.jpg").write_text("words")
    for look in (glance, read_rgb):
        with pytest.raises(DataError, match="not an image Pillow knows"):
            look(tmp_path / "words.jpg")
        with pytest.raises(DataError, match="no such file"):
            look(tmp_path / "none.jpg")
