"""One attack on a data set, an example a row: a file that grows by whole batches and goes on after a kill."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vision.engine.errors import DataError
from vision.engine.files import make_folder, write_atomically

LOGGERS = ("robust", "auto-attack")
"""Whose warnings are kept with the batch they came with: ours and the library's."""


@dataclass(frozen=True)
class Row:
    """One attacked image.

    Attributes:
        id: the image's.
        label: its class.
        logits: of the attacked image, one a class.
        size: norm of the change.
        broken_by: the part of the attack that fooled the network, ``clean`` where it was wrong without any, or an
            empty string where it stood.
    """

    id: str
    label: int
    logits: list[float]
    size: float
    broken_by: str

    @property
    def robust(self) -> bool:
        """Whether the network was right under the attack and without it."""
        return not self.broken_by


class AttackTable:
    """Rows of one attack, kept in a file of one JSON line a batch.

    Its first line says what was attacked and how; a batch's line also holds what was warned of while it was attacked.
    A line that a kill cut short is dropped; batches are known by their number, so that none counts twice.

    Args:
        path: the file; made with the first batch.
        about: weights, attack, threat model, data and seed. A file about anything else is refused.

    Raises:
        DataError: the file is about another evaluation, or is none of ours.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path = path
        self.about: dict[str, Any] = json.loads(json.dumps(about))
        self._batches: dict[int, list[Row]] = {}
        self._warnings: dict[int, list[str]] = {}
        if path.is_file():
            self._read()

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._batches.values())

    @property
    def rows(self) -> list[Row]:
        """All rows, in the order of the data.

        Raises:
            DataError: an image stands in two batches.
        """
        rows = [row for number in sorted(self._batches) for row in self._batches[number]]
        if len({row.id for row in rows}) != len(rows):
            raise DataError(f"{self.path}: an image stands in it twice; delete the file and evaluate again")
        return rows

    @property
    def warnings(self) -> list[str]:
        """What was warned of in any batch, each text once."""
        return list(dict.fromkeys(text for number in sorted(self._warnings) for text in self._warnings[number]))

    def fill(self, batches: int, judge: Callable[[int], Sequence[Row]]) -> list[Row]:
        """Judges the batches that are not there yet, each written before the next is begun.

        Args:
            batches: how many there are.
            judge: the rows of a batch, by its number.

        Returns:
            All rows.
        """
        for number in range(batches):
            if number not in self._batches:
                with heard() as warnings:
                    rows = list(judge(number))
                self._append(number, rows, warnings)
        return self.rows

    def _append(self, number: int, rows: list[Row], warnings: list[str]) -> None:
        line = json.dumps({"batch": number, "rows": [asdict(row) for row in rows], "warnings": warnings}) + "\n"
        if not self.path.exists():
            make_folder(self.path.parent)
            line = json.dumps({"about": self.about}) + "\n" + line
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        self._batches[number], self._warnings[number] = rows, warnings

    def _read(self) -> None:
        whole = self.path.read_text(encoding="utf-8")
        *lines, rest = whole.split("\n")  # a line counts once its end is on disk
        if not lines:
            self.path.unlink()
            return
        try:
            about = json.loads(lines[0])["about"]
            for line in lines[1:]:
                found = json.loads(line)
                number = int(found["batch"])
                self._batches.setdefault(number, [Row(**row) for row in found["rows"]])
                self._warnings.setdefault(number, [str(text) for text in found["warnings"]])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path}: not a table of an attack ({error}); delete it and evaluate again") from error
        changed = [k for k in sorted({*about, *self.about}) if about.get(k) != self.about.get(k)]
        if changed:
            key = changed[0]
            raise DataError(
                f"{self.path}: was made with another {key} ({about.get(key)}, now {self.about.get(key)}); "
                "delete it, or choose another folder"
            )
        if rest:
            write_atomically(self.path, "".join(line + "\n" for line in lines).encode())


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.texts:
            self.texts.append(text)


@contextmanager
def heard(names: Sequence[str] = LOGGERS) -> Iterator[list[str]]:
    """Inside, the texts of what the named loggers warn of are also put into the list, each once."""
    ear, loggers = _Ear(), [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addHandler(ear)
    try:
        yield ear.texts
    finally:
        for logger in loggers:
            logger.removeHandler(ear)
