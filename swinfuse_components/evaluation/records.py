"""Scores on disk, one row a case, so that a run that stops has lost nothing and a second one goes on."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..engines.files import atomic_write


@dataclass
class Row:
    """Scores of one class of one case by one model. Distances in mm, volumes in cubic mm."""

    model: str
    trained_on: str
    view: str
    target: str
    case: str
    patient: str
    label: str
    dice: float
    surface_distance: float
    hausdorff95: float
    sensitivity: float
    truth_volume: float
    predicted_volume: float
    seconds: float
    fingerprint: str

    @property
    def key(self) -> tuple[str, ...]:
        """What makes a row the only one of its kind, its class aside."""
        return (self.model, self.trained_on, self.view, self.target, self.case)


NUMBERS = tuple(f.name for f in fields(Row) if f.type == "float")
COLUMNS = tuple(f.name for f in fields(Row))


class CaseTable:
    """A CSV file of :class:`Row`, appended to case by case and flushed to disk.

    Args:
        path: the file; made with its folder if missing. A last line that was cut short by a crash is dropped.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: list[Row] = self._read()

    def _read(self) -> list[Row]:
        if not self.path.is_file():
            return []
        rows = []
        with self.path.open(newline="", encoding="utf-8") as file:
            for record in csv.DictReader(file):
                if None in record or None in record.values():
                    continue
                try:
                    values: dict[str, Any] = {
                        c: float(record[c]) if c in NUMBERS else _unquoted(record[c]) for c in COLUMNS
                    }
                except (KeyError, ValueError):
                    continue
                rows.append(Row(**values))
        return rows

    def replace(self, rows: Iterable[Row]) -> None:
        """Write ``rows`` as the whole table, in one step."""
        self.rows = list(rows)
        with atomic_write(self.path) as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(_safe(asdict(row)) for row in self.rows)

    def append(self, rows: Iterable[Row]) -> None:
        """Add the rows of one case, and see them on disk before the next is begun."""
        added = list(rows)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerows(_safe(asdict(row)) for row in added)
            file.flush()
            os.fsync(file.fileno())
        self.rows.extend(added)


def _quoted(cell: Any) -> Any:
    """Text that a spreadsheet would take for a formula, with an apostrophe before it; anything else as it is."""
    return f"'{cell}" if isinstance(cell, str) and re.match(r"[=+\-@\t\r].", cell) else cell


def _unquoted(text: str) -> str:
    return text[1:] if re.match(r"'[=+\-@\t\r].", text) else text


def _safe(record: dict[str, Any]) -> dict[str, Any]:
    return {key: _quoted(value) for key, value in record.items()}


def write_csv(path: str | Path, records: Iterable[dict[str, Any]]) -> Path:
    """Write dictionaries of the same keys as CSV; an empty table has no columns.

    Returns:
        the path.
    """
    path, records = Path(path), list(records)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        if records:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(map(_safe, records))
    return path
