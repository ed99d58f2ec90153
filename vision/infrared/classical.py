"""Detectors without learning: the floor that a trained network has to beat."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.floating]
Mask = NDArray[np.bool_]


def top_hat(image: Image, size: int = 9, threshold: float = 0.5) -> Mask:
    """White top-hat: what a flat ``size`` x ``size`` opening takes away, above a share of its maximum.

    Args:
        image: float, shape ``[H, W]``.
        size: side of the structuring element, pixels.
        threshold: share of the largest response.

    Returns:
        Bool, shape ``[H, W]``.
    """
    response = ndimage.white_tophat(image, size=(size, size))
    return response > threshold * response.max()


def z_score_response(image: Image, window: int = 31) -> NDArray[np.float64]:
    r"""How many local standard deviations a smoothed pixel lies above its surroundings.

    .. math:: z = (G_1 * a - \mu) / (\sigma + 0.01)

    with mean and deviation in ``window`` x ``window`` pixels, edges mirrored.

    Args:
        image: :math:`a`, float, shape ``[H, W]``, in [0, 1].
        window: pixels.
    """
    image = image.astype(np.float64)
    mean = ndimage.uniform_filter(image, window)
    deviation = np.sqrt(np.maximum(ndimage.uniform_filter(image**2, window) - mean**2, 1e-8))
    return (ndimage.gaussian_filter(image, 1.0) - mean) / (deviation + 0.01)


def local_z_score(image: Image, window: int = 31) -> Mask:
    """Pixels whose :func:`z_score_response` exceeds 3 and half of its maximum: bool ``[H, W]``."""
    response = z_score_response(image, window)
    return response > max(0.5 * response.max(), 3.0)


def classical_baselines(image: Image) -> dict[str, Mask]:
    """Masks of the classical detectors by name.

    Args:
        image: float, shape ``[H, W]``, in [0, 1].

    Returns:
        ``top_hat_9``, ``top_hat_5`` and ``local_z_score``, bool ``[H, W]`` each.
    """
    return {"top_hat_9": top_hat(image, 9), "top_hat_5": top_hat(image, 5), "local_z_score": local_z_score(image)}
