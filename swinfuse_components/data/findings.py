"""What checks of data lists find, the error that holds it all, and the file that keeps it for the next check."""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from .caching import item_key


class Kind(str, Enum):
    """Every kind of finding."""

    MALFORMED_ITEM = "malformed_item"
    DUPLICATE_FILE = "duplicate_file"
    IMAGE_IN_TWO_FOLDS = "image_in_two_folds"
    PATIENT_IN_TWO_FOLDS = "patient_in_two_folds"
    MISSING_FILE = "missing_file"
    UNREADABLE = "unreadable"
    WRONG_DIMENSIONS = "wrong_dimensions"
    CHANNELS = "channels"
    NO_ORIENTATION = "no_orientation"
    UNUSUAL_SPACING = "unusual_spacing"
    SMALLER_THAN_REGION = "smaller_than_region"
    TOO_LARGE = "too_large"
    GRID = "grid"
    NOT_FINITE = "not_finite"
    CONSTANT = "constant"
    BEYOND_FLOAT = "beyond_float"
    NOT_HOUNSFIELD = "not_hounsfield"
    UNUSUAL_RANGE = "unusual_range"
    LABEL_VALUES = "label_values"
    LABEL_EMPTY = "label_empty"
    MASK_EMPTY = "mask_empty"


WARNINGS = {Kind.DUPLICATE_FILE, Kind.NO_ORIENTATION, Kind.UNUSUAL_SPACING, Kind.SMALLER_THAN_REGION}
WARNINGS |= {Kind.UNUSUAL_RANGE, Kind.LABEL_EMPTY}
"""Kinds that do not stop a training; all others do."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, with a file ("": the list) and a position in the data list (-1: the list)."""

    kind: Kind
    file: str
    message: str
    item: int = -1
    fatal: bool = True

    def __str__(self) -> str:
        where = self.file or (f"item {self.item}" if self.item >= 0 else "data list")
        return f"{'fatal' if self.fatal else 'warning'}: {where}: {self.message} [{self.kind.value}]"


class DataListError(ValueError):
    """A data list with fatal findings; ``findings`` holds them all, warnings too."""

    def __init__(self, findings: Sequence[Finding], advice: str = "") -> None:
        super().__init__(findings, advice)
        self.findings, self.advice = list(findings), advice

    def __str__(self) -> str:
        fatal = sum(finding.fatal for finding in self.findings)
        lines = "\n".join(f"  {finding}" for finding in self.findings)
        counts = f"{fatal} fatal finding(s) and {len(self.findings) - fatal} warning(s)"
        return f"the data list has {counts}{self.advice and '; ' + self.advice}\n{lines}"


class CheckRecord:
    """Findings by item in a file, one line of JSON for each, so that a check that was interrupted goes on there.

    An item whose entries or files have changed, or that was checked by other ``rules`` (settings of the check), counts
    as new. Without a ``path`` nothing is kept.
    """

    def __init__(self, path: str | os.PathLike | None, rules: Mapping[str, Any]) -> None:
        self.path, self.rules = Path(path) if path else None, json.dumps(rules, default=str, sort_keys=True)
        self.found: dict[str, list[Finding]] = {}
        self._lock = threading.Lock()
        lines = self.path.read_text("utf-8", "replace").splitlines() if self.path and self.path.is_file() else []
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):  # the line at which a run was killed
                key, findings = json.loads(line)
                self.found[key] = [Finding(Kind(kind), file, message) for kind, file, message in findings]

    def findings_of(self, item: object, check: Callable[[Any], Iterable[Finding]]) -> list[Finding]:
        """Findings of an item as they are kept, or else those of ``check``, which are kept from now on."""
        if not self.path:
            return list(check(item))
        key = item_key(item if isinstance(item, Mapping) else {"item": repr(item)}, self.rules).decode()
        if key not in self.found:
            self.found[key] = list(check(item))
            line = json.dumps([key, [(finding.kind, finding.file, finding.message) for finding in self.found[key]]])
            with self._lock:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as stream:
                    stream.write("\n" + line)  # the line before may have been cut by a kill
        return self.found[key]
