"""Folders of images against torchvision's reader, and every way of being wrong."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from tests.classification.listing import ids, labels
from vision.classification import ImageFolder
from vision.engine.errors import DataError


def write_folder(root: Path, splits=("train", "val", "test"), count: int = 5, size: tuple[int, int] = (20, 30)) -> None:
    for split in splits:
        for value, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.full((*size, 3), 30 * i + 100 * value, dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")


def folder(root: Path, **options) -> ImageFolder:
    return ImageFolder(root=str(root), size=16, **options)


def test_image_folder_reads_as_torchvision_reads_it(tmp_path: Path) -> None:
    write_folder(tmp_path)
    data = folder(tmp_path)
    expected = torchvision.datasets.ImageFolder(str(tmp_path / "train"))
    assert data.classes == expected.classes == ["ant", "bee"]
    train = data.train()
    assert ids(train) == [str(Path(path).relative_to(tmp_path)) for path, _ in expected.samples]
    assert labels(train) == expected.targets
    transform = torchvision.transforms.v2.Compose(
        [torchvision.transforms.v2.Resize(16), torchvision.transforms.v2.CenterCrop(16)]
    )
    mean, std = torch.tensor(data.mean).view(3, 1, 1), torch.tensor(data.std).view(3, 1, 1)
    for i in range(len(expected)):
        pixels = transform(torch.from_numpy(np.array(expected[i][0])).permute(2, 0, 1)).float() / 255
        expectation = (pixels - mean) / std  # Pillow and torchvision round a few pixels differently, by one level
        torch.testing.assert_close(train[i]["image"], expectation, rtol=0, atol=1.001 / 255 / min(data.std))
    assert len(data.val()) == len(data.test()) == 10


def test_image_folder_holds_out_validation_by_class_where_there_is_no_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, splits=("train",))
    data = folder(tmp_path, validation=0.4)
    assert Counter(labels(data.val())) == {0: 2, 1: 2}
    assert not set(ids(data.val())) & set(ids(data.train())) and len(data.train()) == 6
    assert data.test() is None


def test_image_folder_takes_grey_palette_and_transparent_images(tmp_path: Path) -> None:
    write_folder(tmp_path, splits=("train", "val"))
    picture = Image.fromarray(np.full((20, 20, 3), 51, dtype=np.uint8))
    for i, mode in enumerate(("L", "P", "RGBA", "1")):
        picture.convert(mode).save(tmp_path / "train" / "ant" / f"{i}.png")
    colour, grey = (
        folder(tmp_path, normalise=False).train(),
        folder(tmp_path, grey=True, mean=(0.5,), std=(0.5,), normalise=False).train(),
    )
    for i in range(3):
        torch.testing.assert_close(colour[i]["image"], torch.full((3, 16, 16), 0.2))
        torch.testing.assert_close(grey[i]["image"], torch.full((1, 16, 16), 0.2))
    Image.fromarray(np.full((20, 20), 40_000, dtype=np.uint16)).save(tmp_path / "train" / "ant" / "0.png")
    with pytest.raises(DataError, match=r"0\.png: pixels are of mode 'I;16', expected 8 bits"):
        folder(tmp_path).train()[0]


def test_class_names_fix_the_order_and_are_known_without_images(tmp_path: Path) -> None:
    data = folder(tmp_path, class_names=("bee", "ant"))
    assert data.classes == ["bee", "ant"]
    write_folder(tmp_path, splits=("train", "val"))
    assert labels(data.train()) == [0] * 5 + [1] * 5
    assert ids(data.train())[0] == "train/bee/0.png"
    with pytest.raises(DataError, match=r"ant: no such class in data.class_names .did you mean 'aunt'"):
        folder(tmp_path, class_names=("bee", "aunt")).train()


@pytest.mark.parametrize(
    ("change", "split", "message"),
    [
        (
            lambda r: (r / "train").rename(r / "training"),
            "train",
            r"train: there is no such folder; expected .*<class>",
        ),
        (lambda r: (r / "val" / "bee").rename(r / "val" / "bees"), "val", r"bees: no such class in .*train.*'bee'"),
        (
            lambda r: [p.unlink() for p in (r / "val/bee").iterdir()] and (r / "val/bee").rmdir(),
            "val",
            "lacks the class 'bee'",
        ),
        (lambda r: [p.unlink() for p in (r / "train/ant").iterdir()], "train", r"ant: holds no image"),
        (lambda r: (r / "train" / "ant" / "notes.txt").write_text("hm"), "train", r"notes\.txt: not an image file"),
        (lambda r: (r / "train" / "loose.png").write_bytes(b""), "train", r"loose\.png: belongs to no class"),
    ],
)
def test_bad_folders_are_named(tmp_path: Path, change, split: str, message: str) -> None:
    write_folder(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        getattr(folder(tmp_path), split)()


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="holds no class folder"):
        folder(tmp_path).train()


def test_validation_must_come_from_exactly_one_place(tmp_path: Path) -> None:
    write_folder(tmp_path, splits=("train",))
    with pytest.raises(DataError, match=r"add it, or set data\.validation"):
        folder(tmp_path).val()
    write_folder(tmp_path, splits=("val",))
    with pytest.raises(DataError, match=r"exists and data\.validation is 0\.2; use one of them"):
        folder(tmp_path, validation=0.2).train()


def test_corrupt_images_stop_or_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path)
    (tmp_path / "train/ant/1.png").write_bytes(b"these are no pixels")
    whole = (tmp_path / "train/bee/2.png").read_bytes()
    (tmp_path / "train/bee/2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train/bee/notes.txt").write_text("read me")
    (tmp_path / "train/bee/.hidden").write_text("passed over")
    with pytest.raises(DataError, match=r"notes\.txt: not an image file"):
        folder(tmp_path).train()
    (tmp_path / "train/bee/notes.txt").rename(tmp_path / "train/bee/note.png")
    with pytest.raises(DataError, match=r"1\.png: cannot be decoded .not an image Pillow knows.; replace or remove it"):
        folder(tmp_path).train()[1]
    data = folder(tmp_path, on_error="skip")
    with caplog.at_level(logging.WARNING):
        assert len(data.train()) == 8
    assert data.skipped == {"train": ["train/ant/1.png", "train/bee/2.png", "train/bee/note.png"]}
    assert "1.png" in caplog.text and "skipped 3 of 11 images" in caplog.text


def test_a_split_of_which_nothing_is_left_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, count=1)
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="the test split is empty"):
        folder(tmp_path, on_error="skip").test()
