"""Splits by patient (cross-validation folds, the split of pre-training), and how often each kind of image is drawn."""

import difflib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import partition_dataset

from .layouts import BRATS_CHANNELS, channel_of
from .modalities import path_keys
from .paths import existing_path, read_json, resolve_inside
from .patients import patient_of, same_patients, with_patients

logger = logging.getLogger(__name__)


def _patient(item: Mapping) -> str:
    if "patient" not in item:
        raise ValueError(f"'patient' is missing in the item {dict(item)!r}")
    return str(item["patient"])


def assign_folds(patients: Iterable[str], num_folds: int = 5, seed: int = 0) -> dict[str, int]:
    """Fold of every patient: a seeded partition, sizes differ by one at most, the order of ``patients`` has no part."""
    names = sorted(set(patients))
    if num_folds < 2 or len(names) < num_folds:
        raise ValueError(
            f"cannot make {num_folds} folds of {len(names)} patient(s) {names[:5]}: at least 2 folds, one patient each"
        )
    partitions = partition_dataset(names, num_partitions=num_folds, shuffle=True, seed=seed, even_divisible=False)
    return {name: fold for fold, members in enumerate(partitions) for name in members}


def split_folds(
    items: Sequence[Mapping], num_folds: int = 5, seed: int = 0, assignment: Mapping[str, int] | None = None
) -> list[dict]:
    """Copy of ``items``, each with the ``fold`` of its patient; items that all have a ``fold`` keep it.

    ``assignment`` gives folds by patient, e.g. those of :func:`assign_folds` over several data sets.
    ValueError if there are too few patients, or one is not in ``assignment``.
    """
    if assignment is None:
        if items and all("fold" in item for item in items):
            return [dict(item) for item in items]
        assignment = assign_folds(map(_patient, items), num_folds, seed)
    if unknown := sorted({_patient(item) for item in items} - set(assignment)):
        raise ValueError(f"no fold is assigned to the patients {unknown}")
    return [{**item, "fold": assignment[_patient(item)]} for item in items]


def save_folds(items: Sequence[Mapping], path: str | os.PathLike, root: str | os.PathLike) -> Path:
    """Write items with folds in the common JSON form (``{"training": [{…, "fold": k}]}``), relative to ``root``."""

    def relative(value: object) -> object:
        if isinstance(value, (list, tuple)):
            return [relative(entry) for entry in value]
        return os.path.relpath(resolve_inside(root, value), root)

    training = [{**item, **{key: relative(item[key]) for key in path_keys(item)}} for item in items]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"training": training}, indent=1) + "\n", encoding="utf-8")
    return target


def load_folds(
    path: str | os.PathLike,
    *,
    root: str | os.PathLike | None = None,
    channels: Sequence[str] = BRATS_CHANNELS,
    patient_pattern: str | None = None,
) -> list[dict]:
    """Entries of a fold file (that of :func:`save_folds`, MONAI's Auto3DSeg), with absolute paths and ``patient``.

    Paths are relative to ``root``, by default the file's folder, and may not leave it. Images whose names say the
    sequences of ``channels`` in another order are put into this one. ``patient_pattern`` (:func:`patient_of`) is for
    entries without ``patient``.
    FileNotFoundError or ValueError if the file does not exist, or is not of that form.
    """
    file = existing_path(path, "fold file", kind="")
    entries = read_json(file, "fold file").get("training")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"fold file '{file}' has no list 'training'")
    base = file.parent if root is None else Path(root)

    def absolute(value: object) -> Any:
        return [absolute(entry) for entry in value] if isinstance(value, list) else resolve_inside(base, value)

    items = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not path_keys(entry):
            raise ValueError(f"fold file '{file}': training[{number}] is not an entry with images: {entry!r}")
        item: dict[str, Any] = {**entry, **{key: absolute(entry[key]) for key in path_keys(entry)}}
        if isinstance(item.get("image"), list):
            item["image"] = in_channel_order(item["image"], channels)
        items.append(item)
    return with_patients(items, base, patient_pattern)


def in_channel_order(paths: list[str], channels: Sequence[str]) -> list[str]:
    """``paths`` in the order of ``channels`` if their names say exactly these sequences of MRI, else as they are."""
    wanted = [channel_of(channel) for channel in channels]
    stored = [channel_of(path) for path in paths]
    if stored == wanted or None in stored or sorted(map(str, stored)) != sorted(map(str, wanted)):
        return paths
    logger.info("the channels %s are put into the order %s", [os.path.basename(path) for path in paths], list(channels))
    return [paths[stored.index(name)] for name in wanted]


