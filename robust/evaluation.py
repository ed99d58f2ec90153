"""What a network withstands: attacks by name on a data set, example by example."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from robust.adversarial import Attack
from robust.autoattack import STANDARD, autoattack, library_version
from robust.table import AttackTable, Row
from robust.threat import ThreatModel
from vision.classification import metrics
from vision.engine.data import Sample
from vision.engine.errors import ConfigError
from vision.engine.loading import size_of
from vision.engine.seeding import seed_everything, seed_of

AttackName = Literal["clean", "fgsm", "pgd10", "pgd20", "pgd100", "margin20", "square", "autoattack"]

ATTACKS: dict[AttackName, Attack] = {
    "clean": Attack(steps=0, start="zero"),
    "fgsm": Attack(steps=1, start="zero"),
    "pgd10": Attack(steps=10, start="zero"),
    "pgd20": Attack(steps=20),
    "pgd100": Attack(steps=100, restarts=5),
    "margin20": Attack(steps=20, loss="margin"),
}
"""The attacks that are ours, by the name of an evaluation. Steps are eps / 4 (2/255 of 8/255), of ``fgsm`` eps."""

SQUARE_GAIN = 0.002
"""Share of images that Square may break beyond the other parts without a warning."""


@dataclass(frozen=True)
class Judged:
    """One attack on one data set.

    Attributes:
        name: of the attack.
        rows: an example each.
        logged: what was warned of meanwhile, such as parts of AutoAttack that too few classes left out.
    """

    name: str
    rows: list[Row]
    logged: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float:
        """Share of the examples that stood."""
        return float(np.mean([row.robust for row in self.rows]))

    @property
    def figures(self) -> dict[str, float]:
        """Accuracy; NLL and ECE where every example has been attacked; of AutoAttack, what is left after each part."""
        found = {self.name: self.accuracy}
        if self.name in ATTACKS:
            logits, labels = np.array([r.logits for r in self.rows]), np.array([r.label for r in self.rows])
            found[f"{self.name}_nll"] = metrics.nll(logits, labels)
            found[f"{self.name}_ece"] = metrics.ece(logits, labels)
        return found | after_parts(self.rows) if self.name == "autoattack" else found

    @property
    def warnings(self) -> list[str]:
        """What was logged, and that Square, which uses no gradient, broke what gradients did not.

        The library says the latter only where it runs all parts in one call; the figure is its.
        """
        if self.name != "autoattack":
            return list(self.logged)
        left = after_parts(self.rows)
        gain = left["aa_fab-t"] - left["aa_square"]
        told = f"square broke {gain:.2%} beyond the parts with gradients, which may be masked"
        return [*self.logged, told] if gain > SQUARE_GAIN else list(self.logged)


def after_parts(rows: Sequence[Row]) -> dict[str, float]:
    """Accuracy after each part of AutoAttack, by the part's name; parts that broke nothing have that of the one before.

    Example:
        >>> after_parts([Row("a", 0, [], 0.0, ""), Row("b", 0, [], 0.1, "apgd-t")])
        {'aa_apgd-ce': 1.0, 'aa_apgd-t': 0.5, 'aa_fab-t': 0.5, 'aa_square': 0.5}
    """
    used = [row.broken_by for row in rows]
    parts = [p for p in ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square") if p in used or p in STANDARD]
    standing, found = len(used) - used.count("clean"), {}
    for part in parts:
        standing -= used.count(part)
        found[f"aa_{part}"] = standing / len(used)
    return found


def attack_batch(
    network: nn.Module, images: Tensor, labels: Tensor, name: AttackName, threat: ThreatModel, seed: int
) -> tuple[Tensor, list[str]]:
    """Attacked images and what fooled the network on each; see :class:`robust.table.Row`.

    An image that is wrong without an attack counts as broken by ``clean`` whatever the attack does to it.
    """
    if name in ("autoattack", "square"):
        return autoattack(network, images, labels, threat, STANDARD if name == "autoattack" else ("square",), seed)
    attacked = ATTACKS[name].run(network, images, labels, threat)
    with torch.no_grad():
        wrong, fooled = (network(x).argmax(1) != labels for x in (images, attacked))
    names = ["clean" if w else name if f else "" for w, f in zip(wrong.tolist(), fooled.tolist(), strict=True)]
    return attacked, names


def judge(
    network: nn.Module,
    dataset: "Dataset[Sample]",
    name: AttackName,
    threat: ThreatModel,
    file: Path,
    *,
    weights: str,
    limit: int | None = None,
    batch_size: int = 128,
    seed: int = 0,
    device: torch.device | None = None,
) -> Judged:
    """Attacks a data set, or goes on with an evaluation that was cut short.

    Every batch draws from a seed of its own, so that the rows do not depend on where it was cut.

    Args:
        network: logits of images in [0, 1]; must be in eval mode.
        dataset: samples with ``id``, ``image`` and ``label``.
        name: of the attack.
        threat: ball and range.
        file: where the rows go.
        weights: SHA-256 of what is judged; a file about other weights is refused.
        limit: the first so many samples.
        batch_size: of the attack.
        seed: of starts and searches.
        device: where; None for that of the network.

    Raises:
        ConfigError: the network is in train mode, or the attack is unknown.
        DataError: images outside the range, labels that do not fit, or a file of another evaluation.
    """
    require_eval(network)
    if name not in ATTACKS and name not in ("autoattack", "square"):
        raise ConfigError(
            f"attack '{name}' is unknown; expected one of {', '.join((*ATTACKS, 'square', 'autoattack'))}"
        )
    device = device or next((p.device for p in network.parameters()), torch.device("cpu"))
    size = min(size_of(dataset, "evaluation"), limit or 10**12)
    own = asdict(ATTACKS[name]) if name in ATTACKS else {"library": library_version()}
    about = {
        "weights": weights, "attack": {"name": name, **own}, "threat": asdict(threat), "samples": size,
        "batch_size": batch_size, "seed": seed, "data": _digest(dataset, size),
    }  # fmt: skip

    def rows(number: int) -> list[Row]:
        samples = [dataset[i] for i in range(number * batch_size, min((number + 1) * batch_size, size))]
        images = torch.stack([s["image"] for s in samples]).to(device)
        labels = torch.tensor([int(s["label"]) for s in samples], device=device)
        start = seed_of(seed, name, number)
        seed_everything(start)
        attacked, names = attack_batch(network, images, labels, name, threat, start % 2**31)
        with torch.no_grad():
            logits = network(attacked).double().tolist()
        sizes = threat.size(attacked, images).tolist()
        return [
            Row(str(s["id"]), int(s["label"]), z, length, broken)
            for s, z, length, broken in zip(samples, logits, sizes, names, strict=True)
        ]

    table = AttackTable(file, about)
    return Judged(name, table.fill(-(-size // batch_size), rows), tuple(table.warnings))


def require_eval(network: nn.Module) -> None:
    """Refuses a network whose answers would depend on the batch, or on chance.

    Raises:
        ConfigError: it, or a part of it that knows the difference, is in train mode.
    """
    training = [name or "the network" for name, module in network.named_modules() if module.training]
    if training:
        raise ConfigError(f"evaluation of a network in train mode ('{training[0]}' is); call network.eval() first")


def _digest(dataset: "Dataset[Sample]", size: int) -> str:
    """Of ids, labels and the first image; other images are not decoded where the data set keeps labels apart."""
    images: Any = getattr(dataset, "images", None)
    if images is not None and hasattr(images, "ids") and hasattr(images, "labels"):
        told = [f"{i} {int(label)}" for i, label in zip(images.ids[:size], images.labels[:size], strict=True)]
    else:
        told = [f"{s['id']} {int(s['label'])}" for s in (dataset[i] for i in range(size))]
    first = dataset[0]["image"].cpu().contiguous().numpy().tobytes() if size else b""
    return hashlib.sha256("\n".join(told).encode() + first).hexdigest()


def sweep(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    radii: Sequence[float],
    steps: int = 20,
    batch_size: int = 128,
) -> list[float]:
    """Accuracy under PGD from the image itself, of each radius of ``radii``; steps of a quarter of it.

    Each image counts as broken at a radius if it is broken there or at a smaller one: a larger ball holds the smaller.

    Args:
        network: in eval mode.
        images: ``[N, ...]`` in [0, 1].
        labels: int64, ``[N]``.
        threat: norm and range; its eps plays no part.
        radii: ascending.
        steps: of each attack.
        batch_size: images attacked at once.

    Raises:
        ConfigError: radii that do not ascend, or a network in train mode.
    """
    require_eval(network)
    if list(radii) != sorted(set(radii)):
        raise ConfigError(f"sweep: the radii {list(radii)} do not ascend")
    standing = torch.ones(len(images), dtype=torch.bool, device=images.device)
    found = []
    for eps in radii:
        ball = ThreatModel(threat.norm, eps, threat.low, threat.high)
        for part, x, y in zip(*(t.split(batch_size) for t in (standing, images, labels)), strict=True):
            attacked = Attack(steps=steps, start="zero").run(network, x, y, ball)
            with torch.no_grad():
                part &= network(attacked).argmax(1) == y  # a view of standing
        found.append(float(standing.double().mean()))
    return found
