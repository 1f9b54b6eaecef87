"""Splits by patient: cross-validation folds and the split of pre-training. A patient is never on both sides."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from monai.data import partition_dataset

from .paths import resolve_inside, volume_stem

_PATH_KEYS = ("image", "label", "ct", "mr", "mask")


def _group_of(item: Mapping, group_key: str) -> str:
    if group_key not in item:
        raise ValueError(f"cannot group by '{group_key}': it is missing in the item {dict(item)!r}")
    return str(item[group_key])


def assign_folds(groups: Iterable[str], num_folds: int = 5, seed: int = 0) -> dict[str, int]:
    """Fold of every group (patient): a seeded partition into folds whose sizes differ by one at most.

    The order in which the groups come does not matter, so that two data sets of the same patients get the same folds.

    Raises:
        ValueError: if there are fewer groups than folds, or fewer than two folds.
    """
    names = sorted(set(groups))
    if num_folds < 2 or len(names) < num_folds:
        raise ValueError(
            f"cannot make {num_folds} folds of {len(names)} patient(s): at least 2 folds, one patient each"
        )
    partitions = partition_dataset(names, num_partitions=num_folds, shuffle=True, seed=seed, even_divisible=False)
    return {name: fold for fold, members in enumerate(partitions) for name in members}


def split_folds(
    items: Sequence[Mapping],
    num_folds: int = 5,
    seed: int = 0,
    group_key: str = "patient",
    assignment: Mapping[str, int] | None = None,
) -> list[dict]:
    """Copy of ``items``, each with its ``fold``; items of one group share it.

    Args:
        items: a data list.
        num_folds: number of folds.
        seed: seed of the partition.
        group_key: key of the group; ``"patient"`` keeps all the images of a patient together.
        assignment: the folds of the groups, e.g. from :func:`assign_folds` over several data sets of the same patients.

    Raises:
        ValueError: if there are too few groups, or a group is not in ``assignment``.
    """
    if assignment is None:
        assignment = assign_folds((_group_of(item, group_key) for item in items), num_folds, seed)
    unknown = sorted({_group_of(item, group_key) for item in items} - set(assignment))
    if unknown:
        raise ValueError(f"no fold is assigned to {group_key} {unknown}")
    return [{**item, "fold": assignment[_group_of(item, group_key)]} for item in items]


def save_folds(items: Sequence[Mapping], path: str | os.PathLike, root: str | os.PathLike) -> Path:
    """Write items with folds in the common JSON form (``{"training": [{…, "fold": k}]}``), paths relative to ``root``.

    Raises:
        UnsafePathError: if a file lies outside ``root``.
    """

    def relative(value: object) -> object:
        if isinstance(value, (list, tuple)):
            return [relative(entry) for entry in value]
        return os.path.relpath(resolve_inside(root, value), os.path.abspath(root))

    training = [{k: relative(v) if k in _PATH_KEYS else v for k, v in item.items()} for item in items]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"training": training}, indent=1) + "\n", encoding="utf-8")
    return target


def load_folds(
    path: str | os.PathLike, *, root: str | os.PathLike | None = None, section: str = "training"
) -> list[dict]:
    """Read a fold file: a section of entries with ``fold``; relative paths are taken from ``root``.

    Args:
        path: the JSON file, in the form written by :func:`save_folds`, MONAI's Auto3DSeg and others.
        root: folder of the data; the file's own folder by default. No path may leave it.
        section: ``"training"``, or the name of another list in the file.

    Returns:
        The entries with absolute paths; ``patient`` is filled in from the image's file name where it is missing.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not of that form.
        UnsafePathError: if a path leaves ``root``.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"fold file '{file}' does not exist")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"fold file '{file}' is not valid JSON: {error}") from error
    entries = content.get(section) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"fold file '{file}' has no list '{section}'")
    base = file.parent if root is None else Path(root)

    def absolute(value: object) -> object:
        return [absolute(entry) for entry in value] if isinstance(value, list) else resolve_inside(base, value)

    items = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not set(entry) & set(_PATH_KEYS):
            raise ValueError(f"fold file '{file}': {section}[{number}] is not an entry with images: {entry!r}")
        item = {k: absolute(v) if k in _PATH_KEYS else v for k, v in entry.items()}
        first = item.get("image", item.get("ct", item.get("mr", "")))
        item.setdefault("patient", volume_stem(str(first[0] if isinstance(first, list) and first else first)))
        items.append(item)
    return items


