"""Sizes of engines: by what a description tells, or as they are given."""

from typing import Any

import pytest

from vision.deploy.description import Description, GraphFile, Port
from vision.deploy.profiles import Span, parse_span, require_inside, shapes_of, spans, told
from vision.engine.errors import ConfigError


def of(before: dict[str, Any], after: dict[str, Any] | None = None, **graphs: dict[str, Port]) -> Description:
    files = {name: GraphFile(f"{name}.onnx", inputs, {}) for name, inputs in graphs.items()}
    return Description("task", files, before, after or {}, {})


def image(*shape: int | str, smallest: int = 1, multiple: int = 1) -> dict[str, Port]:
    return {"image": Port(shape, "float32", multiple, smallest)}


CROPS = of({"type": "crop"}, model=image("N", 3, 256, 192))
PEOPLE = of(
    {"type": "whole", "short": 512},
    {"most": 30},
    image=image("N", 3, "H", "W", smallest=4),
    people={
        "shared": Port((1, 32, "h", "w"), "float32"),
        "vectors": Port(("P", 480), "float32"),
        "coords": Port(("P", 2), "int64"),
    },
)
INFRARED = of({"type": "infrared"}, model=image("N", 1, "H", "W", smallest=80, multiple=16))


def test_crops_come_as_many_as_the_runner_takes_at_once() -> None:
    sizes = spans(CROPS, {})
    assert told(sizes) == {"N": [1, 1, 32]}
    assert shapes_of(CROPS.graphs["model"], sizes) == {"image": ((1, 3, 256, 192), (1, 3, 256, 192), (32, 3, 256, 192))}


def test_photographs_and_their_people() -> None:
    sizes = spans(PEOPLE, {})
    assert told(sizes) == {
        "H": [256, 512, 2048], "N": [1, 1, 2], "P": [1, 4, 30], "W": [256, 512, 2048], "h": [64, 128, 512],
        "w": [64, 128, 512],
    }  # fmt: skip
    shapes = shapes_of(PEOPLE.graphs["people"], sizes)
    assert shapes["shared"] == ((1, 32, 64, 64), (1, 32, 128, 128), (1, 32, 512, 512))
    assert shapes["coords"] == ((1, 2), (4, 2), (30, 2))


def test_cells_follow_the_rows_that_are_given() -> None:
    sizes = spans(PEOPLE, {"H": Span(64, 128, 256)})
    assert told({"h": sizes["h"], "w": sizes["w"]}) == {"h": [16, 32, 64], "w": [64, 128, 512]}


def test_sides_hold_to_the_smallest_and_the_multiple() -> None:
    assert told({"H": spans(INFRARED, {})["H"]}) == {"H": [80, 256, 1024]}
    wide = of({"type": "infrared"}, model=image("N", 1, "H", "W", smallest=300, multiple=7))
    assert told({"H": spans(wide, {})["H"]}) == {"H": [301, 301, 1204]}


def test_an_input_without_open_axes_has_no_profile() -> None:
    fixed = of({"type": "frames"}, model=image(2, 3, 8, 8))
    assert spans(fixed, {}) == {}
    assert shapes_of(fixed.graphs["model"], {}) == {}


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such open axis, only N"):
        spans(CROPS, {"H": Span(1, 2, 3)})
    with pytest.raises(ConfigError, match="profile H=64:128:256: expected sides of 80 or more, multiples of 16"):
        spans(INFRARED, {"H": Span(64, 128, 256)})
    with pytest.raises(ConfigError, match="multiples of 16"):
        spans(INFRARED, {"W": Span(80, 100, 256)})
    for text in ("N=4:2:8", "N=0:1:2"):
        with pytest.raises(ConfigError, match="smallest:best:largest in this order"):
            parse_span(text)
    for text in ("N", "N=1:2", "N=a:b:c", "NN=1:2:3"):
        with pytest.raises(ConfigError, match="LETTER=SMALLEST:BEST:LARGEST"):
            parse_span(text)


@pytest.mark.parametrize(("shape", "fits"), [((1, 8), True), ((4, 8), True), ((5, 8), False), ((4, 8, 1), False)])
def test_inputs_outside_a_profile(shape: tuple[int, ...], fits: bool) -> None:
    profile = {"image": [[1, 8], [2, 8], [4, 8]]}
    require_inside(profile, "other", shape, "graph")
    if fits:
        require_inside(profile, "image", shape, "graph")
    else:
        with pytest.raises(ConfigError, match=r"'image' is .*built for \[1, 8\] to \[4, 8\].*--profile"):
            require_inside(profile, "image", shape, "graph")
