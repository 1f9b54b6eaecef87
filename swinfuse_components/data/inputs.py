"""Unlabelled images as users have them (files, folders, BIDS, DICOM series), and names for their outputs."""

import atexit
import importlib
import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .checks import check_datalist
from .findings import Kind
from .layouts import brats_folders, sequence_file
from .modalities import REGISTRY, get_modality, modality_of_word
from .paths import VOLUME_SUFFIXES, existing_path, is_volume, subfolders, volume_stem
from .patients import patient_of, patients_of_files
from .volumes import dicom_series

_LABEL_WORD = "(d?seg|masks?|labels?|labelmaps?|segmentations?|predictions?|annotations?|contours?|gt|ground.?truth)"
_LABEL_NAME = re.compile(rf"(.*[-_. ])?{_LABEL_WORD}|labelst[rs]|derivatives|{_LABEL_WORD}[-_. ].*")
_DICOM_MODALITIES = {"CT": "ct", "MR": "mr", "PT": "pet", "US": "us"}
_MEANINGLESS = {Kind.MALFORMED_ITEM, Kind.MISSING_FILE, Kind.UNREADABLE, Kind.WRONG_DIMENSIONS}
_MEANINGLESS |= {Kind.CHANNELS, Kind.CONSTANT, Kind.GRID, Kind.TOO_LARGE, Kind.BEYOND_FLOAT}


def _chosen_series(path: str | Path, series: str | None) -> str:
    """A file, a folder of one DICOM series, or a folder of links to the slices of the one series that is asked for."""
    folder = Path(path)
    found = dicom_series(folder) if folder.is_dir() else []
    if len(found) < 2:
        return str(path)
    wanted = [s for s in found if series and series in (s.uid, s.number, s.description)]
    if series == "largest":
        wanted = [max(found, key=lambda s: len(s.files))]
    if len(wanted) != 1:
        listed = "; ".join(f"{s.uid} (number {s.number}, '{s.description}', {len(s.files)} files)" for s in found)
        raise ValueError(
            f"'{folder}' holds {len(found)} DICOM series: {listed}; choose with '--series': a UID, number, description,"
            f" or 'largest'{f' (found {len(wanted)} for {series!r})' if series else ''}"
        )
    links = Path(tempfile.mkdtemp(prefix="series-"))
    atexit.register(shutil.rmtree, links, ignore_errors=True)
    target = links / folder.name
    target.mkdir()
    for file in wanted[0].files:
        os.symlink(os.path.abspath(file), target / os.path.basename(file))
    return str(target)


def find_images(root: Path, levels: int = 8) -> list[Path]:
    """Volumes and folders of DICOM slices below ``root``, sorted; label maps are passed over by their names."""
    found = [f for f in sorted(root.iterdir()) if is_volume(f) and not f.is_dir() and not _is_label(volume_stem(f))]
    found += [root] if dicom_series(root) else []
    for folder in subfolders(root) if levels > 1 else []:
        if not _is_label(folder.name):
            found += find_images(folder, levels - 1)
    return found


def _patients_of_series(found: Sequence[Path], patients: Sequence[str], root: Path) -> list[str]:
    """``patients``, but series of one PatientID are one patient: the folder they share, or that bears the ID."""
    names = list(patients)
    same: dict[str, list[int]] = defaultdict(list)
    for place, folder in enumerate(found):
        if folder.is_dir() and (identity := dicom_series(folder)[0].patient):
            same[identity].append(place)
    for identity, places in same.items():
        shared = Path(os.path.commonpath([found[place] for place in places]))
        above = [p.name for p in (shared, *shared.parents) if p.is_relative_to(root) and p != root]
        named = next((name for name in above if name == identity), above[0] if above and len(places) > 1 else "")
        for place in places:
            names[place] = named or names[places[0]]
    return names


def _is_label(name: str) -> bool:
    return _LABEL_NAME.fullmatch(name.lower()) is not None


def modality_of_file(path: Path, root: Path) -> str:
    """Modality that a DICOM header, a word of the file's name or of its folders below ``root`` says."""
    if path.is_dir():
        tag = dicom_series(path)[0].modality
        if tag in _DICOM_MODALITIES:
            return _DICOM_MODALITIES[tag]
    inner = path.relative_to(root).parts[:-1] if path != root and path.is_relative_to(root) else ()
    for name in (volume_stem(path), *reversed(inner)):
        for word in reversed(re.split(r"[-_ .]", name)):
            if (kind := modality_of_word(word)) is not None:
                return kind
    raise ValueError(
        f"'{path}': neither its name nor its folders say the modality: say it with '--modality', or for each of"
        f" '--datasets' ({sorted(REGISTRY)})"
    )


