"""Each distiller against loops or closed forms in numpy, on small tensors; and what each refuses."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robust.distillation import Seen, Taps, distillers, soft_label_loss
from robust.distillation.distiller import Distiller, TrainingSet
from robust.distillation.distillers.crd import ContrastMemory, OtherClasses
from robust.distillation.distillers.sskd import best_ranked
from robust.distillation.distillers.vid import Gaussian
from vision.engine.errors import CheckpointError, ConfigError, DataError
from vision.engine.registry import build, entries

N, CLASSES = 4, 3
Array = np.ndarray[Any, Any]


def _seen(seed: int, channels: tuple[int, ...] = (3, 4), sides: tuple[int, ...] = (4, 2), grad: bool = False) -> Seen:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=grad)

    stages = [draw(N, c, s, s) for c, s in zip(channels, sides, strict=True)]
    before = [draw(N, c, s, s) for c, s in zip(channels, sides, strict=True)]
    taps = Taps(
        tuple(f"s{i}" for i in range(len(stages))), "pooled", "stem", tuple(f"b{i}" for i in range(len(stages)))
    )
    features = dict(zip(taps.stages, stages, strict=True)) | dict(zip(taps.preactivations, before, strict=True))
    features |= {"pooled": draw(N, channels[-1]), "stem": draw(N, channels[0], sides[0], sides[0])}
    return Seen(draw(N, CLASSES), taps, features)


DATA = TrainingSet(N, CLASSES, lambda: torch.tensor([0, 1, 2, 0]))
BATCH = {"label": torch.tensor([0, 1, 2, 0]), "index": torch.arange(N), "id": list("abcd")}
S, T = _seen(0), _seen(1)


def _ready(distiller: Distiller, student: Seen = S, teacher: Seen = T) -> Distiller:
    torch.manual_seed(0)
    distiller.require(student, teacher)
    distiller.prepare(student, teacher, DATA)
    distiller.layers.double()
    return distiller


def _loss(distiller: Distiller, student: Seen = S, teacher: Seen = T) -> float:
    found = _ready(distiller, student, teacher).losses(student, teacher, BATCH)
    return float(sum(value.detach() for value in found.values()))


def _unit(x: Array, axis: int = -1) -> Array:
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


# -- against loops ---------------------------------------------------------------------------------------------------


def test_soft_labels_are_the_divergence_of_tempered_softmaxes() -> None:
    z, t, heat = S.logits.numpy(), T.logits.numpy(), 4.0
    p = np.exp(t / heat) / np.exp(t / heat).sum(1, keepdims=True)
    q = np.exp(z / heat) / np.exp(z / heat).sum(1, keepdims=True)
    expected = heat**2 * np.sum(p * np.log(p / q)) / N
    assert soft_label_loss(S.logits.double(), T.logits.double(), heat).item() == pytest.approx(expected, rel=1e-5)


def test_fitnet_is_a_regression_at_one_stage() -> None:
    distiller = _ready(distillers.FitNet())
    convolution, norm = list(distiller.layers.children())[:2]
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.bias.zero_()  # type: ignore[union-attr]
    expected = np.mean(T.stages[1].numpy() ** 2)  # the regressor says 0 everywhere
    assert distiller.losses(S, T, BATCH)["fitnet"].item() == pytest.approx(expected)


@pytest.mark.parametrize(("student", "teacher"), [(4, 2), (2, 4), (5, 4), (4, 4)])
def test_fitnet_meets_the_teachers_size(student: int, teacher: int) -> None:
    ours, theirs = _seen(0, (3, 4), (8, student)), _seen(1, (3, 6), (8, teacher))
    assert _loss(distillers.FitNet(), ours, theirs) > 0


def test_fitnet_shrinks_rows_and_columns_apart() -> None:
    student, teacher = (Seen(S.logits, Taps(("a",)), {"a": torch.randn(N, 3, *size)}) for size in ((8, 5), (6, 5)))
    distiller = distillers.FitNet(stage=1)
    distiller.prepare(student, teacher, DATA)
    assert distiller.layers(student.stages[0]).shape == teacher.stages[0].shape
    teacher.features["a"] = torch.randn(N, 3, 4, 10)
    with pytest.raises(ConfigError, match=r"'a' of the student gives \[3, 8, 5\] and 'a' of the teacher \[3, 4, 10\]"):
        distiller.prepare(student, teacher, DATA)


def _pool(x: Array) -> Array:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))


def test_attention_with_a_teacher_of_half_the_size() -> None:
    teacher = _seen(1, (5, 6), (2, 2))
    expected = 0.0
    for s, t in zip((_pool(S.stages[0].numpy()), S.stages[1].numpy()), teacher.stages, strict=True):
        a, b = (_unit((x**2).mean(1).reshape(N, -1)) for x in (s, t.numpy()))
        expected += np.mean((a - b) ** 2)
    assert _loss(distillers.Attention(), S, teacher) == pytest.approx(expected)


def test_similarity() -> None:
    a, b = (_unit(x.stages[-1].numpy().reshape(N, -1) @ x.stages[-1].numpy().reshape(N, -1).T) for x in (S, T))
    assert _loss(distillers.Similarity()) == pytest.approx(np.sum((b - a) ** 2) / N**2)


def test_correlation_of_neighbouring_gaps() -> None:
    distiller = _ready(distillers.Correlation(width=5))
    parts = dict(distiller.layers.named_children())
    ours, theirs = (parts[w](x.pooled).detach().numpy() for w, x in (("student", S), ("teacher", T)))
    gap = np.abs(ours - theirs)
    expected = np.mean([np.sum(gap[i] * gap[i + 1]) for i in range(N - 1)])
    assert distiller.losses(S, T, BATCH)["correlation"].item() == pytest.approx(expected)
    assert parts["student"].out_features == 5


def test_vid_is_a_gaussian_likelihood() -> None:
    layer = Gaussian(3, 3).double()
    assert torch.nn.functional.softplus(layer.raw)[0].item() + 1e-5 == pytest.approx(5.0)
    x, y = S.stages[0], T.stages[0]
    mean = layer.mean(x).detach().numpy()
    negative = -torch.distributions.Normal(torch.tensor(mean), math.sqrt(5.0)).log_prob(y).mean()
    expected = negative.item() - 0.5 * math.log(2 * math.pi)  # the loss leaves the constant out
    assert layer(x, y).item() == pytest.approx(expected)


def _smooth_l1(gap: Array) -> float:
    a = np.abs(gap)
    return float(np.mean(np.where(a < 1, 0.5 * a**2, a - 0.5)))


def test_rkd_by_loops_over_pairs_and_triplets() -> None:
    def relations(x: Array) -> tuple[Array, Array]:
        d = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        cosines = np.zeros((N, N, N))
        for vertex in range(N):
            for i in range(N):
                for k in range(N):
                    if vertex not in (i, k):
                        u, v = x[i] - x[vertex], x[k] - x[vertex]
                        cosines[vertex, i, k] = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
        return d / d[d > 0].mean(), cosines

    (ds, angle_s), (dt, angle_t) = relations(S.pooled.numpy()), relations(T.pooled.numpy())
    found = _ready(distillers.RKD()).losses(S, T, BATCH)
    assert found["rkd_distance"].item() == pytest.approx(25 * _smooth_l1(ds - dt), rel=1e-5)
    assert found["rkd_angle"].item() == pytest.approx(50 * _smooth_l1(angle_s - angle_t), rel=1e-5)


def test_rkd_gradient_is_finite_for_equal_samples() -> None:
    student = _seen(0, grad=True)
    row = torch.randn(1, 4, dtype=torch.float64, requires_grad=True)
    student.features["pooled"] = row.expand(N, 4)
    sum(_ready(distillers.RKD()).losses(student, T, BATCH).values()).backward()  # type: ignore[union-attr]
    assert torch.isfinite(row.grad).all()  # type: ignore[arg-type]


def test_pkt() -> None:
    def near(x: Array) -> Array:
        p = (_unit(x) @ _unit(x).T + 1) / 2
        return p / p.sum(1, keepdims=True)

    s, t = near(S.pooled.numpy()), near(T.pooled.numpy())
    expected = np.mean(t * np.log((t + 1e-7) / (s + 1e-7)))
    assert _loss(distillers.PKT()) == pytest.approx(expected)


def test_nst_is_the_distance_of_kernel_means() -> None:
    """With the kernel (a.b)^2 the mean embedding of channels is the mean of a a^T; MMD is its squared distance."""
    expected = 0.0
    for s, t in zip(S.stages, T.stages, strict=True):
        moments = []
        for x in (s, t):
            rows = _unit(x.numpy().reshape(N, x.shape[1], -1))
            moments.append(np.einsum("nci,ncj->nij", rows, rows) / x.shape[1])
        expected += np.mean(np.sum((moments[0] - moments[1]) ** 2, axis=(1, 2)))
    assert _loss(distillers.NST()) == pytest.approx(expected)


def test_activation_boundary_by_cases() -> None:
    distiller = _ready(distillers.ActivationBoundary(margin=1.0))
    distiller.layers.eval()
    expected = 0.0
    layers = list(distiller.layers.children())
    for place, (layer, s, t) in enumerate(zip(layers, S.preactivations, T.preactivations, strict=True)):
        ours, theirs = layer(s).detach().numpy().ravel(), t.numpy().ravel()
        crossed = 0.0
        for a, b in zip(ours, theirs, strict=True):
            if b > 0 and a <= 1:
                crossed += (a - 1) ** 2
            elif b <= 0 and a > -1:
                crossed += (a + 1) ** 2
        expected += crossed * (0.5 if place == 0 else 1.0)
    found = distiller.initial_losses(S, T, BATCH)["activation_boundary"].item()
    assert found == pytest.approx(expected * 3 / 1000 / N)
    assert distiller.losses(S, T, BATCH) == {}
    assert distillers.ActivationBoundary().initial_epochs == 30


def test_factor_of_normalised_energy_and_its_paraphraser() -> None:
    distiller = _ready(distillers.Factor())
    encoder, decoder, translator = (distiller.layers.get_submodule(n) for n in ("encoder", "decoder", "translator"))
    factors = encoder(T.stages[-1])
    assert factors.shape[1] == 2  # half of four channels
    maps = [_unit((f.detach().numpy() ** 2).mean(1).reshape(N, -1)) for f in (translator(S.stages[-1]), factors)]
    assert distiller.losses(S, T, BATCH)["factor"].item() == pytest.approx(np.mean(np.abs(maps[0] - maps[1])))
    rebuilt = decoder(factors).detach().numpy()
    expected = np.mean((rebuilt - T.stages[-1].numpy()) ** 2)
    assert distiller.initial_losses(S, T, BATCH)["paraphraser"].item() == pytest.approx(expected)
    distiller.losses(_seen(0, grad=True), T, BATCH)["factor"].backward()
    assert all(p.grad is None for p in encoder.parameters())  # the paraphraser stays as it is


def test_fsp_by_loops_over_channels() -> None:
    expected = 0.0
    for lower, upper in (("stem", "s0"), ("s0", "s1")):
        gap = 0.0
        for n in range(N):
            for i in range(3):
                for j in range(S.features[upper].shape[1]):
                    flows = []
                    for seen in (S, T):
                        a, b = seen.features[lower].numpy(), seen.features[upper].numpy()
                        a = _pool(a) if a.shape[2] > b.shape[2] else a
                        flows.append(np.mean(a[n, i] * b[n, j]))
                    gap += (flows[0] - flows[1]) ** 2
        expected += gap / (N * 3 * S.features[upper].shape[1])
    distiller = _ready(distillers.FSP())
    assert distiller.initial_losses(S, T, BATCH)["fsp"].item() == pytest.approx(expected)
    assert distiller.losses(S, T, BATCH) == {}
    assert _loss(distillers.FSP(throughout=True)) == pytest.approx(expected)


def test_kdsvd_by_numpy_for_each_sample() -> None:
    k, expected = 1, 0.0
    for n in range(N):
        before: tuple[Array, Array] | None = None
        for s, t in zip(S.stages, T.stages, strict=True):
            ours, theirs = (x[n].numpy().reshape(x.shape[1], -1).T for x in (s, t))
            right_s, (_, values, right_t) = np.linalg.svd(ours)[2], np.linalg.svd(theirs)
            share = _unit(values[:k])[0]
            v_t = right_t[0] * share
            cosines = right_s[: min(k + 3, len(ours))] @ right_t[0]
            best = int(np.abs(cosines).argmax())
            v_s = right_s[best] * np.sign(cosines[best]) * share
            if before is not None:
                relate = [
                    np.exp(-((now[:, None] - old[None]) ** 2) / 8) for old, now in zip(before, (v_s, v_t), strict=True)
                ]
                expected += np.sum((relate[0] - relate[1]) ** 2) / N
            before = v_s, v_t
    found = _loss(distillers.KDSVD())
    assert found == pytest.approx(expected, rel=1e-4)
    assert found > 0


def test_crd_and_its_memory_over_two_calls() -> None:
    torch.manual_seed(3)
    n, d, k, heat, momentum = 7, 4, 5, 0.07, 0.5
    memory = ContrastMemory(n, d, heat, momentum)
    assert memory.student.abs().max() <= 1 / math.sqrt(d / 3)
    banks = [memory.student.numpy().astype(float), memory.teacher.numpy().astype(float)]
    constants: list[float] = []
    for call in range(2):
        ours, theirs = (_unit(np.random.default_rng(10 * call + side).normal(size=(2, d))) for side in (0, 1))
        index, chosen = np.array([4, 1]), np.array([[4, 0, 2, 3, 5, 6], [1, 0, 2, 2, 5, 3]])
        expected = 0.0
        for side, (bank, vectors) in enumerate(((banks[1], ours), (banks[0], theirs))):
            scores = np.array(
                [[np.exp(bank[j] @ v / heat) for j in row] for row, v in zip(chosen, vectors, strict=True)]
            )
            if call == 0:
                constants.append(scores.mean() * n)
            p = scores / constants[side]
            expected -= np.log(p[:, 0] / (p[:, 0] + k / n + 1e-7)).sum() / 2
            expected -= np.log((k / n) / (p[:, 1:] + k / n + 1e-7)).sum() / 2
        found = memory(
            *(torch.tensor(x, dtype=torch.float32) for x in (ours, theirs)), *map(torch.tensor, (index, chosen))
        )
        assert found.item() == pytest.approx(expected, rel=1e-5)
        for bank, vectors in zip(banks, (ours, theirs), strict=True):
            bank[index] = _unit(momentum * bank[index] + (1 - momentum) * vectors)
        np.testing.assert_allclose(memory.student, banks[0], atol=1e-6)
        np.testing.assert_allclose(memory.teacher, banks[1], atol=1e-6)


def test_crd_memory_comes_back_and_another_size_does_not() -> None:
    memory, other = ContrastMemory(5, 3), ContrastMemory(5, 3)
    memory.constants = [1.5, 2.5]
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.student, memory.student)
    assert other.constants == [1.5, 2.5]
    with pytest.raises(CheckpointError, match=r"is \[5, 3\], this one \[6, 3\]"):
        ContrastMemory(6, 3).load_state_dict(memory.state_dict())


def test_negatives_are_of_other_classes_and_all_of_them_come() -> None:
    labels = torch.tensor([2, 0, 1, 0, 2, 2])
    torch.manual_seed(0)
    for label, row in zip([0, 1, 2], OtherClasses(labels).draw(torch.arange(3), 300), strict=True):
        assert set(row.tolist()) == {i for i, other in enumerate(labels.tolist()) if other != label}
    with pytest.raises(DataError, match="one class only"):
        OtherClasses(torch.zeros(3, dtype=torch.int64))


def test_sskd_keeps_what_the_teacher_ranks_best() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.4, 0.1], [0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])
    target = torch.tensor([0, 1, 2, 1])  # ranks 0, 1, 2, 1
    assert best_ranked(scores, target, 0.0).tolist() == [0]
    assert best_ranked(scores, target, 0.7).tolist() == [0, 1, 3]
    assert best_ranked(scores, target, 1.0).tolist() == [0, 1, 2, 3]


def test_sskd_by_loops() -> None:
    distiller = _ready(distillers.SSKD(neighbours_share=1.0))
    count = 2
    batch = {"label": torch.tensor([0, 2])}
    student, teacher = (_seen_of(seed, 4 * count) for seed in (5, 6))

    def soft(x: Array) -> Array:
        return np.exp(x) / np.exp(x).sum(1, keepdims=True)

    def divergence(ours: Array, theirs: Array, heat: float) -> float:
        p, q = soft(theirs / heat), soft(ours / heat)
        return float(heat**2 * np.sum(p * np.log(p / q)) / len(p))

    cosines = []
    for who, seen in (("student", student), ("teacher", teacher)):
        rows = _unit(distiller.layers.get_submodule(who)(seen.pooled).detach().numpy())
        cosines.append(rows[count:] @ rows[:count].T)
    found = distiller.losses(student, teacher, batch)
    expected = 2.7 * divergence(student.logits[count:].numpy(), teacher.logits[count:].numpy(), 4.0)
    assert found["sskd_turned"].item() == pytest.approx(expected, rel=1e-5)
    assert found["sskd_neighbours"].item() == pytest.approx(10 * divergence(*cosines, 0.5), rel=1e-5)
    head = distiller.initial_losses(student, teacher, batch)["sskd_head"].item()
    expected = -np.mean([np.log(soft(cosines[1])[row, row % count]) for row in range(3 * count)])
    assert head == pytest.approx(expected, rel=1e-5)


def _seen_of(seed: int, count: int) -> Seen:
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return Seen(torch.randn(count, CLASSES, generator=generator, dtype=torch.float64), Taps((), "p"), {"p": pooled})


def test_sskd_turns_images_by_quarters() -> None:
    images = torch.arange(4.0).view(1, 1, 2, 2)
    views = distillers.SSKD().views(images)
    assert views[:, 0].tolist() == [[[0, 1], [2, 3]], [[1, 3], [0, 2]], [[3, 2], [1, 0]], [[2, 0], [3, 1]]]


# -- what holds for all ----------------------------------------------------------------------------------------------

ALL = [entry.factory for entry in entries("distiller")]
BETA = {
    "kd": (0.5, 0.5, 0), "fitnet": (1, 0, 100), "attention": (1, 0, 1000), "similarity": (1, 0, 3000),
    "correlation": (1, 0, 0.02), "vid": (1, 0, 1), "rkd": (1, 0, 1), "pkt": (1, 0, 30000),
    "activation_boundary": (1, 0, 1), "factor": (1, 0, 200), "fsp": (1, 0, 50), "nst": (1, 0, 50),
    "crd": (1, 0, 0.8), "sskd": (1, 1, 1), "kdsvd": (1, 0, 1),
}  # fmt: skip


def test_default_weights_are_the_published_ones() -> None:
    found = {entry.name: entry.factory.weights for entry in entries("distiller")}  # type: ignore[attr-defined]
    assert {name: (w.ce, w.kd, w.other) for name, w in found.items()} == BETA


@pytest.mark.parametrize("factory", [f for f in ALL if f.__name__ not in ("KD", "SSKD")], ids=lambda f: f.__name__)
def test_the_student_learns_and_a_good_student_has_little_to_learn(factory: Callable[[], Distiller]) -> None:
    student = _seen(0, grad=True)
    distiller = _ready(factory(), student, T)
    part = distiller.losses if distiller.losses(student, T, BATCH) else distiller.initial_losses
    sum(part(student, T, BATCH).values()).backward()  # type: ignore[union-attr]
    read = [student.features[p] for p in student.taps.all()]
    gradients = [f.grad for f in read if f.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in gradients)
    assert max(float(g.abs().max()) for g in gradients) > 0


@pytest.mark.parametrize(
    "factory",
    [distillers.Attention, distillers.Similarity, distillers.RKD, distillers.PKT, distillers.NST, distillers.KDSVD],
    ids=lambda f: f.__name__,
)
def test_a_student_like_its_teacher_loses_nothing(factory: Callable[[], Distiller]) -> None:
    assert _loss(factory(), T, T) == pytest.approx(0, abs=1e-9)


# -- what does not fit -----------------------------------------------------------------------------------------------


def test_shapes_that_do_not_fit_name_the_layers() -> None:
    with pytest.raises(
        ConfigError,
        match=r"fsp needs equally many channels: 'stem' of the student gives \[3, 4, 4\]",
    ):
        _ready(distillers.FSP(), S, _seen(1, (5, 4)))
    with pytest.raises(ConfigError, match=r"kdsvd needs equally many channels: 's1' of the student"):
        _ready(distillers.KDSVD(), S, _seen(1, (3, 6)))
    with pytest.raises(ConfigError, match=r"shows 2 stages \(s0, s1\) and the teacher 1 \(s0\)"):
        _ready(distillers.Attention(), S, _seen(1, (3,), (4,)))
    with pytest.raises(ConfigError, match=r"'s1' of the student gives \[4, 2, 2\] and 's1' of the teacher \[4, 8, 8\]"):
        _ready(distillers.FitNet(), S, _seen(1, (3, 4), (4, 8)))
    flat = _seen(1)
    flat.features["s1"] = torch.zeros(N, 7)
    with pytest.raises(ConfigError, match=r"layer 's1' of the teacher gives \[7\] a sample; expected \[C, H, W\]"):
        _ready(distillers.VID(), S, flat)
    with pytest.raises(ConfigError, match=r"reads the pooled of the student; name them in task.student_taps.pooled"):
        _ready(distillers.PKT(), Seen(S.logits, Taps(S.taps.stages), S.features), T)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("activation_boundary", "initial_epochs", -1),
        ("activation_boundary", "margin", -0.5),
        ("fsp", "initial_epochs", -1),
        ("factor", "initial_epochs", -1),
        ("sskd", "initial_epochs", -1),
        ("sskd", "turned_temperature", 0.0),
        ("sskd", "neighbours_temperature", 0.0),
        ("sskd", "turned", -1.0),
        ("correlation", "width", 0),
        ("kdsvd", "vectors", 0),
        ("rkd", "distance", -1.0),
    ],
)
def test_numbers_out_of_range_are_refused_in_recipes(name: str, option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{option}"):
        build({"type": name, option: value}, "distiller")


def test_bad_options() -> None:
    for make in (
        lambda: distillers.CRD(negatives=0),
        lambda: distillers.Factor(share=0.0),
        lambda: distillers.SSKD(turned_share=1.5),
        lambda: _ready(distillers.FitNet(stage=3)),
        lambda: distillers.SSKD().views(torch.zeros(1, 1, 2, 3)),
        lambda: distillers.KD().initial_losses(S, T, BATCH),
    ):
        with pytest.raises(ConfigError):
            make()
    with pytest.raises(DataError, match="crd needs a stable index"):
        _ready(distillers.CRD(negatives=3)).losses(S, T, {"label": BATCH["label"]})
