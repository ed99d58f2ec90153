"""Target-free infrared scenes out of nothing: clouds, sea and ground by fractal noise, seen by a plain sensor.

Our choice throughout; the statistics are plausible, not fitted to a camera. Images are float32 ``[H, W]`` in [0, 1].
"""

from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft, ndimage

Image = NDArray[np.float32]


@lru_cache(maxsize=64)
def _spectrum(height: int, width: int, exponent: float, stretch: float) -> Image:
    """Amplitudes ``f ** -exponent`` on the half plane of ``rfft2``; ``stretch`` elongates structures along a row."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.hypot(rows, stretch * columns)
    frequency[0, 0] = 1.0
    amplitude = frequency**-exponent
    amplitude[0, 0] = 0.0
    return amplitude.astype(np.float32)


def fractal_noise(rng: Generator, height: int, width: int, exponent: float = 1.5, stretch: float = 1.0) -> Image:
    """Noise of amplitude spectrum ``f ** -exponent``, mean 0 and standard deviation 1, float32 ``[height, width]``.

    Args:
        rng: source of randomness.
        height: rows.
        width: columns.
        exponent: 0 is white; clouds lie near 1.5.
        stretch: above 1 elongates structures along the rows.
    """
    white = rng.standard_normal((height, width), dtype=np.float32)
    noise = fft.irfft2(fft.rfft2(white) * _spectrum(height, width, exponent, stretch), s=(height, width))
    return (noise - noise.mean()) / max(float(noise.std()), 1e-6)


def _clouds(rng: Generator, height: int, width: int) -> Image:
    exponent, stretch = float(rng.choice((1.5, 1.75, 2.0))), float(rng.choice((1.0, 1.5, 2.5)))
    field = fractal_noise(rng, height, width, exponent, stretch)
    cover = rng.uniform(-0.8, 0.8)
    cloud = 1 / (1 + np.exp(np.float32(rng.uniform(-4.0, -1.0)) * (field - np.float32(cover))))
    sky = np.linspace(rng.uniform(0.1, 0.4), rng.uniform(0.1, 0.5), height, dtype=np.float32)[:, None]
    return sky + np.float32(rng.uniform(0.05, 0.5)) * cloud


def _sea(rng: Generator, height: int, width: int) -> Image:
    waves = fractal_noise(rng, height, width, float(rng.choice((1.0, 1.25))), float(rng.choice((3.0, 5.0))))
    swell = np.linspace(rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.6), height, dtype=np.float32)[:, None]
    glints = np.float32(rng.uniform(0.0, 0.15)) * np.maximum(waves - np.float32(2.0), 0)
    return swell + np.float32(rng.uniform(0.01, 0.06)) * waves + glints


def _ground(rng: Generator, height: int, width: int) -> Image:
    """Fields of different warmth (a fractal cut into levels) with texture and a few warm, straight-edged blocks."""
    fields = np.floor(fractal_noise(rng, height, width, 1.75) * np.float32(rng.uniform(1.0, 2.5)))
    texture = fractal_noise(rng, height, width, float(rng.choice((1.0, 1.25, 1.5))))
    ground = np.float32(rng.uniform(0.25, 0.6)) + np.float32(rng.uniform(0.02, 0.07)) * fields
    ground = ground + np.float32(rng.uniform(0.01, 0.06)) * texture
    for _ in range(int(rng.integers(0, 5))):
        row, column = int(rng.integers(height)), int(rng.integers(width))
        block = (slice(row, row + int(rng.integers(12, 48))), slice(column, column + int(rng.integers(12, 48))))
        ground[block] = 0.4 * ground[block] + np.float32(rng.uniform(0.1, 0.6))
    return ground


def procedural_background(rng: Generator, height: int, width: int) -> Image:
    """A target-free infrared scene out of nothing: clouds, or sky over sea or ground, or ground seen from above.

    Sensor effects are part of it: white noise, column stripes and a falling-off towards the corners. Statistics are
    plausible, not fitted to any camera.

    Args:
        rng: the only source of randomness.
        height: rows, at least 1.
        width: columns, at least 1.

    Returns:
        float32, shape ``[height, width]``, in [0, 1].

    Source: our choice.
    """
    kind = rng.choice(4)
    if kind == 0:
        scene = _clouds(rng, height, width)
    elif kind == 1:
        scene = _ground(rng, height, width)
    else:
        lower = _sea(rng, height, width) if kind == 2 else _ground(rng, height, width)
        horizon = rng.uniform(-0.2, 0.9) * height + rng.uniform(-0.1, 0.1) * np.arange(width, dtype=np.float32)
        if kind == 3:  # hills
            ridge = np.cumsum(rng.standard_normal(width, dtype=np.float32))
            horizon = horizon + np.float32(rng.uniform(0.0, 0.4)) * ndimage.uniform_filter1d(ridge, 9)
        below = np.arange(height, dtype=np.float32)[:, None] - horizon[None, :].astype(np.float32)
        share = np.clip(below * np.float32(rng.uniform(0.2, 1.0)) + np.float32(0.5), 0, 1)
        scene = _clouds(rng, height, width) * (1 - share) + lower * share
    return np.clip(_sensor(rng, scene), 0.0, 1.0)


def _sensor(rng: Generator, scene: Image) -> Image:
    height, width = scene.shape
    noise = np.float32(rng.uniform(0.001, 0.012)) * rng.standard_normal((height, width), dtype=np.float32)
    stripes = np.float32(rng.uniform(0.0, 0.004)) * rng.standard_normal(width, dtype=np.float32)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :] ** 2
    return scene * (1 - np.float32(rng.uniform(0.0, 0.1)) * (rows + columns)) + noise + stripes