def list_images(
    path: str | os.PathLike[str],
    *,
    channels: Sequence[str] = ("image",),
    series: str | None = None,
    patient_pattern: str | None = None,
) -> list[dict[str, Any]]:
    """Items ``{"image": file, DICOM folder or a list of them, "patient": …}`` for a path as users have them.

    Args:
        path: one image file; a folder of one DICOM series; a folder with image files or DICOM folders at any depth
            (one folder a patient, BIDS); or a task folder with ``dataset.json``, of which ``imagesTs`` is taken.
        channels: the network's channels, in order. From two on, the registered sequences of a patient are one image:
            ``P1/P1_flair.nii.gz``, ``P1/P1_t1`` (a DICOM folder), … under the names of any BraTS; or ``<case>_0000``, …
        series: which series of a DICOM folder with several: UID, number, description, or ``"largest"``.
        patient_pattern: see :func:`patient_of`.

    FileNotFoundError or ValueError if there is no image, or ``series`` does not choose one of several.
    """
    root = existing_path(path, "image or")
    if root.is_dir() and (root / "dataset.json").is_file() and (root / "imagesTs").is_dir():
        root = root / "imagesTs"
    items: list[dict[str, Any]] = []
    for folder in brats_folders(root, channels) if root.is_dir() and len(channels) > 1 else []:
        images = [_chosen_series(sequence_file(folder, name), series) for name in channels]
        items.append({"image": images, "patient": patient_of(folder, patient_pattern)})
    if items:
        return items
    found = find_images(root) if root.is_dir() else [root]
    if not found:
        raise FileNotFoundError(
            f"'{root}' holds no image: expected {', '.join(VOLUME_SUFFIXES)} or folders of DICOM slices"
        )
    patients = patients_of_files([os.path.relpath(f, root.parent) for f in found], patient_pattern)
    if patient_pattern is None:
        patients = _patients_of_series(found, patients, root)
    for file, patient in zip(found, patients):
        image, stem = _chosen_series(file, series), volume_stem(file)
        if len(channels) > 1 and stem.endswith("_0000"):
            names = [f"{stem[:-4]}{number:04d}{file.name[len(stem) :]}" for number in range(len(channels))]
            items.append({"image": [str(file.with_name(name)) for name in names], "patient": patient})
        elif len(channels) == 1 or not re.search(r"_00\d\d$", stem):
            items.append({"image": image, "patient": patient})
    return items


def check_inputs(
    items: Sequence[Mapping[str, Any]],
    *,
    modality: str | Mapping[str, Any] | None = None,
    strict: bool = False,
    output_format: str = "volume",
    **rules: Any,
) -> list[dict[str, Any]]:
    """Check images before the first window is computed, and return those that can be segmented.

    What makes an answer meaningless is an error: no such file, unreadable, not 3D, another number or order of channels,
    constant, channels on different grids, not one finite voxel, no series that a DICOM SEG can refer to. Such an image
    is named in the log and left out (:func:`refuse_left_out` makes it the end of the run). Everything else is a
    warning with the file's name; ``strict`` makes it an error, and stops at an error.

    ``modality`` is that of items without their own, ``output_format`` of the label maps ``"volume"`` or ``"dicom_seg"``
    (all images are DICOM series); for ``rules`` see :func:`~swinfuse_components.data.check_datalist`.

    Raises:
        DataListError: with all the findings, if no image is left, or ``strict`` asks for it.
        ValueError: on another output format.
    """
    if output_format not in ("volume", "dicom_seg"):
        raise ValueError(f"output_format is {output_format!r}: expected 'volume' or 'dicom_seg'")
    rules = {"in_channels": 1, **rules}
    if output_format == "dicom_seg":
        # by its name: packages whose configurations write no DICOM SEG go without that module
        rules["check_source"] = importlib.import_module(".dicom_seg", __package__).check_source
    if modality is not None:
        rules["modality"] = get_modality(modality).name
    if strict:
        advice = "warnings are errors with '--strict True'"
        return check_datalist(items, advice=advice, warnings=set(), **rules)
    return check_datalist(items, policy="skip", advice="", warnings=set(Kind) - _MEANINGLESS, **rules)


def refuse_left_out(listed: Sequence[Mapping[str, Any]], done: Sequence[Mapping[str, Any]]) -> None:
    """ValueError with the images of ``listed`` that are not in ``done``: the end of a run that left some out."""
    finished = [item["image"] for item in done]
    left = [str(item["image"]) for item in listed if item["image"] not in finished]
    if left:
        raise ValueError(
            f"{len(left)} of {len(listed)} images could not be used, the log says why; the others are done: "
            f"{', '.join(left[:10])}{', …' if len(left) > 10 else ''}"
        )
