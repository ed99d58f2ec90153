"""What is measured: graphs, shapes of their inputs, and where these come from."""

import json
from pathlib import Path

import pytest
import torch

from vision.deploy.naming import Name, parse
from vision.deploy.subjects import figures_of, subject, subject_of
from vision.engine.deployment import Deployment, Graph
from vision.engine.errors import ConfigError, DataError, ExportedFileError

NAME = Name("two", "network")


def two_graphs() -> Deployment:
    """An image of any size to a map of a quarter of its sides; then people at places of it."""
    image, shared, places = torch.zeros(2, 3, 64, 96), torch.zeros(1, 8, 16, 24), torch.tensor([[1, 2], [5, 7]])
    return Deployment(
        (
            Graph("image", torch.nn.Identity(), (image,), ("image",), ("shared",),
                  {"image": {0: "N", 2: "H", 3: "W"}}, multiple=4, smallest=32),
            Graph("people", torch.nn.Identity(), (shared, places), ("shared", "places"), ("maps",),
                  {"shared": {2: "h", 3: "w"}, "places": {0: "P"}}),
        )
    )  # fmt: skip


def test_letters_become_the_size_that_was_asked_for() -> None:
    first = subject(NAME, two_graphs(), (128, 256))
    assert first.label == "two, graph image"
    assert first.shape("image", 3) == (3, 3, 128, 256)
    second = subject(NAME, two_graphs(), (128, 256), "people", people=5)
    assert second.shape("shared", 3) == (1, 8, 32, 64)
    assert second.shape("places", 3) == (5, 2)
    assert second.inputs(3)["places"].tolist() == [[1, 2], [5, 7], [1, 2], [5, 7], [1, 2]]


def test_inputs_are_the_same_each_time() -> None:
    found = subject(NAME, two_graphs(), (64, 64))
    torch.testing.assert_close(found.inputs(2), found.inputs(2), rtol=0, atol=0)
    assert found.inputs(2)["image"].std() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("size", "graph", "words"),
    [
        (None, None, "takes images of any size; say which with --size"),
        ((30, 64), None, "expected sides of 32 or more that are multiples of 4"),
        ((66, 64), None, "multiples of 4"),
        ((64, 64), "peple", r"no graph 'peple' \(did you mean 'people'\?\); it has image, people"),
    ],
)
def test_what_a_graph_does_not_take_is_refused(size: tuple[int, int] | None, graph: str | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        subject(NAME, two_graphs(), size, graph)


@pytest.mark.parametrize(
    ("text", "size", "shape"),
    [
        ("mamkpd_t", None, (1, 3, 256, 192)),
        ("mamkpd_t:in_channels=1", (64, 48), (1, 1, 64, 48)),
        ("mlp:inputs=64,hidden=[8]", None, (1, 64)),
        ("digits_cnn", (8, 8), (1, 1, 8, 8)),
        ("digits_cnn", None, (1, 1, 9, 9)),
        ("timm:model=test_resnet,classes=5", None, (1, 3, 160, 160)),
    ],
)
def test_a_network_tells_its_input(text: str, size: tuple[int, int] | None, shape: tuple[int, ...]) -> None:
    found = subject_of(parse(text), size, usual={"digits_cnn": (9, 9)})
    ((key, _),) = found.shapes.items()
    assert found.shape(key, 1) == shape
    assert found.trained is False
    assert found.graph is not None
    with torch.no_grad():
        found.graph.module(*found.inputs(1).values())


def test_it_is_folded_unless_asked_not_to_and_counted_as_trained() -> None:
    folded, plain = (subject_of(parse("digits_cnn"), (8, 8), folded=how) for how in (True, False))
    for found, norms in ((folded, 0), (plain, 3)):
        assert found.graph is not None
        assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in found.graph.module.modules()) == norms
        assert found.trained_form is not None
        assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in found.trained_form.module.modules()) == 3


@pytest.mark.parametrize(
    ("text", "size", "words"),
    [
        ("tbcnet", None, "tbcnet: takes images of any size; say which with --size"),
        ("mlp:inputs=64,hidden=[8]", (8, 8), "takes 64 numbers a sample; leave out --size"),
    ],
)
def test_a_size_is_needed_or_in_the_way(text: str, size: tuple[int, int] | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        subject_of(parse(text), size)


def test_a_recipe_without_its_data_says_what_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> None:
        raise DataError("data.root: no such folder")

    monkeypatch.setattr("vision.deploy.subjects.build_task", missing)
    with pytest.raises(DataError, match=r"no such folder; or measure its network alone, which needs no data: 'mlp'"):
        subject_of(parse("mlp_digits"))


def test_an_exported_file_is_told_by_what_lies_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "image.pt2"
    file.touch()
    with pytest.raises(ConfigError, match=r"image\.pt2: holds compiled code, and opening it runs .*add --trust"):
        subject_of(parse(str(file)), (64, 64))
    with pytest.raises(ExportedFileError, match=r"no model\.json beside it"):
        subject_of(parse(str(file)), (64, 64), trust=True)
    told = {
        "format": 1, "task": "any", "before": {}, "after": {}, "precision": "int8", "trained": True,
        "run": {"metric": {"val": {"AP": 0.5}}},
        "graphs": {"image": {"file": "image.pt2", "outputs": {}, "inputs": {
            "image": {"shape": ["N", 3, "H", "W"], "dtype": "float32"}, "n": {"shape": ["P"], "dtype": "int64"}}}},
    }  # fmt: skip
    (tmp_path / "model.json").write_text(json.dumps(told))
    found = subject_of(parse(str(file)), (64, 32), people=3, trust=True)
    assert (found.precision, found.trained, found.name.backend) == ("int8", True, "aoti")
    assert {key: value.shape for key, value in found.inputs(2).items()} == {"image": (2, 3, 64, 32), "n": (3,)}
    assert found.figures == {"AP": 0.5, "primary": None, "split": "val"}
    with pytest.raises(ConfigError, match="say which with --size"):
        subject_of(parse(str(file)), trust=True)


def test_figures_of_a_run_are_those_of_its_test_split(tmp_path: Path) -> None:
    assert figures_of(tmp_path) == {}
    for split, value in (("val", 0.5), ("test", 0.75)):
        (tmp_path / "eval" / split).mkdir(parents=True)
        result = {"metrics": {"accuracy": value, "energy_nj": 12.5}, "primary": "accuracy"}
        (tmp_path / "eval" / split / "result.json").write_text(json.dumps(result))
    assert figures_of(tmp_path) == {"accuracy": 0.75, "energy_nj": 12.5, "primary": "accuracy", "split": "test"}