def load_fold(items: Sequence[Mapping], fold: int, section: str = "training") -> list[dict]:
    """Copies of the items on one side of one fold: ``"training"`` is everything but ``fold``, ``"validation"`` is it.

    ValueError if an item has no integer ``fold``, a side would be empty, or a patient is on both sides.
    """
    if section not in ("training", "validation"):
        raise ValueError(f"section={section!r}: expected 'training' or 'validation'")
    for number, item in enumerate(items):
        if not isinstance(item.get("fold"), int) or isinstance(item["fold"], bool):
            raise ValueError(f"entry {number} of the data list has no integer 'fold': {item!r}")
    folds = sorted({item["fold"] for item in items})
    if fold not in folds or len(folds) < 2:
        raise ValueError(f"fold {fold!r} cannot be held out: the data list has the folds {folds}")
    sides = [[dict(item) for item in items if (item["fold"] == fold) == held_out] for held_out in (False, True)]
    both = set.intersection(*({str(item["patient"]) for item in side if "patient" in item} for side in sides))
    if both:
        raise ValueError(f"patients {sorted(both)} would be on both sides of fold {fold}")
    return sides[section == "validation"]


def split_patients(
    items: Sequence[Mapping], section: str = "training", *, validation_fraction: float = 0.2, seed: int = 0
) -> list[dict]:
    """One side of a seeded split by patient, for pre-training: at least one patient is held out, and never all."""
    if section not in ("training", "validation") or not 0 < validation_fraction < 1:
        raise ValueError(
            f"section={section!r}, validation_fraction={validation_fraction}: expected 'training' or 'validation', and"
            " a number between 0 and 1"
        )
    names = sorted({_patient(item) for item in items})
    if len(names) < 2:
        raise ValueError(f"a split by patient needs at least two, found {names}")
    count = min(max(round(len(names) * validation_fraction), 1), len(names) - 1)
    ratios = [len(names) - count, count]
    held_out = set(partition_dataset(names, ratios=ratios, shuffle=True, seed=seed)[1])
    return [dict(item) for item in items if (_patient(item) in held_out) == (section == "validation")]


def select_patients(
    items: Sequence[Mapping], *, include: Sequence[str] | None = None, exclude: Sequence[str] | None = None
) -> list[dict]:
    """Items of the patients in ``include`` (all by default) and not in ``exclude``, names as ``patient_of`` has them.

    ValueError if a name is nobody's, or no item is left.
    """
    wanted = None if include is None else same_patients(include)
    unwanted = same_patients(exclude or ())
    named = [(patient_of(_patient(item)), dict(item)) for item in items]
    known = {name for name, _ in named}
    if nobody := sorted(((wanted or set()) | unwanted) - known):
        close = difflib.get_close_matches(nobody[0], known, 3)
        raise ValueError(
            f"no patient is called {', '.join(map(repr, nobody[:10]))}: the {len(known)} patients are called like "
            f"{', '.join(map(repr, close or sorted(known)[:3]))}"
        )
    kept = [item for name, item in named if (wanted is None or name in wanted) and name not in unwanted]
    if not kept:
        raise ValueError(f"no item is left of {len(items)} after the selection by patient")
    return kept


def sampling_weights(items: Sequence[Mapping], ratio: Mapping[str, float] | None = None) -> list[float] | None:
    """How often each image is drawn, as weights for ``torch.utils.data.WeightedRandomSampler`` that sum to 1.

    ``ratio`` says how often each modality is drawn relative to the others, e.g. ``{"ct": 3, "mr": 1}``, however many
    volumes there are of each; 0 leaves a modality out. Within a modality the volumes are drawn equally; where items
    have a ``weight``, its sources (``source``) are drawn by them (1 if a source has none), and the volumes of a source
    equally. With neither ratio nor weights the result is None.

    Raises:
        ValueError: if a modality has no share in ``ratio``, a share is negative, or nothing would be drawn.

    Example:
        >>> sampling_weights([{"modality": "ct"}, {"modality": "mr"}, {"modality": "mr"}], {"ct": 1, "mr": 1})
        [0.5, 0.25, 0.25]
    """
    weighted = any("weight" in item for item in items)
    if not weighted and not ratio:
        return None
    sources = [(str(item.get("modality")), str(item.get("source", ""))) for item in items]
    counts = Counter(sources)
    sizes = {source: 1.0 if weighted else float(count) for source, count in counts.items()}
    sizes |= {source: float(item["weight"]) for source, item in zip(sources, items) if "weight" in item}
    totals = {kind: sum(size for source, size in sizes.items() if source[0] == kind) for kind, _ in sizes}
    shares = {str(kind): float(share) for kind, share in ratio.items()} if ratio else totals
    known = set(totals) <= set(shares)
    if not known or any(not 0 <= number < float("inf") for number in [*shares.values(), *sizes.values()]):
        raise ValueError(f"ratio={dict(ratio or {})}: expected a number >= 0 for each of {sorted(totals)}")
    raw = [shares[s[0]] * sizes[s] / (totals[s[0]] or 1.0) / counts[s] for s in sources]
    if not sum(raw) > 0:
        raise ValueError(f"ratio={dict(ratio or {})}: nothing is left to draw from {dict(counts)}")
    return [weight / sum(raw) for weight in raw]
