"""Pictures of measured speed: which rows are comparable, and what is drawn."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from vision.report.speed import comparable, draw

Row = dict[str, Any]


def row(what: str, batch: int, speed: float, value: float | None = None, figure: str = "AP") -> Row:
    accuracy = None if value is None else {"figure": figure, "value": value, "split": "val"}
    return {"what": what, "batch": batch, "samples_a_second": speed, "accuracy": accuracy}


def test_the_fastest_row_of_each_thing_of_the_usual_figure_is_comparable() -> None:
    rows = [
        row("a", 1, 10, 0.5),
        row("a", 4, 20, 0.5),
        row("b", 1, 30, 0.4),
        row("c", 1, 40, 0.9, "accuracy"),
        row("d", 1, 5),
    ]
    assert [(each["what"], each["batch"]) for each in comparable(rows)] == [("a", 4), ("b", 1)]


def test_one_thing_is_comparable_with_nothing() -> None:
    assert comparable([row("a", 1, 10, 0.5), row("a", 2, 20, 0.5), row("b", 1, 3)]) == []
    assert comparable([row("a", 1, 10), row("b", 1, 10)]) == []


def pixels(rows: list[Row]) -> np.ndarray[Any, Any]:
    with Image.open(BytesIO(draw(rows, "a machine"))) as image:
        return np.asarray(image.convert("RGB"))


def test_accuracy_has_a_panel_of_its_own() -> None:
    plain = [row("a", 1, 10), row("a", 2, 15), row("b", 1, 20)]
    judged = [row(each["what"], each["batch"], each["samples_a_second"], 0.5) for each in plain]
    assert pixels(judged).shape[1] > 1.5 * pixels(plain).shape[1]


def test_every_thing_has_its_colour() -> None:
    """The blue and the orange of the first two lines stand in the picture of two, the blue alone in that of one."""
    blue, orange = np.array([0x2A, 0x6F, 0xBB]), np.array([0xD1, 0x64, 0x2C])
    one, two = pixels([row("a", 1, 10), row("a", 2, 15)]), pixels([row("a", 1, 10), row("b", 1, 20)])

    def there(image: np.ndarray[Any, Any], colour: np.ndarray[Any, Any]) -> bool:
        return bool((image == colour).all(-1).any())

    assert (there(one, blue), there(one, orange)) == (True, False)
    assert (there(two, blue), there(two, orange)) == (True, True)
