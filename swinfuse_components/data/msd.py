"""Task folders of the Medical Segmentation Decathlon (MSD): what ``dataset.json`` says, and the data list.

Any folder with such a ``dataset.json`` works (http://medicaldecathlon.com; nnU-Net's ``channel_names`` is read too).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .paths import existing_dir, resolve_inside, volume_stem

# channel names of magnetic resonance imaging, as the Decathlon and nnU-Net data sets write them, lower case
_MR_NAME = re.compile(r"mri?|t1|t1w|t1[-_ ]?(gd|ce|c|post)|t1n|t2|t2w|t2f|t2[-_ ]?star|flair|adc|dwi|pd|swi|bold|fmri")
_CT_NAME = re.compile(r"(ce[-_ ]?)?ct|cect|ncct|cta")


@dataclass(frozen=True)
class MSDTask:
    """Facts of a task, from its ``dataset.json``.

    Attributes:
        name: the task's name.
        dataset_dir: absolute path of the task's folder.
        modality: ``"ct"`` or ``"mr"``.
        channels: names of the input channels, in file order.
        labels: names of the classes by label value, background (0) included.
        demonstration: whether the folder says of itself that it holds a made-up demonstration.
    """

    name: str
    dataset_dir: str
    modality: str
    channels: tuple[str, ...]
    labels: dict[int, str] = field(default_factory=dict)
    demonstration: bool = False

    @property
    def in_channels(self) -> int:
        """Number of image channels."""
        return len(self.channels)

    @property
    def num_classes(self) -> int:
        """Number of classes, background included: the ``out_channels`` of a softmax network."""
        return len(self.labels)

    @property
    def class_names(self) -> list[str]:
        """Names of the foreground classes, in the order of their label values."""
        return [self.labels[value] for value in sorted(self.labels) if value != 0]


def read_dataset_json(dataset_dir: str | os.PathLike) -> tuple[Path, dict]:
    """Folder and content of ``dataset_dir/dataset.json``.

    Raises:
        FileNotFoundError: if the folder or the file is missing (task folders one level below are named as a hint).
        ValueError: if the file is not a JSON object.
    """
    root = existing_dir(dataset_dir, "MSD task")
    path = root / "dataset.json"
    if not path.is_file():
        inner = sorted(p.parent.name for p in root.glob("*/dataset.json"))
        hint = f"; did you mean one of its task folders {inner}?" if inner else ""
        raise FileNotFoundError(f"'{root}' is no MSD task folder: it has no dataset.json{hint}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}': expected a JSON object, found {type(content).__name__}")
    return root, content


def _read_channels(content: dict, path: Path) -> tuple[str, ...]:
    raw = content.get("modality", content.get("channel_names"))
    if isinstance(raw, dict) and raw:
        try:
            channels = tuple(str(raw[key]) for key in sorted(raw, key=int))
        except ValueError as error:
            raise ValueError(f"'{path}': keys of 'modality' must be channel numbers, found {list(raw)}") from error
        return channels
    raise ValueError(f"'{path}': 'modality' must map channel numbers to names, e.g. {{\"0\": \"CT\"}}; found {raw!r}")


def _modality_of(channels: tuple[str, ...], path: Path) -> str:
    kinds = set()
    for name in channels:
        lowered = name.strip().lower()
        kinds.add("ct" if _CT_NAME.fullmatch(lowered) else "mr" if _MR_NAME.fullmatch(lowered) else lowered)
    if len(kinds) == 1 and kinds <= {"ct", "mr"}:
        return kinds.pop()
    raise ValueError(
        f"'{path}': cannot tell CT from MRI by the channels {list(channels)}; set modality='ct' or 'mr' for this task"
    )


def _read_labels(content: dict, path: Path) -> dict[int, str]:
    raw = content.get("labels")
    if not isinstance(raw, dict) or not raw:
        raise ValueError(f"'{path}': 'labels' must map label values to names, found {raw!r}")
    labels: dict[int, str] = {}
    for key, value in raw.items():
        # the Decathlon writes {"1": "tumour"}, nnU-Net's second version {"tumour": 1}
        number, name = (value, key) if isinstance(value, int) and not isinstance(value, bool) else (key, value)
        try:
            number = int(number)
        except (TypeError, ValueError) as error:
            raise ValueError(f"'{path}': label {key!r}: {value!r} has no integer value") from error
        if number in labels:
            raise ValueError(f"'{path}': label value {number} is declared twice")
        labels[number] = str(name)
    if sorted(labels) != list(range(len(labels))) or len(labels) < 2:
        raise ValueError(f"'{path}': label values must be 0 (background), 1, 2, … without gaps, found {sorted(labels)}")
    return dict(sorted(labels.items()))


def read_msd_task(dataset_dir: str | os.PathLike, *, modality: str | None = None) -> MSDTask:
    """Read channels, classes and modality of a task from its ``dataset.json``.

    Args:
        dataset_dir: the task's folder, e.g. ``…/Task09_Spleen``.
        modality: ``"ct"`` or ``"mr"`` where the channel names do not tell.

    Raises:
        FileNotFoundError: if the folder or its ``dataset.json`` is missing.
        ValueError: if an entry of ``dataset.json`` is missing or cannot be understood; the entry is named.
    """
    root, content = read_dataset_json(dataset_dir)
    path = root / "dataset.json"
    channels = _read_channels(content, path)
    if modality not in (None, "ct", "mr"):
        raise ValueError(f"modality={modality!r}: expected 'ct' or 'mr'")
    return MSDTask(
        name=str(content.get("name", root.name)),
        dataset_dir=str(root),
        modality=modality or _modality_of(channels, path),
        channels=channels,
        labels=_read_labels(content, path),
        demonstration=bool(content.get("demonstration", False)),
    )


def _patient_of(image: str, pattern: str | None) -> str:
    stem = volume_stem(image)
    if pattern is None:
        return stem
    match = re.search(pattern, stem)
    if match is None:
        raise ValueError(f"patient_pattern {pattern!r} does not match '{stem}'")
    return match.group(1) if match.groups() else match.group(0)


def msd_datalist(
    dataset_dir: str | os.PathLike,
    section: str = "training",
    *,
    modality: str | None = None,
    patient_pattern: str | None = None,
) -> list[dict]:
    """Data list of a task, with absolute paths.

    Args:
        dataset_dir: the task's folder.
        section: ``"training"`` (with labels) or ``"test"``.
        modality: see :func:`read_msd_task`.
        patient_pattern: regular expression that finds the patient in an image's file name (its first group, or the
            whole match), for patients with several images. By default every file name is a patient.

    Returns:
        One dictionary an image: ``image``, ``label`` (training), ``modality``, ``patient``. Existence of the files is a
        matter of :func:`~swinfuse_components.data.check_datalist`.

    Raises:
        FileNotFoundError: if the folder or ``dataset.json`` is missing.
        ValueError: if the section is missing or empty, or an entry is malformed.
        UnsafePathError: if an entry leaves the task's folder.
    """
    root, content = read_dataset_json(dataset_dir)
    task = read_msd_task(root, modality=modality)
    entries = content.get(section)
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise ValueError(f"'{root / 'dataset.json'}': section '{section}' is missing or empty")
    items = []
    for number, entry in enumerate(entries):
        fields = {"image": entry} if isinstance(entry, str) else entry
        if not isinstance(fields, dict) or "image" not in fields or (section == "training" and "label" not in fields):
            raise ValueError(
                f"'{root / 'dataset.json'}': {section}[{number}] needs 'image' and 'label', found {entry!r}"
            )
        item = {key: resolve_inside(root, fields[key]) for key in ("image", "label") if key in fields}
        items.append({**item, "modality": task.modality, "patient": _patient_of(item["image"], patient_pattern)})
    return items
