"""Validate a data list before training, inference or evaluation: all findings at once, each with its file."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from .layouts import sequence_of
from .modalities import REGISTRY, implausible_values
from .paths import UnsafePathError, resolve_inside
from .volumes import Volume, VolumeError, grid_difference, open_volume

logger = logging.getLogger(__name__)

_PLAUSIBLE_SPACING = (0.05, 15.0)  # mm


class Kind(str, Enum):
    """Every kind of finding."""

    MALFORMED_ITEM = "malformed_item"
    DUPLICATE_FILE = "duplicate_file"
    PATIENT_IN_TWO_FOLDS = "patient_in_two_folds"
    MISSING_FILE = "missing_file"
    UNREADABLE = "unreadable"
    WRONG_DIMENSIONS = "wrong_dimensions"
    CHANNELS = "channels"
    NO_ORIENTATION = "no_orientation"
    UNUSUAL_SPACING = "unusual_spacing"
    SMALLER_THAN_REGION = "smaller_than_region"
    GRID = "grid"
    NOT_FINITE = "not_finite"
    CONSTANT = "constant"
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
    """One thing that is wrong.

    Attributes:
        kind: what it is.
        file: the file it is about; empty if it is about the list.
        message: what was found and what was expected.
        item: position in the data list; -1 if it is about the list.
        fatal: whether it is an error, or a warning.
    """

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
        self.findings, self.advice = list(findings), advice
        fatal = sum(finding.fatal for finding in findings)
        lines = "\n".join(f"  {finding}" for finding in findings)
        counts = f"{fatal} fatal finding(s) and {len(findings) - fatal} warning(s)"
        super().__init__(f"the data list has {counts}{advice and '; ' + advice}\n{lines}")

    def __reduce__(self) -> tuple:
        return type(self), (self.findings, self.advice)


Findings = list[tuple[Kind, str]]


def check_header(volume: Volume, channels: int | None, roi_size: Sequence[int] | None) -> Findings:
    """Findings about a header; ``channels`` is None for a label map or mask."""
    shape = volume.shape
    stored = int(np.prod(shape[3:]))
    if len(shape) < 3 or min(shape[:3]) < 2 or len(shape) > 4 and max(shape[4:]) > 1:
        return [(Kind.WRONG_DIMENSIONS, f"shape {shape}, expected a 3D volume")]
    if channels is None and stored != 1:
        return [(Kind.WRONG_DIMENSIONS, f"shape {shape}, expected one 3D label map")]
    if channels is not None and stored != channels:
        return [(Kind.CHANNELS, f"shape {shape} has {stored} channel(s), expected {channels}")]
    found: Findings = []
    if not volume.oriented:
        found.append((Kind.NO_ORIENTATION, "the header does not say its orientation (sform and qform code 0)"))
    low, high = _PLAUSIBLE_SPACING
    if volume.spacing.min() < low or volume.spacing.max() > high:
        spacing = volume.spacing.round(4).tolist()
        found.append((Kind.UNUSUAL_SPACING, f"spacing {spacing} mm, expected {low} to {high}"))
    if roi_size is not None and channels is not None and any(s < r for s, r in zip(shape, roi_size)):
        found.append((Kind.SMALLER_THAN_REGION, f"shape {shape[:3]}, the region is {tuple(roi_size)}"))
    return found


def check_image(values: np.ndarray, modality: str | None) -> Findings:
    """Findings about the voxels of one channel."""
    finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(1, bool)
    if not finite.any():
        return [(Kind.CONSTANT, "every voxel is NaN or infinite")]
    if not finite.all():
        return [(Kind.NOT_FINITE, f"{int((~finite).sum())} voxel(s) are NaN or infinite")]
    if values.min() == values.max():
        return [(Kind.CONSTANT, f"every voxel is {float(values.min()):g}")]
    problem = implausible_values(values, REGISTRY[modality]) if modality in REGISTRY else None
    return [(Kind.NOT_HOUNSFIELD if modality == "ct" else Kind.UNUSUAL_RANGE, problem)] if problem else []


def check_label(values: np.ndarray, allowed: frozenset[int] | None, empty: Kind) -> Findings:
    """Findings about a label map or a mask; ``empty`` is the kind for one that holds background alone."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            return [(Kind.NOT_FINITE, "the label map holds NaN or infinity")]
        if not np.array_equal(values, np.rint(values)):
            return [(Kind.LABEL_VALUES, "the label map holds fractions, expected whole numbers")]
    present = {int(value) for value in np.unique(values)}
    if allowed is not None and present - allowed or min(present) < 0:
        return [
            (
                Kind.LABEL_VALUES,
                f"undeclared values {sorted(present - (allowed or {0}))}, expected {sorted(allowed or {0})}",
            )
        ]
    return [(empty, "holds background alone")] if present == {0} else []


