"""Validate a data list before training, inference or evaluation: all findings at once, each with its file."""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from monai.utils import ensure_tuple, ensure_tuple_rep
from tqdm import tqdm

from .findings import WARNINGS, CheckRecord, DataListError, Finding, Kind
from .layouts import channel_of
from .modalities import REGISTRY, implausible_values, path_keys
from .paths import UnsafePathError, resolve_inside
from .volumes import LARGEST_VALUE, Volume, VolumeError, grid_difference, open_volume, too_large

logger = logging.getLogger(__name__)

_PLAUSIBLE_SPACING = (0.05, 15.0)  # mm
_NOT_READ = {Kind.WRONG_DIMENSIONS, Kind.CHANNELS, Kind.TOO_LARGE}


@dataclass(frozen=True)
class _Rules:
    """What the items must be; the attributes are arguments of :func:`check_datalist`."""

    in_channels: int | None = None
    channels: Sequence[str] = ()
    labels: Collection[int] | None = None
    roi_size: Sequence[int] | int | None = None
    spacing: Sequence[float] | None = None
    root: str | os.PathLike | None = None
    required: Sequence[str] = ()
    contents: bool = True
    modality: str | None = None
    check_source: Callable[[str], None] | None = None


def _check_header(volume: Volume, channels: int, is_label: bool, rules: _Rules) -> Iterator[tuple[Kind, str]]:
    shape, spacing, (low, high) = volume.shape, volume.spacing, _PLAUSIBLE_SPACING
    stored = int(np.prod(shape[3:]))
    if len(shape) < 3 or min(shape[:3]) < 2 or len(shape) > 4 and max(shape[4:]) > 1:
        yield Kind.WRONG_DIMENSIONS, f"shape {shape}, expected a 3D volume"
    elif is_label and stored != 1:
        yield Kind.WRONG_DIMENSIONS, f"shape {shape}, expected one 3D label map"
    elif stored != channels:
        yield Kind.CHANNELS, f"shape {shape} has {stored} channel(s), expected {channels}"
    if not volume.oriented:
        yield Kind.NO_ORIENTATION, "the header does not say its orientation (sform and qform code 0)"
    if spacing.min() < low or spacing.max() > high:
        yield Kind.UNUSUAL_SPACING, f"spacing {spacing.round(4).tolist()} mm, expected {low} to {high}"
    apart = volume.distances
    if apart.size and np.ptp(apart) > 0.1 * np.median(apart):
        found = f"{apart.min():g} to {apart.max():g} mm"
        yield Kind.UNUSUAL_SPACING, f"neighbouring slices are {found} apart: some are missing, or the spacing varies"
    if rules.spacing is not None and (problem := too_large(shape[:3], volume.affine, rules.spacing)):
        yield Kind.TOO_LARGE, problem
    region = ensure_tuple_rep(rules.roi_size or 0, 3)
    if not is_label and any(side < wanted for side, wanted in zip(shape, region)):
        yield Kind.SMALLER_THAN_REGION, f"shape {shape[:3]}, the region is {region}"


def check_image(values: np.ndarray, modality: str | None) -> Iterator[tuple[Kind, str]]:
    """Findings about the voxels of one channel."""
    finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(1, bool)
    if not finite.any():
        yield Kind.CONSTANT, "every voxel is NaN or infinite"
    elif not finite.all():
        yield Kind.NOT_FINITE, f"{int((~finite).sum())} voxel(s) are NaN or infinite"
    elif max(-float(values.min()), float(values.max())) > LARGEST_VALUE:
        yield Kind.BEYOND_FLOAT, f"values from {values.min():g} to {values.max():g} are beyond 32-bit floating point"
    elif values.min() == values.max():
        yield Kind.CONSTANT, f"every voxel is {float(values.min()):g}"
    elif modality in REGISTRY and (problem := implausible_values(values, REGISTRY[modality])):
        yield Kind.NOT_HOUNSFIELD if modality == "ct" else Kind.UNUSUAL_RANGE, problem


