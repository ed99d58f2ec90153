"""Pictures of attacks: the image, the change magnified around grey, and what comes of it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robust.adversarial import Attack
from robust.threat import ThreatModel
from vision.engine.evaluation import png
from vision.engine.prediction import Picture
from vision.report.figures import TRUTH, WRONG, banner, enlarge

Pixels = NDArray[np.float32]
"""Shape ``[C, H, W]``, in [0, 1]."""


def magnified(
    network: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel, classes: list[str]
) -> dict[str, bytes]:
    """PNG files by name, one an image: clean, change and attacked image side by side.

    The largest change of an image is shown black or white, no change grey.

    Args:
        network: in eval mode.
        images: ``[N, C, H, W]`` in [0, 1]; one channel is shown grey, of more the first three.
        labels: int64, ``[N]``.
        threat: the attack is PGD-20 in it, from the image itself.
        classes: names by label.
    """
    attacked = Attack(steps=20, start="zero").run(network, images, labels, threat)
    with torch.no_grad():
        said = [network(x).argmax(1).tolist() for x in (images, attacked)]
    names = [classes[int(label)] for label in labels]
    clean, after = images.cpu().numpy(), attacked.cpu().numpy()
    return {
        f"attack-{i:02d}-{names[i]}": png(
            panels(clean[i], after[i], (classes[said[0][i]], classes[said[1][i]]), names[i])
        )
        for i in range(len(names))
    }


def panels(clean: Pixels, attacked: Pixels, said: tuple[str, str], truth: str, side: int = 112) -> Picture:
    """An image, the change magnified around grey, and the attacked image side by side.

    Args:
        clean: ``[C, H, W]`` in [0, 1]; one channel is shown grey, of more the first three.
        attacked: of the same shape.
        said: the class that the network gives to each.
        truth: the true class.
        side: the least of each picture, pixels.
    """
    change = attacked - clean
    scale = float(np.abs(change).max()) or 1.0
    return np.concatenate(
        [
            _told(clean, said[0], said[0] == truth, side),
            _told(0.5 + 0.5 * change / scale, f"x {0.5 / scale:.0f}", None, side),
            _told(attacked, said[1], said[1] == truth, side),
        ],
        axis=1,
    )


def _told(image: Pixels, text: str, right: bool | None, side: int) -> Picture:
    pixels = (image[:3].clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    picture = enlarge(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels, side)
    return banner(picture, text) if right is None else banner(picture, text, TRUTH if right else WRONG)
