"""Matrices and bins that results hold, ready to stand in a page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vision.report.runs import Run
from vision.report.tables import Row, Table, aligned

MOST_LABELS = 26
"""A matrix of more rows is shown as a picture, without its numbers."""

ACCENT = (37, 99, 200)
"""Colour of a full cell in that picture; it reads on light and on dark."""


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and its share of its row (or of the largest value) in percent."""

    text: str
    share: int


@dataclass(frozen=True)
class Matrix:
    """A matrix as a heat map.

    Attributes:
        title: what it shows.
        labels: of rows and columns.
        rows: cells, row by row; empty where it is shown as a picture.
        picture: the ``data:`` source of that picture, or an empty string.
        note: what the colour means.
    """

    title: str
    labels: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    picture: str
    note: str


def matrices_of(run: Run) -> list[Matrix]:
    """The matrices in a run's results."""
    return [_matrix(name, key, table) for name, key, table in _tables(run, "matrix")]


def bins_of(run: Run) -> list[Table]:
    """The tables of bins in a run's results."""
    return [_bins(name, key, table) for name, key, table in _tables(run, "bins")]


def _tables(run: Run, kind: str) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (name, key, table)
        for name, result in run.results.items()
        for key, table in (result.get("tables") or {}).items()
        if table.get("type") == kind
    ]


def _matrix(evaluation: str, key: str, table: dict[str, Any]) -> Matrix:
    values = table["values"]
    array = np.array([[float("nan") if v is None else v for v in row] for row in values], float)
    shares, note = _shares(array)
    axes = [f"{word}: {table[at]}" for word, at in (("Rows", "y_label"), ("columns", "x_label")) if table.get(at)]
    note = f"{', '.join(axes)}. {note}" if axes else note
    title = f"{table.get('title') or key} ({evaluation})"
    labels = tuple(str(label) for label in table.get("labels") or range(len(values)))
    if len(values) > MOST_LABELS:
        return Matrix(title, labels, (), _picture(shares), note)
    texts = [aligned(row) for row in values]
    rows = tuple(
        tuple(Cell(text, round(100 * float(share))) for text, share in zip(*both, strict=True))
        for both in zip(texts, shares, strict=True)
    )
    return Matrix(title, labels, rows, "", note)


def _shares(array: np.ndarray) -> tuple[np.ndarray, str]:
    """How full each cell is, in [0, 1]: counts by their row, anything else by the largest."""
    known = np.nan_to_num(np.abs(array))
    counts = bool(np.isfinite(array).all() and (array >= 0).all() and (array == np.round(array)).all())
    if counts:
        return known / np.maximum(known.sum(axis=1, keepdims=True), 1), "Colour: share of the row."
    return known / max(float(known.max(initial=0.0)), 1e-300), "Colour: size against the largest."


def _picture(shares: np.ndarray) -> str:
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3] = ACCENT
    pixels[..., 3] = np.rint(255 * np.sqrt(shares)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _bins(evaluation: str, key: str, table: dict[str, Any]) -> Table:
    columns, rows = [str(c) for c in table["columns"]], table["rows"]
    texts: Sequence[Sequence[str]] = [aligned([row[i] for row in rows]) for i in range(1, len(columns))]
    names = [f"{row[0]:.4g}" if isinstance(row[0], float) else str(row[0]) for row in rows]
    body = tuple(Row(name, tuple(column[i] for column in texts)) for i, name in enumerate(names))
    return Table(f"{table.get('title') or key} ({evaluation})", tuple(columns[1:]), body, corner=columns[0])