@dataclass(frozen=True)
class ItemCheck:
    """All the checks of one item; the arguments are those of :func:`find_problems`."""

    in_channels: int | None = None
    channels: Sequence[str] = ()
    labels: frozenset[int] | None = None
    roi_size: Sequence[int] | None = None
    root: str | None = None
    required: Sequence[str] = ()
    contents: bool = True

    def _resolve(self, path: object) -> str:
        if self.root is None and isinstance(path, str) and path:
            return resolve_inside(os.sep, os.path.abspath(path))
        return resolve_inside(self.root or os.sep, path)

    def _files(self, item: Mapping) -> tuple[list[tuple[str, str]], list[Finding]]:
        """(key, path) of the item's files, and what is wrong with the entries themselves."""
        files, findings = [], []
        image_keys = ("image", *REGISTRY)
        missing = [key for key in self.required if key not in item]
        if missing or not any(key in item for key in image_keys):
            expected = list(self.required) or f"one of {list(image_keys)}"
            message = f"keys {[str(key) for key in item]}, expected {expected}"
            return [], [Finding(Kind.MALFORMED_ITEM, "", message)]
        for key in (*image_keys, "label", "mask"):
            entries = item.get(key, ())
            if not isinstance(entries, (list, tuple)) or not entries and key in item:
                entries = [entries]  # an empty list is no path either
            for path in entries:
                try:
                    files.append((key, self._resolve(path)))
                except UnsafePathError as error:
                    findings.append(Finding(Kind.MALFORMED_ITEM, str(path), f"'{key}': {error}"))
        if item.get("modality") is not None and str(item["modality"]) not in REGISTRY:
            message = f"modality {item['modality']!r}, expected one of {sorted(REGISTRY)}"
            findings.append(Finding(Kind.MALFORMED_ITEM, "", message))
        return files, findings

    def _volume(self, key: str, path: str, channels: int, item: Mapping) -> tuple[Volume | None, list[Finding]]:
        is_label = key in ("label", "mask")
        try:
            volume = open_volume(path)
            found = check_header(volume, None if is_label else channels, self.roi_size)
            if self.contents and not any(kind in (Kind.WRONG_DIMENSIONS, Kind.CHANNELS) for kind, _ in found):
                values = volume.read()
                if is_label:
                    allowed = item.get("allowed_labels", self.labels) if key == "label" else None
                    allowed = None if allowed is None else frozenset(allowed)
                    found += check_label(values, allowed, Kind.MASK_EMPTY if key == "mask" else Kind.LABEL_EMPTY)
                else:
                    modality = item.get("modality") if key == "image" else key
                    for channel in np.moveaxis(values.reshape(*volume.shape[:3], -1), -1, 0):
                        found += check_image(channel, modality)
        except FileNotFoundError as error:
            return None, [Finding(Kind.MISSING_FILE, path, str(error))]
        except VolumeError as error:
            return None, [Finding(Kind.UNREADABLE, path, str(error))]
        return volume, [Finding(kind, path, message) for kind, message in found]

    def __call__(self, item: object) -> list[Finding]:
        if not isinstance(item, Mapping):
            message = f"{type(item).__name__} {item!r}, expected a dictionary of paths"
            return [Finding(Kind.MALFORMED_ITEM, "", message)]
        files, findings = self._files(item)
        images = [path for key, path in files if key == "image"]
        if self.in_channels is not None and len(images) > 1 and len(images) != self.in_channels:
            message = f"{len(images)} image files, expected {self.in_channels}"
            findings.append(Finding(Kind.CHANNELS, images[0], message))
        for path, name in zip(images, self.channels if len(images) > 1 else ()):
            stored, meant = sequence_of(path), sequence_of(name)
            if stored and meant and stored != meant:
                findings.append(Finding(Kind.CHANNELS, path, f"its name says {stored}, expected {name} at this place"))
        reference: Volume | None = None
        for key, path in files:
            # one file holds all the channels, or each channel has its own file
            channels = (self.in_channels or 1) if key == "image" and len(images) == 1 else 1
            volume, found = self._volume(key, path, channels, item)
            findings += found
            if volume is None or len(volume.shape) < 3:
                continue
            reference = reference or volume
            if difference := grid_difference(reference, volume):
                findings.append(Finding(Kind.GRID, path, f"{difference} as in '{reference.path}'"))
        return findings


