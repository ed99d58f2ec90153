"""Pictures of attacks: the image, the change magnified around grey, and what comes of it."""

import numpy as np
import torch
from torch import Tensor, nn

from robust.adversarial import Attack
from robust.threat import ThreatModel
from vision.engine.evaluation import png
from vision.engine.prediction import Picture
from vision.report.figures import TRUTH, WRONG, banner, enlarge


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
    found = {}
    for i, (clean, after) in enumerate(zip(images, attacked, strict=True)):
        change = after - clean
        scale = float(change.abs().max()) or 1.0
        truth = int(labels[i])
        panels = [
            _told(clean, classes[said[0][i]], said[0][i] == truth),
            _told(0.5 + 0.5 * change / scale, f"x {0.5 / scale:.0f}", None),
            _told(after, classes[said[1][i]], said[1][i] == truth),
        ]
        found[f"attack-{i:02d}-{classes[truth]}"] = png(np.concatenate(panels, axis=1))
    return found


def _told(image: Tensor, text: str, right: bool | None) -> Picture:
    pixels = (image[:3].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    picture = enlarge(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels, 112)
    return banner(picture, text) if right is None else banner(picture, text, TRUTH if right else WRONG)
