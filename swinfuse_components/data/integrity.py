"""Check a data list before the hours: every finding at once, each with its file and reason."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .findings import IGNORE, Finding, apply_policy, check_policy, severities
from .paths import UnsafePathError, resolve_inside
from .volumes import Volume, VolumeError, grid_difference, open_volume, read_voxels

_IMAGE_KEYS = ("image", "ct", "mr")
_LABEL_KEYS = ("label", "mask")
_PLAUSIBLE_SPACING = (0.05, 15.0)  # mm
_HOUNSFIELD = (-10000.0, 40000.0)  # padding values and metal in an extended scale lie inside
_LARGEST_LABEL = 2**16


def _found(kind: str, message: str, file: str = "") -> Finding:
    return Finding(kind, file, message)


def _hounsfield_problem(low: float, high: float) -> str | None:
    """Why values of this range cannot be Hounsfield units; every CT of a body has air or fat, which lie below 0."""
    if low >= 0:
        return f"no value below 0 (range {low:g} to {high:g}): rescaled or shifted, expected Hounsfield units"
    if high - low < 50:
        return f"range {low:g} to {high:g} is too narrow for Hounsfield units: rescaled"
    if low < _HOUNSFIELD[0] or high > _HOUNSFIELD[1]:
        return f"range {low:g} to {high:g} lies outside any CT's"
    return None


def _check_image(values: np.ndarray, modality: str | None, file: str) -> list[Finding]:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int(values.size - np.isfinite(values).sum())
        return [_found("not_finite", f"{count} voxel(s) are NaN or infinite", file)]
    low, high = float(values.min()), float(values.max())
    if low == high:
        return [_found("constant", f"every voxel is {low:g}", file)]
    problem = _hounsfield_problem(low, high) if modality == "ct" else None
    if problem:
        return [_found("not_hounsfield", problem, file)]
    if modality == "mr" and low <= -900:
        return [_found("mr_looks_like_ct", f"range {low:g} to {high:g}, declared as MRI", file)]
    return []


def _check_label(values: np.ndarray, declared: frozenset[int] | None, key: str, file: str) -> list[Finding]:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            return [_found("not_finite", "the label map holds NaN or infinity", file)]
        if not np.array_equal(values, np.rint(values)):
            return [_found("label_not_integer", "the label map holds fractions, expected whole numbers", file)]
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= _LARGEST_LABEL:
        return [
            _found("label_values", f"label values from {low} to {high}, expected {sorted(declared or {0})} …", file)
        ]
    present = set(np.flatnonzero(np.bincount(values.ravel().astype(np.int64, copy=False))).tolist())
    if declared is not None and present - declared:
        return [
            _found("label_values", f"undeclared values {sorted(present - declared)}, expected {sorted(declared)}", file)
        ]
    if present == {0}:
        kind = "mask_empty" if key == "mask" else "label_empty"
        return [_found(kind, "holds background alone", file)]
    return []


def _check_header(volume: Volume, channels: int, key: str, roi_size: Sequence[int] | None, file: str) -> list[Finding]:
    shape = volume.shape
    spatial = shape[:3]
    if len(shape) < 3 or min(spatial) < 2 or len(shape) > 4 and max(shape[4:]) > 1:
        return [_found("wrong_dimensions", f"shape {shape}, expected a 3D volume", file)]
    stored = int(np.prod(shape[3:]))
    if key in _LABEL_KEYS and stored != 1:
        return [_found("wrong_dimensions", f"shape {shape}, expected one 3D label map", file)]
    if key in _IMAGE_KEYS and stored != channels:
        kind = "wrong_dimensions" if channels == 1 else "channel_count"
        return [_found(kind, f"shape {shape} has {stored} channel(s), expected {channels}", file)]
    findings = []
    if not volume.oriented:
        findings.append(
            _found("no_orientation", "the header does not say its orientation (sform and qform code 0)", file)
        )
    low, high = _PLAUSIBLE_SPACING
    if volume.spacing.min() < low or volume.spacing.max() > high:
        findings.append(
            _found("unusual_spacing", f"spacing {volume.spacing.round(4).tolist()} mm, expected {low} to {high}", file)
        )
    if roi_size is not None and key in _IMAGE_KEYS and any(s < r for s, r in zip(spatial, roi_size)):
        findings.append(_found("smaller_than_region", f"shape {spatial}, the region is {tuple(roi_size)}", file))
    return findings


class _ItemCheck:
    """All the checks of one item."""

    def __init__(
        self,
        in_channels: int | None,
        labels: frozenset[int] | None,
        roi_size: Sequence[int] | None,
        root: str | None,
        contents: bool,
        required: Sequence[str],
    ) -> None:
        self.in_channels, self.labels, self.roi_size = in_channels, labels, roi_size
        self.root, self.contents, self.required = root, contents, required

    def _files(self, item: Mapping) -> tuple[list[tuple[str, str]], list[Finding]]:
        """(key, path) of the item's files, and what is wrong with the entries themselves."""
        files, findings = [], []
        missing = [key for key in self.required if key not in item]
        if missing or not any(key in item for key in _IMAGE_KEYS):
            expected = list(self.required) or f"one of {list(_IMAGE_KEYS)}"
            return [], [_found("malformed_item", f"keys {[str(key) for key in item]}, expected {expected}")]
        for key in (*_IMAGE_KEYS, *_LABEL_KEYS):
            entries = item.get(key, ())
            if isinstance(entries, list) and not entries:
                findings.append(_found("malformed_item", f"'{key}' is an empty list, expected a path"))
            for path in entries if isinstance(entries, (list, tuple)) else [entries]:
                if not isinstance(path, (str, os.PathLike)) or not os.fspath(path) or "\0" in str(path):
                    findings.append(_found("malformed_item", f"'{key}' is {path!r}, expected a path"))
                    continue
                try:
                    files.append((key, resolve_inside(self.root, path) if self.root else os.fspath(path)))
                except UnsafePathError as error:
                    findings.append(_found("path_outside_root", str(error), str(path)))
        modality = item.get("modality")
        if modality is not None and modality not in ("ct", "mr"):
            findings.append(_found("unknown_modality", f"modality {modality!r}, expected 'ct' or 'mr'"))
        return files, findings

    def _one(self, key: str, path: str, channels: int, modality: str | None) -> tuple[Volume | None, list[Finding]]:
        try:
            volume = open_volume(path)
            findings = _check_header(volume, channels, key, self.roi_size, path)
            if self.contents and not any(f.kind in ("wrong_dimensions", "channel_count") for f in findings):
                values = read_voxels(volume)
                if key in _LABEL_KEYS:
                    findings += _check_label(values, self.labels if key == "label" else None, key, path)
                elif channels > 1:
                    for channel in np.moveaxis(values.reshape(*volume.shape[:3], -1), -1, 0):
                        findings += _check_image(channel, modality, path)
                else:
                    findings += _check_image(values, modality, path)
        except VolumeError as error:
            return None, [_found(error.kind, str(error), path)]
        return volume, findings

    def __call__(self, item: object) -> list[Finding]:
        if not isinstance(item, Mapping):
            return [_found("malformed_item", f"{type(item).__name__} {item!r}, expected a dictionary of paths")]
        files, findings = self._files(item)
        images = [key for key, _ in files if key == "image"]
        if self.in_channels is not None and len(images) > 1 and len(images) != self.in_channels:
            findings.append(_found("channel_count", f"{len(images)} image files, expected {self.in_channels}"))
        reference: tuple[Volume, str] | None = None
        for key, path in files:
            # one file holds all the channels, or each channel has its own file
            channels = (self.in_channels or 1) if key == "image" and len(images) == 1 else 1
            modality = key if key in ("ct", "mr") else item.get("modality")
            volume, problems = self._one(key, path, channels, modality)
            findings += problems
            if volume is None or len(volume.shape) < 3:
                continue
            if reference is None:
                reference = (volume, path)
            elif difference := grid_difference(reference[0], volume):
                findings.append(_found(difference[0], f"{difference[1]} as in '{reference[1]}'", path))
        return findings


