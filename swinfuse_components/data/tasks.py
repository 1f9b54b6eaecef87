"""Labelled data sets with a ``dataset.json``: Medical Segmentation Decathlon (MSD), nnU-Net v2, MONAI's JSON lists."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .modalities import get_modality, modality_of_channels
from .paths import existing_path, read_json, resolve_inside, volume_stem
from .patients import with_patients

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """Facts of a labelled data set.

    ``labels`` are names by label value, background (0) included; ``regions`` the label values of each region, where the
    data set declares some; ``codes`` those of some labels for DICOM (:class:`SaveDicomSegmentationd`);
    ``demonstration``, whether the folder says of itself that it is made up.
    """

    name: str
    dataset_dir: str
    modality: str
    channels: tuple[str, ...]
    labels: dict[int, str] = field(default_factory=dict)
    regions: dict[str, list[int]] = field(default_factory=dict)
    demonstration: bool = False
    codes: dict[str, Any] = field(default_factory=dict)

    @property
    def in_channels(self) -> int:
        """Number of image channels."""
        return len(self.channels)


def read_dataset_json(path: str | os.PathLike) -> tuple[Path, Path, dict]:
    """Folder, file and content of ``path/dataset.json``, or of a JSON list."""
    found = existing_path(path, "MSD task")
    if found.is_dir():
        file = found / "dataset.json"
        if not file.is_file():
            inner = sorted(p.parent.name for p in found.glob("*/dataset.json"))
            hint = f"; did you mean one of its task folders {inner}?" if inner else ""
            raise FileNotFoundError(f"'{found}' is no MSD task folder: it has no dataset.json{hint}")
    elif found.suffix == ".json":
        file = found
    else:
        raise NotADirectoryError(f"MSD task folder expected, but '{found}' is a file")
    return file.parent, file, read_json(file)


def read_channels(content: Mapping, path: Path) -> tuple[str, ...]:
    """Names of the channels that a ``dataset.json`` declares, in order."""
    raw = content.get("modality", content.get("channel_names"))
    if isinstance(raw, str) and raw:
        return (raw,)
    if isinstance(raw, dict) and raw:
        try:
            return tuple(str(raw[key]) for key in sorted(raw, key=int))
        except ValueError as error:
            raise ValueError(f"'{path}': keys of 'modality' must be channel numbers, found {list(raw)}") from error
    raise ValueError(f"'{path}': 'modality' must map channel numbers to names, e.g. {{\"0\": \"CT\"}}; found {raw!r}")


def _read_labels(content: Mapping, path: Path) -> tuple[dict[int, str], dict[str, list[int]]]:
    """Names by label value, and the regions where some labels are lists of values (nnU-Net v2)."""
    raw = content.get("labels")
    if not isinstance(raw, dict) or not raw:
        raise ValueError(f"'{path}': 'labels' must map label values to names, found {raw!r}")
    labels: dict[int, str] = {}
    regions: dict[str, list[int]] = {}
    for key, value in raw.items():
        # the Decathlon writes {"1": "tumour"}, nnU-Net's second version {"tumour": 1} and {"whole": [1, 2]}
        swapped = isinstance(value, (int, list)) and not isinstance(value, bool)
        numbers, name = (value, str(key)) if swapped else (key, str(value))
        try:
            values = [int(number) for number in (numbers if isinstance(numbers, list) else [numbers])]
        except (TypeError, ValueError) as error:
            raise ValueError(f"'{path}': label {key!r}: {value!r} has no integer value") from error
        if name.lower() == "ignore":
            raise ValueError(f"'{path}': nnU-Net's label 'ignore' is not supported: leave those cases out")
        if values != [0]:
            regions[name] = sorted(values)
        if len(values) == 1:
            if values[0] in labels:
                raise ValueError(f"'{path}': label value {values[0]} is declared twice")
            labels[values[0]] = name
    if twice := sorted({name for name in labels.values() if list(labels.values()).count(name) > 1}):
        raise ValueError(f"'{path}': several labels are called {', '.join(twice)}: each needs a name of its own")
    for value in set().union(*regions.values()) - set(labels):
        labels[value] = f"label {value}"
    if sorted(labels) != list(range(len(labels))) or len(labels) < 2:
        raise ValueError(f"'{path}': label values must be 0 (background), 1, 2, … without gaps, found {sorted(labels)}")
    return dict(sorted(labels.items())), regions if any(len(values) > 1 for values in regions.values()) else {}


def read_msd_task(dataset_dir: str | os.PathLike, *, modality: str | Mapping[str, Any] | None = None) -> Task:
    """Facts of a task folder of the Decathlon or of nnU-Net v2, or of a JSON list that declares them.

    ``modality`` (:func:`~swinfuse_components.data.get_modality`) is for channel names that do not tell it.
    FileNotFoundError or ValueError if a file or an entry is missing or cannot be understood; it is named.
    """
    root, path, content = read_dataset_json(dataset_dir)
    channels = read_channels(content, path)
    labels, regions = _read_labels(content, path)
    try:
        kind = get_modality(modality).name if modality else modality_of_channels(channels)
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from error
    name, demonstration = str(content.get("name", root.name)), bool(content.get("demonstration", False))
    codes = content.get("codes") or {}
    if unknown := set(codes) - {str(value) for value in labels} - set(labels.values()):
        raise ValueError(f"'{path}': codes for {sorted(unknown)}, which are neither values nor names of its labels")
    for label, code in codes.items():
        coded(code, f"'{path}': label {label}")
    return Task(name, str(root), kind, channels, labels, regions, demonstration, codes)


def coded(value: object, where: str) -> list[list[str]]:
    """Category and type of a segment: ``[value, scheme, meaning]`` of the type, or ``{"category": …, "type": …}``."""
    pair = value if isinstance(value, Mapping) else {"type": value}
    codes: list[Any] = [pair.get("category", ["91723000", "SCT", "Anatomical Structure"]), pair.get("type")]
    for code in codes:
        if not isinstance(code, (list, tuple)) or len(code) != 3 or not all(isinstance(c, str) and c for c in code):
            raise ValueError(
                f"{where}: code {value!r}, expected [value, scheme, meaning] such as"
                ' ["78961009", "SCT", "Spleen"], or {"category": […], "type": […]}'
            )
    return [list(code) for code in codes]


def _nnunet_entries(root: Path, content: Mapping, section: str, channels: int) -> list[dict]:
    """Entries of nnU-Net's raw data, which has no list: ``imagesTr/<case>_0000.ext`` and ``labelsTr/<case>.ext``."""
    ending = str(content.get("file_ending", ".nii.gz"))
    suffix = "Tr" if section == "training" else "Ts"
    listed = content.get("dataset") if section == "training" else None
    if isinstance(listed, dict):
        return [{"image": entry["images"], "label": entry["label"]} for entry in listed.values()]
    first = sorted(p.name for p in (root / f"images{suffix}").glob(f"*_0000{ending}") if not p.name.startswith("."))
    entries = []
    for case in (name[: -len(f"_0000{ending}")] for name in first):
        images = [f"images{suffix}/{case}_{number:04d}{ending}" for number in range(channels)]
        label = {"label": f"labels{suffix}/{case}{ending}"} if section == "training" else {}
        entries.append({"image": images if channels > 1 else images[0], **label})
    return entries