def _check_list(items: Sequence) -> Iterable[Finding]:
    if not items:
        yield Finding(Kind.MALFORMED_ITEM, "", "no items")
    folds: dict[str, set] = defaultdict(set)
    first_use: dict[str, int] = {}
    for number, item in enumerate(items):
        if not isinstance(item, Mapping):
            continue
        if "fold" in item and "patient" in item:
            folds[str(item["patient"])].add(str(item["fold"]))
        for key in ("image", *REGISTRY):
            paths = item.get(key, [])
            for path in paths if isinstance(paths, (list, tuple)) else [paths]:
                earlier = first_use.setdefault(str(path), number)
                if earlier != number:
                    yield Finding(Kind.DUPLICATE_FILE, str(path), f"also in item {earlier}", number)
    for patient, found in sorted(folds.items()):
        if len(found) > 1:
            message = f"patient '{patient}' is in the folds {sorted(found)}"
            yield Finding(Kind.PATIENT_IN_TWO_FOLDS, "", message)


def find_problems(
    items: Sequence,
    *,
    in_channels: int | None = None,
    channels: Sequence[str] = (),
    labels: Iterable[int] | None = None,
    roi_size: Sequence[int] | int | None = None,
    root: str | os.PathLike | None = None,
    required: Sequence[str] = (),
    contents: bool = True,
    workers: int = 2,
    warnings: Collection[Kind] = WARNINGS,
) -> list[Finding]:
    """Everything that is wrong with a data list; see :func:`check_datalist` for the arguments."""
    check = ItemCheck(
        in_channels=in_channels,
        channels=channels,
        labels=None if labels is None else frozenset(int(value) for value in labels),
        roi_size=(roi_size,) * 3 if isinstance(roi_size, int) else roi_size,
        root=None if root is None else os.fspath(root),
        required=required,
        contents=contents,
    )
    findings = list(_check_list(items))
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:  # reading and inflating files release the lock
        for number, found in enumerate(pool.map(check, items)):
            findings += [replace(finding, item=number) for finding in found]
    findings = [replace(finding, fatal=finding.kind not in warnings) for finding in findings]
    return sorted(findings, key=lambda finding: (finding.item, not finding.fatal))


def check_datalist(items: Sequence[Mapping], *, policy: str = "strict", **options: object) -> list[dict]:
    """Check every file of a data list and return the items to go on with: the first step of every training.

    Args:
        items: the data list, with ``image`` (a path, or one a channel), ``label``, ``modality``, or a path under the
            name of each modality (``ct``, ``mr``), and ``mask``.
        policy: ``"strict"`` stops on any fatal finding; ``"skip"`` leaves the items concerned out and lists them in the
            log; ``"warn"`` keeps them, at the user's own risk.
        options: of :func:`find_problems`:

            - ``in_channels``: channels that an ``image`` must have; 1 by default.
            - ``channels``: their names, compared with the names of the files where these say a sequence of MRI.
            - ``labels``: the declared label values, e.g. ``task.labels``; any by default. An item's own
              ``allowed_labels`` go first.
            - ``roi_size``: the region of interest in voxels; volumes below it are reported.
            - ``root``: folder that no path may leave.
            - ``required``: keys that every item must have.
            - ``contents``: whether to read the voxels, and not the headers alone.
            - ``workers``: threads that read. ``warnings``: kinds that are not fatal.

    Returns:
        Copies of the items, without those left out.

    Raises:
        DataListError: with all the findings, if the policy does not allow to go on, or no item is left.
        ValueError: if the policy is unknown.
    """
    if policy not in ("strict", "skip", "warn"):
        raise ValueError(f"policy={policy!r}: expected 'strict', 'skip' or 'warn'")
    found = find_problems(items, **options)  # type: ignore[arg-type]
    fatal = [finding for finding in found if finding.fatal]
    dropped = {finding.item for finding in fatal} if policy == "skip" else set()
    if fatal and policy == "strict" or -1 in dropped or len(dropped) == len(items):
        raise DataListError(found, "the policy 'skip' leaves the items concerned out, 'warn' keeps them")
    for finding in found:
        logger.warning("%s", finding)
    if dropped:
        logger.warning("left out %d of %d items of the data list", len(dropped), len(items))
    else:
        logger.info("data list checked: %d items, %d findings", len(items), len(found))
    return [dict(item) for number, item in enumerate(items) if number not in dropped]
