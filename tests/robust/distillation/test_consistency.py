"""The consistency bank against the authors' schedules and an independent loop in numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from robust.distillation import ConsistencyBank, consistency_weight
from vision.engine.errors import CheckpointError

SAMPLES, CLASSES, EPOCHS, BATCH = 12, 7, 4, 4


@pytest.mark.parametrize("schedule", ["linear", "step", "cycle", "cosine"])
def test_golden_schedules(golden_root: Path, schedule: str) -> None:
    arrays = np.load(golden_root / "soteacher_schedules.npz")
    found = [
        consistency_weight(schedule, 1.0, int(arrays["epochs"]), int(e), int(arrays["start_at"]))  # type: ignore[arg-type]
        for e in arrays["e"]
    ]
    np.testing.assert_allclose(found, arrays[schedule], rtol=1e-9, atol=1e-12)


def _batches(seed: int = 0) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    random = np.random.default_rng(seed)
    epochs = []
    for _ in range(EPOCHS):
        order = random.permutation(SAMPLES)
        epochs.append(
            [
                (torch.tensor(random.normal(size=(BATCH, CLASSES))), torch.tensor(order[i : i + BATCH]))
                for i in range(0, SAMPLES, BATCH)
            ]
        )
    return epochs


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("legacy", [True, False])
def test_losses_and_table_equal_a_plain_loop(legacy: bool) -> None:
    """The exact rule's table is the mean of all predictions; the legacy one counts the first of them twice."""
    bank = ConsistencyBank(SAMPLES, CLASSES, epochs=EPOCHS, legacy_average=legacy)
    seen: dict[int, list[np.ndarray]] = {i: [] for i in range(SAMPLES)}
    weights, sizes = [], []
    for epoch, batches in enumerate(_batches(), 1):
        weights.append(bank.weight_now)
        sizes.append(bank.step_size)
        for logits, index in batches:
            p = _softmax(logits.numpy())
            expected = 0.0
            if epoch > 1:
                earlier = np.stack([_mean(seen[i], legacy) for i in index.tolist()])
                expected = epoch / EPOCHS * np.mean(np.sum((p - earlier) ** 2, axis=1))
            assert bank(logits, index).item() == pytest.approx(expected, abs=1e-6)
            for row, i in zip(p, index.tolist(), strict=True):
                seen[i].append(row)
        bank.end_epoch()
        table = np.stack([_mean(seen[i], legacy) for i in range(SAMPLES)])
        np.testing.assert_allclose(bank.table.numpy(), table, atol=1e-6)
    assert weights == [1, 0.5, 0.75, 1]
    assert sizes == pytest.approx([1, 1 / 3, 1 / 4, 1 / 5] if legacy else [1, 1 / 2, 1 / 3, 1 / 4])


def _mean(rows: list[np.ndarray], legacy: bool) -> np.ndarray:
    return np.mean([rows[0], *rows] if legacy and len(rows) > 1 else rows, axis=0)


def test_gradient_runs_through_the_prediction_alone() -> None:
    bank = ConsistencyBank(3, 4, weight=2.0, schedule="none")
    torch.manual_seed(0)
    index = torch.arange(3)
    bank(torch.randn(3, 4), index)
    bank.end_epoch()
    earlier = bank.table.clone()
    logits = torch.randn(3, 4, requires_grad=True)
    bank(logits, index).backward()
    p = logits.detach().softmax(1)
    outer = 2 * 2.0 / 3 * (p - earlier)
    np.testing.assert_allclose(logits.grad, p * (outer - (p * outer).sum(1, keepdim=True)), atol=1e-6)
    assert not bank.table.requires_grad


def test_first_epoch_costs_nothing_and_still_has_a_gradient() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    ConsistencyBank(2, 3)(logits, torch.arange(2)).backward()
    assert logits.grad.abs().max() == 0


def test_half_precision_on_the_cpu_follows_float32() -> None:
    full, half = (
        ConsistencyBank(SAMPLES, CLASSES, epochs=EPOCHS, dtype=dtype, placement="cpu")
        for dtype in (torch.float32, torch.float16)
    )
    for batches in _batches(1):
        for logits, index in batches:
            assert half(logits, index).item() == pytest.approx(full(logits, index).item(), abs=2e-3)
        full.end_epoch()
        half.end_epoch()
    assert half.table.dtype == torch.float16
    np.testing.assert_allclose(half.table.float(), full.table, atol=2e-3)


def test_placement_and_type_stay_when_the_module_moves() -> None:
    kept = ConsistencyBank(2, 3, placement="cpu").to("meta")
    assert kept.table.device.type == "cpu"
    moved = ConsistencyBank(2, 3, dtype=torch.float16).to("meta", torch.float64)
    assert moved.table.device.type == "meta"
    assert moved.table.dtype == torch.float16


def test_state_goes_on_where_it_stopped() -> None:
    whole, part = (ConsistencyBank(SAMPLES, CLASSES, epochs=EPOCHS) for _ in range(2))
    epochs = _batches(2)
    for bank in (whole, part):
        for logits, index in epochs[0]:
            bank(logits, index)
        bank.end_epoch()
    resumed = ConsistencyBank(SAMPLES, CLASSES, epochs=EPOCHS)
    resumed.load_state_dict(part.state_dict())
    logits, index = epochs[1][0]
    assert resumed(logits, index).item() == whole(logits, index).item() > 0
    assert torch.equal(resumed.table, whole.table)
    assert resumed.weight_now == 0.5


def test_a_bank_of_another_size_is_refused_on_resume() -> None:
    bank = ConsistencyBank(10, 5)
    with pytest.raises(CheckpointError, match="has 12 samples and 7 classes, this one 10 and 5"):
        bank.load_state_dict(ConsistencyBank(12, 7).state_dict())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": 0}, "0 samples"),
        ({"weight": -1.0}, "weight -1"),
        ({"temperature": 0.0}, "temperature 0"),
        ({"schedule": "linaer"}, "linaer"),
    ],
)
def test_bad_arguments(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ConsistencyBank(**{"samples": 2, "classes": 2, **change})  # type: ignore[arg-type]


def test_bad_calls() -> None:
    bank = ConsistencyBank(4, 3)
    with pytest.raises(ValueError, match=r"expected \[N, 3\]"):
        bank(torch.zeros(2, 5), torch.arange(2))
    with pytest.raises(ValueError, match="the bank has 4 rows"):
        bank(torch.zeros(1, 3), torch.tensor([4]))
    with pytest.raises(ValueError, match="needs the number of epochs"):
        bank.end_epoch()
