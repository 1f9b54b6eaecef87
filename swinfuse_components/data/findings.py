"""What checks of data lists find, and the error that holds it all."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


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