def msd_datalist(
    dataset_dir: str | os.PathLike,
    section: str = "training",
    *,
    modality: str | Mapping[str, Any] | None = None,
    patient_pattern: str | None = None,
    labelled: bool = True,
) -> list[dict]:
    """Data list of a task (see :func:`read_msd_task`), with absolute paths.

    ``section`` is ``"training"`` or ``"validation"`` (with labels), or ``"test"``. ``labelled=False`` lists images
    alone, and asks neither for labels nor for one modality of all channels.

    Returns:
        items with ``image`` (a list where each channel has its own file), ``label``, ``modality``, ``patient`` and,
        where the list says it, ``fold``; those of missing files too.

    FileNotFoundError or ValueError if a file, section or entry is missing, malformed, or leaves the folder.
    """
    root, path, content = read_dataset_json(dataset_dir)
    labelled = labelled and section != "test"
    kind = read_msd_task(path, modality=modality).modality if labelled or section == "test" else None
    entries = content.get(section)
    if entries is None and (root / "imagesTr").is_dir():
        entries = _nnunet_entries(root, content, section, len(read_channels(content, path)))
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise ValueError(
            f"'{path}': section '{section}' is missing or empty; expected a list of {{'image': …, 'label': …}}, or"
            f" nnU-Net's files imagesTr/<case>_0000{content.get('file_ending', '.nii.gz')}"
        )
    if section == "training" and content.get("numTraining") not in (None, len(entries)):
        logger.warning("'%s' says numTraining %s; its list of %d is taken", path, content["numTraining"], len(entries))
    listed: list[dict[str, Any]] = []
    for number, entry in enumerate(entries):
        fields = {"image": entry} if isinstance(entry, str) else entry
        if not isinstance(fields, dict) or "image" not in fields or (labelled and "label" not in fields):
            raise ValueError(f"'{path}': {section}[{number}] needs 'image' and 'label', found {entry!r}")
        image = fields["image"]
        item: dict[str, Any] = {
            "image": [_stored(root, part) for part in image] if isinstance(image, list) else _stored(root, image)
        }
        if labelled:
            item["label"] = resolve_inside(root, fields["label"])
        if kind or fields.get("modality"):
            item["modality"] = kind or get_modality(fields["modality"]).name
        listed.append(item | {key: fields[key] for key in ("patient", "fold") if key in fields})
    return with_patients(listed, root, patient_pattern)


def training_items(path: str | os.PathLike, **options: Any) -> list[dict]:
    """Items for training, see :func:`msd_datalist`: with a section ``validation`` its ``fold`` is 0, the others' 1."""
    items = msd_datalist(path, "training", **options)
    if not read_dataset_json(path)[2].get("validation"):
        return items
    validation = msd_datalist(path, "validation", **options)
    return [{**item, "fold": 1} for item in items] + [{**item, "fold": 0} for item in validation]


def _stored(root: Path, entry: object) -> str:
    """Path of an entry, or ``<case>_0000.ext`` in its place: nnU-Net's first version lists files without it."""
    path = resolve_inside(root, entry)
    stem = os.path.join(os.path.dirname(path), volume_stem(path))
    numbered = f"{stem}_0000{path[len(stem) :]}"
    return numbered if not os.path.exists(path) and os.path.exists(numbered) else path
