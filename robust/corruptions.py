"""Accuracy on common corruptions, kept as in CIFAR-10-C: one array a corruption, five severities in a row."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from robust.evaluation import require_eval
from vision.classification.npz import read_npy
from vision.engine.errors import DataError

SEVERITIES = 5


@torch.no_grad()
def corruption_accuracy(
    network: nn.Module, folder: Path, batch_size: int = 256, limit: int | None = None
) -> dict[str, float]:
    """Accuracy of each corruption over its severities, and ``corruptions``, the mean of them.

    Args:
        network: logits of images in [0, 1], in eval mode.
        folder: ``<corruption>.npy``, uint8 ``[5 N, H, W, 3]``, severity 1 first, and ``labels.npy``, ``[5 N]``.
        batch_size: images in one forward pass.
        limit: the first so many of each severity.

    Raises:
        DataError: no such folder, or arrays that do not fit.

    Source: Hendrycks & Dietterich 2019, arXiv 1903.12261.
    """
    require_eval(network)
    files = sorted(p for p in folder.glob("*.npy") if p.name != "labels.npy")
    if not files or not (folder / "labels.npy").is_file():
        raise DataError(f"{folder}: expected labels.npy and one array a corruption, as of CIFAR-10-C")
    labels = read_npy(folder / "labels.npy")
    each, device = len(labels) // SEVERITIES, next(network.parameters()).device
    kept = min(limit or each, each)
    found = {}
    for file in files:
        images = read_npy(file, mapped=True)
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(labels) or len(labels) % SEVERITIES:
            raise DataError(
                f"{file}: {images.dtype} {list(images.shape)} with {len(labels)} labels; "
                f"expected uint8 [N, H, W, 3] with N labels, {SEVERITIES} severities of equal size"
            )
        right = 0
        for severity in range(SEVERITIES):
            for begin in range(severity * each, severity * each + kept, batch_size):
                end = min(begin + batch_size, severity * each + kept)
                batch = torch.from_numpy(np.array(images[begin:end])).to(device).permute(0, 3, 1, 2).float() / 255
                said = network(batch).argmax(1).cpu().numpy()
                right += int((said == labels[begin:end]).sum())
        found[f"corruption_{file.stem}"] = right / (SEVERITIES * kept)
    return found | {"corruptions": float(np.mean(list(found.values())))}