def _check_label(values: np.ndarray, allowed: Collection[int] | None, empty: Kind) -> Iterator[tuple[Kind, str]]:
    """Findings about a label map or a mask; ``empty`` is the kind for one that holds background alone."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        yield Kind.NOT_FINITE, "the label map holds NaN or infinity"
        return
    present = np.unique(values).tolist()
    wrong = [value for value in present if value < 0 or value != int(value) or value not in (allowed or present)]
    if wrong:
        what = "fractions, expected whole numbers:" if any(value != int(value) for value in wrong) else "the values"
        yield Kind.LABEL_VALUES, f"holds {what} {wrong[:10]}, declared are {sorted(allowed or {0})}"
    elif present == [0]:
        yield empty, "holds background alone"


def _check_item(item: object, rules: _Rules) -> Iterator[Finding]:
    if not isinstance(item, Mapping):
        yield Finding(Kind.MALFORMED_ITEM, "", f"{type(item).__name__} {item!r}, expected a dictionary of paths")
        return
    if not set(rules.required) <= set(item) or not {"image", *REGISTRY} & set(item):
        expected = list(rules.required) or f"one of {['image', *REGISTRY]}"
        yield Finding(Kind.MALFORMED_ITEM, "", f"keys {[str(key) for key in item]}, expected {expected}")
        return
    if item.get("modality") is not None and str(item["modality"]) not in REGISTRY:
        message = f"modality {item['modality']!r}, expected one of {sorted(REGISTRY)}"
        yield Finding(Kind.MALFORMED_ITEM, "", message)
    files = []
    for key in path_keys(item):
        for path in ensure_tuple(item[key]) or [item[key]]:  # an empty list is no path either
            try:
                is_path = rules.root is None and isinstance(path, str) and path
                files.append((key, resolve_inside(rules.root or os.sep, os.path.abspath(path) if is_path else path)))
            except UnsafePathError as error:
                yield Finding(Kind.MALFORMED_ITEM, str(path), f"'{key}': {error}")
    images = [path for key, path in files if key == "image"]
    if rules.in_channels is not None and len(images) > 1 and len(images) != rules.in_channels:
        yield Finding(Kind.CHANNELS, images[0], f"{len(images)} image files, expected {rules.in_channels}")
    for path, name in zip(images, rules.channels if len(images) > 1 else ()):
        stored, meant = channel_of(path), channel_of(name)
        if stored and meant and stored != meant:
            yield Finding(Kind.CHANNELS, path, f"its name says {stored}, expected {name} at this place")
    reference: Volume | None = None
    for key, path in files:
        try:
            volume = open_volume(path)
            # one file holds all the channels, or each channel has its own file
            channels = (rules.in_channels or 1) if key == "image" and len(images) == 1 else 1
            problems = list(_check_header(volume, channels, key in ("label", "mask"), rules))
            if rules.contents and not {kind for kind, _ in problems} & _NOT_READ:
                values = volume.read()
                if key == "mask":
                    problems += _check_label(values, None, Kind.MASK_EMPTY)
                elif key == "label":
                    problems += _check_label(values, item.get("allowed_labels", rules.labels), Kind.LABEL_EMPTY)
                else:
                    modality = item.get("modality", rules.modality) if key == "image" else key
                    for channel in np.moveaxis(values.reshape(*volume.shape[:3], -1), -1, 0):
                        problems += check_image(channel, modality)
        except (FileNotFoundError, VolumeError) as error:
            kind = Kind.MISSING_FILE if isinstance(error, FileNotFoundError) else Kind.UNREADABLE
            yield Finding(kind, path, str(error))
            continue
        yield from (Finding(kind, path, message) for kind, message in problems)
        if rules.check_source is not None and path == images[0]:
            try:
                rules.check_source(path)
            except (ValueError, OSError) as error:
                yield Finding(Kind.UNREADABLE, path, str(error))
        if len(volume.shape) < 3:
            continue
        reference = reference or volume
        if difference := grid_difference(reference, volume):
            yield Finding(Kind.GRID, path, f"{difference} as in '{reference.path}'")


def _content(path: str) -> Any:
    """What tells an image from others whatever its name: size and samples of the file."""
    if not os.path.isfile(path):
        return path
    with open(path, "rb") as file:
        size = os.path.getsize(path)
        parts = [(file.seek(size * part // 16), file.read(4096))[1] for part in range(16)]
    return size, hashlib.sha256(b"".join(parts)).digest()


def _check_list(items: Sequence, contents: bool) -> Iterator[Finding]:
    if not items:
        yield Finding(Kind.MALFORMED_ITEM, "", "no items")
    folds: dict[str, set] = defaultdict(set)
    first_use: dict[Any, tuple[int, str]] = {}
    for number, item in enumerate(items):
        if not isinstance(item, Mapping):
            continue
        if "fold" in item and "patient" in item:
            folds[str(item["patient"])].add(str(item["fold"]))
        for path in [str(path) for key in ("image", *REGISTRY) for path in ensure_tuple(item.get(key, ()))]:
            earlier, file = first_use.setdefault(_content(path) if contents else path, (number, path))
            if earlier != number:
                same_fold = items[earlier].get("fold") == item.get("fold")
                kind = Kind.DUPLICATE_FILE if same_fold else Kind.IMAGE_IN_TWO_FOLDS
                yield Finding(kind, path, f"the same image as '{file}' in item {earlier}", number)
    for patient, found in sorted(folds.items()):
        if len(found) > 1:
            yield Finding(Kind.PATIENT_IN_TWO_FOLDS, "", f"patient '{patient}' is in the folds {sorted(found)}")


def find_problems(
    items: Sequence,
    *,
    workers: int | None = None,
    warnings: Collection[Kind] = WARNINGS,
    record: str | os.PathLike | None = None,
    **rules: Any,
) -> list[Finding]:
    """Everything that is wrong with a data list; see :func:`check_datalist` for the arguments."""
    check = partial(_check_item, rules=_Rules(**rules))
    findings = list(_check_list(items, rules.get("contents", True)))
    problems = partial(CheckRecord(record, rules).findings_of, check=check)
    with ThreadPoolExecutor(max_workers=workers or min(os.cpu_count() or 1, 8)) as pool:  # reading releases the lock
        checked = tqdm(pool.map(problems, items), desc="checking", total=len(items), disable=len(items) < 100)
        for number, found in enumerate(checked):
            findings += [replace(finding, item=number) for finding in found]
    findings = [replace(finding, fatal=finding.kind not in warnings) for finding in findings]
    return sorted(findings, key=lambda finding: (finding.item, not finding.fatal))


_ADVICE = "the policy 'skip' leaves the items concerned out, 'warn' keeps them"


def check_datalist(
    items: Sequence[Mapping], *, policy: str = "strict", advice: str = _ADVICE, **options: Any
) -> list[dict]:
    """Check every file of a data list and return the items to go on with: the first step of every training.

    Args:
        items: the data list, with ``image`` (a path, or one a channel), ``label``, ``modality``, or a path under the
            name of each modality (``ct``, ``mr``), and ``mask``.
        policy: ``"strict"`` stops on any fatal finding; ``"skip"`` leaves the items concerned out and lists them in the
            log; ``"warn"`` keeps them, at the user's own risk.
        advice: what the error says beside the findings.
        options: ``in_channels`` that an ``image`` must have, 1 by default, and the names of these ``channels``;
            declared ``labels``, any by default (an item's own ``allowed_labels`` go first); the ``modality`` of items
            without their own; the ``roi_size`` below which volumes are reported; the ``spacing`` in mm at which they
            have to fit into memory; the ``root`` that no path may leave; ``required`` keys; ``check_source``, called
            with the path of each image, to raise ValueError; ``contents=False`` to read headers alone; ``workers``, the
            threads that read (one a core, at most 8); ``warnings``, the kinds that are not fatal; ``record``, a file
            that keeps the findings, so that a check goes on there and unchanged files are not read again.

    Returns:
        copies of the items, without those left out.

    Raises:
        DataListError: with all the findings, if the policy does not allow to go on, or no item is left.
        ValueError: if the policy is unknown.
    """
    if policy not in ("strict", "skip", "warn"):
        raise ValueError(f"policy={policy!r}: expected 'strict', 'skip' or 'warn'")
    found = find_problems(items, **options)
    fatal = [finding for finding in found if finding.fatal]
    dropped = {finding.item for finding in fatal} if policy == "skip" else set()
    if fatal and policy == "strict" or -1 in dropped or len(dropped) == len(items):
        raise DataListError(found, advice)
    for finding in found:
        logger.log(logging.ERROR if finding.fatal else logging.WARNING, "%s", finding)
    if dropped:
        logger.warning("left out %d of %d items of the data list", len(dropped), len(items))
    else:
        logger.info("data list checked: %d items, %d findings", len(items), len(found))
    return [dict(item) for number, item in enumerate(items) if number not in dropped]


def check_resampling(items: Sequence[Mapping], spacing: Sequence[float]) -> list[dict]:
    """The items, if each of them fits into memory at a spacing in mm, by their headers; else DataListError."""
    if found := [f for f in find_problems(items, spacing=spacing, contents=False) if f.kind is Kind.TOO_LARGE]:
        raise DataListError(found)
    return [dict(item) for item in items]