def _check_list(items: Sequence, group_key: str) -> Iterable[Finding]:
    if not items:
        yield _found("empty_list", "no items")
    folds: dict[str, set] = defaultdict(set)
    first_use: dict[str, int] = {}
    for number, item in enumerate(items):
        if not isinstance(item, Mapping):
            continue
        if "fold" in item and group_key in item:
            folds[str(item[group_key])].add(str(item["fold"]))
        for key in _IMAGE_KEYS:
            paths = item.get(key, [])
            for path in paths if isinstance(paths, (list, tuple)) else [paths]:
                earlier = first_use.setdefault(str(path), number)
                if earlier != number:
                    yield Finding("duplicate_file", str(path), f"also in item {earlier}", number)
    for group, found in sorted(folds.items()):
        if len(found) > 1:
            yield _found("patient_in_two_folds", f"{group_key} '{group}' is in the folds {sorted(found)}")


def find_problems(
    items: Sequence,
    *,
    in_channels: int | None = None,
    labels: Iterable[int] | None = None,
    roi_size: Sequence[int] | int | None = None,
    root: str | os.PathLike | None = None,
    required: Sequence[str] = (),
    severity: Mapping[str, str] | None = None,
    contents: bool = True,
    group_key: str = "patient",
    workers: int = 2,
) -> list[Finding]:
    """Everything that is wrong with a data list; see :func:`check_datalist` for the arguments."""
    region = (roi_size,) * 3 if isinstance(roi_size, int) else roi_size
    declared = None if labels is None else frozenset(int(value) for value in labels)
    check = _ItemCheck(in_channels, declared, region, None if root is None else os.fspath(root), contents, required)
    findings = list(_check_list(items, group_key))
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:  # reading and inflating files release the lock
        for number, found in enumerate(pool.map(check, items)):
            findings += [Finding(f.kind, f.file, f.message, number) for f in found]
    levels = severities(severity)
    rated = [Finding(f.kind, f.file, f.message, f.item, levels[f.kind]) for f in findings if levels[f.kind] != IGNORE]
    return sorted(rated, key=lambda finding: (finding.item, finding.severity != "fatal"))