def load_fold(
    source: str | os.PathLike | Sequence[Mapping],
    fold: int,
    section: str = "training",
    *,
    root: str | os.PathLike | None = None,
    modality: str | None = None,
    group_key: str = "patient",
) -> list[dict]:
    """One side of one fold: ``"training"`` is everything but ``fold``, ``"validation"`` is ``fold``.

    Args:
        source: items with ``fold`` (from :func:`split_folds`), or a fold file (see :func:`load_folds`).
        fold: number of the fold that is held out.
        section: ``"training"`` or ``"validation"``.
        root: folder of the data, for a fold file.
        modality: set in items that do not say it (a user's own fold file).
        group_key: no value of it may be on both sides.

    Raises:
        ValueError: if an entry has no integer ``fold``, the fold does not exist, a side would be empty, or a patient
            is on both sides.
    """
    if section not in ("training", "validation"):
        raise ValueError(f"section={section!r}: expected 'training' or 'validation'")
    items = load_folds(source, root=root) if isinstance(source, (str, os.PathLike)) else [dict(item) for item in source]
    for number, item in enumerate(items):
        if not isinstance(item.get("fold"), int) or isinstance(item["fold"], bool):
            raise ValueError(f"entry {number} of the data list has no integer 'fold': {item!r}")
        if modality is not None:
            item.setdefault("modality", modality)
    folds = sorted({item["fold"] for item in items})
    if fold not in folds or len(folds) < 2:
        raise ValueError(f"fold {fold!r} cannot be held out: the data list has the folds {folds}")
    sides = {
        "training": [item for item in items if item["fold"] != fold],
        "validation": [item for item in items if item["fold"] == fold],
    }
    both = set.intersection(*({str(i[group_key]) for i in side if group_key in i} for side in sides.values()))
    if both:
        raise ValueError(f"{group_key} {sorted(both)} would be on both sides of fold {fold}")
    return sides[section]


def split_patients(
    items: Sequence[Mapping],
    section: str = "training",
    *,
    validation_fraction: float = 0.2,
    seed: int = 0,
    group_key: str = "patient",
) -> list[dict]:
    """One side of a seeded split by patient, for pre-training.

    Args:
        items: a data list.
        section: ``"training"`` or ``"validation"``.
        validation_fraction: share of the patients held out, in (0, 1); at least one patient, and never all.
        seed: seed of the split.
        group_key: key of the group that is kept together.

    Raises:
        ValueError: if there are fewer than two patients or the fraction is out of range.
    """
    if section not in ("training", "validation"):
        raise ValueError(f"section={section!r}: expected 'training' or 'validation'")
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction={validation_fraction}: expected a number between 0 and 1")
    names = sorted({_group_of(item, group_key) for item in items})
    if len(names) < 2:
        raise ValueError(f"a split by {group_key} needs at least two, found {names}")
    count = min(max(round(len(names) * validation_fraction), 1), len(names) - 1)
    ratios = [len(names) - count, count]
    held_out = set(partition_dataset(names, ratios=ratios, shuffle=True, seed=seed)[1])
    return [dict(i) for i in items if (_group_of(i, group_key) in held_out) == (section == "validation")]


def select_patients(
    items: Sequence[Mapping],
    *,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    group_key: str = "patient",
) -> list[dict]:
    """Items of the patients in ``include`` (all by default) and not in ``exclude``; e.g. those a model never saw.

    Raises:
        ValueError: if nothing is left.
    """
    kept = [
        dict(item)
        for item in items
        if (include is None or _group_of(item, group_key) in include)
        and (exclude is None or _group_of(item, group_key) not in exclude)
    ]
    if not kept:
        raise ValueError(f"no item is left of {len(items)} after the selection by {group_key}")
    return kept
