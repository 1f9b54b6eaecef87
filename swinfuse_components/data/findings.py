"""What can be wrong with a data list: the kinds of findings, which of them are fatal, and what is done about them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)

FATAL, WARNING, IGNORE = "fatal", "warning", "ignore"

KINDS: dict[str, str] = {
    # the list
    "empty_list": FATAL,
    "malformed_item": FATAL,
    "path_outside_root": FATAL,
    "duplicate_file": WARNING,
    "patient_in_two_folds": FATAL,
    "unknown_modality": FATAL,
    # the file
    "missing_file": FATAL,
    "empty_file": FATAL,
    "unreadable": FATAL,
    "too_large": FATAL,
    "bad_header": FATAL,
    "no_orientation": WARNING,
    "wrong_dimensions": FATAL,
    "channel_count": FATAL,
    "unusual_spacing": WARNING,
    "smaller_than_region": WARNING,
    # the voxels
    "not_finite": FATAL,
    "constant": FATAL,
    "not_hounsfield": FATAL,
    "mr_looks_like_ct": WARNING,
    # image and label, CT and MRI, channel and channel
    "grid_shape": FATAL,
    "grid_orientation": FATAL,
    "grid_spacing": FATAL,
    "grid_affine": FATAL,
    # the label
    "label_not_integer": FATAL,
    "label_values": FATAL,
    "label_empty": WARNING,
    "mask_empty": WARNING,
}
"""Every kind of finding and its default severity: ``fatal`` or ``warning``."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: a key of :data:`KINDS`.
        file: the file it is about; empty if it is about the list.
        message: what was found and what was expected.
        item: position in the data list; -1 if it is about the list.
        severity: ``"fatal"`` or ``"warning"``.
    """

    kind: str
    file: str
    message: str
    item: int = -1
    severity: str = FATAL

    def __str__(self) -> str:
        where = self.file or (f"item {self.item}" if self.item >= 0 else "data list")
        return f"{self.severity}: {where}: {self.message} [{self.kind}]"


class DataListError(ValueError):
    """A data list with fatal findings; ``findings`` holds them all, warnings too."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = list(findings)
        fatal = sum(finding.severity == FATAL for finding in findings)
        lines = "\n".join(f"  {finding}" for finding in findings)
        super().__init__(
            f"the data list has {fatal} fatal finding(s) and {len(findings) - fatal} warning(s); the policy 'skip' "
            f"leaves the items concerned out, 'warn' keeps them\n{lines}"
        )

    def __reduce__(self) -> tuple:
        return type(self), (self.findings,)


def severities(changes: Mapping[str, str] | None) -> dict[str, str]:
    """The severity of each kind, with ``changes`` such as ``{"smaller_than_region": "fatal", "constant": "ignore"}``.

    Raises:
        ValueError: on an unknown kind or severity.
    """
    for kind, severity in (changes or {}).items():
        if kind not in KINDS or severity not in (FATAL, WARNING, IGNORE):
            raise ValueError(
                f"severity {{{kind!r}: {severity!r}}}: expected 'fatal', 'warning' or 'ignore' for one of {list(KINDS)}"
            )
    return {**KINDS, **(changes or {})}


def check_policy(policy: str) -> None:
    """Raise a ValueError unless ``policy`` is ``strict``, ``skip`` or ``warn``."""
    if policy not in ("strict", "skip", "warn"):
        raise ValueError(f"policy={policy!r}: expected 'strict', 'skip' or 'warn'")


def apply_policy(items: Sequence, findings: Iterable[Finding], policy: str) -> list[dict]:
    """The items to go on with, after all the findings are known.

    ``strict`` goes on only without a fatal finding; ``skip`` drops the items that have one, and lists them in the log;
    ``warn`` lists them and keeps all items, at the user's own risk. With no item left, none of them goes on, and
    neither do ``strict`` and ``skip`` with a fatal finding about the list as a whole.

    Raises:
        DataListError: if the policy does not allow to go on, or nothing is left.
        ValueError: if the policy is unknown.
    """
    check_policy(policy)
    found = list(findings)
    fatal = [finding for finding in found if finding.severity == FATAL]
    dropped = {finding.item for finding in fatal if finding.item >= 0} if policy != "warn" else set()
    if policy != "warn" and fatal and (policy == "strict" or any(finding.item < 0 for finding in fatal)):
        raise DataListError(found)
    if len(dropped) == len(items):
        raise DataListError(found)
    for finding in found:
        logger.warning("%s", finding)
    if dropped:
        logger.warning("left out %d of %d items of the data list", len(dropped), len(items))
    else:
        logger.info("data list checked: %d items, %d warnings", len(items), len(found))
    return [dict(item) for number, item in enumerate(items) if number not in dropped]