def check_datalist(items: Sequence[Mapping], *, policy: str = "strict", **options: object) -> list[dict]:
    """Check every file of a data list and return the items to go on with: the first step of every training.

    Args:
        items: the data list, with ``image`` (a path, or one a channel), ``label``, ``modality``, or ``ct``, ``mr``,
            ``mask``.
        policy: ``"strict"`` stops on any fatal finding; ``"skip"`` leaves the items concerned out; ``"warn"`` keeps
            them.
        options: of :func:`find_problems`:

            - ``in_channels``: channels that an ``image`` must have; 1 by default.
            - ``labels``: the declared label values, e.g. ``task.labels``; any by default.
            - ``roi_size``: the region of interest in voxels; volumes below it are reported (a warning: they are
              padded).
            - ``root``: folder that no path may leave.
            - ``required``: keys that every item must have.
            - ``severity``: changes to :data:`KINDS`, e.g. ``{"smaller_than_region": "fatal"}``.
            - ``contents``: whether to read the voxels, and not the headers alone.
            - ``group_key``: key of the patient. ``workers``: threads that read.

    Returns:
        Copies of the items, without those left out.

    Raises:
        DataListError: with all the findings, if the policy does not allow to go on.
    """
    check_policy(policy)  # before the files are read
    findings = find_problems(items, **options)  # type: ignore[arg-type]
    return apply_policy(items, findings, policy)
