"""Planted faults: each is found, with its file and its kind, all of them at once."""

import gzip
import logging
import pickle
import re
import shutil
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swinfuse_components.data import (
    BRATS_CHANNELS,
    BRATS_LABELS,
    WARNINGS,
    DataListError,
    Kind,
    brats_datalist,
    check_datalist,
    find_problems,
    msd_datalist,
    synthrad_datalist,
)

from .conftest import AFFINE, SHAPE, ct_volume, label_volume, mr_volume, write_volume

LABELS = {0: "background", 1: "liver", 2: "tumour"}


def replace(make):
    """A fault that writes another array, and perhaps another affine."""

    def plant(path: Path) -> None:
        result = make()
        array, affine = result if isinstance(result, tuple) else (result, AFFINE)
        write_volume(path, array, affine)

    return plant


def edit_bytes(change):
    """A fault in the file's bytes."""
    return lambda path: path.write_bytes(change(path.read_bytes()))


def edit_header(offset: int, values: np.ndarray):
    """A fault in the (inflated) header."""

    def change(data: bytes) -> bytes:
        raw = bytearray(gzip.decompress(data))
        raw[offset : offset + values.nbytes] = values.tobytes()
        return gzip.compress(bytes(raw))

    return edit_bytes(change)


def as_folder(path: Path) -> None:
    """A fault: an empty folder where the file should be."""
    path.unlink()
    path.mkdir()


def with_value(array: np.ndarray, value: float, dtype: type = np.float32) -> np.ndarray:
    """A copy with one voxel changed."""
    array = array.astype(dtype)
    array[3, 2, 1] = value
    return array


def shifted(matrix: np.ndarray, millimetres: float) -> np.ndarray:
    """The affine moved along the first axis."""
    return matrix + millimetres * np.outer([1, 0, 0, 0], [0, 0, 0, 1])


def turned(matrix: np.ndarray, degrees: float) -> np.ndarray:
    """The affine turned about the third axis."""
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ matrix


def no_orientation(path: Path) -> None:
    """A fault: sform and qform codes 0."""
    image = nib.Nifti1Image(ct_volume(), None)
    image.header.set_sform(None, 0)
    image.header.set_qform(None, 0)
    nib.save(image, path)


IMAGE_FAULTS = {
    "removed": (Path.unlink, "missing_file", "does not exist"),
    "a folder": (as_folder, "unreadable", ""),
    "0 bytes": (lambda p: p.write_bytes(b""), "unreadable", "0 bytes"),
    "text": (lambda p: p.write_text("not a volume", encoding="utf-8"), "unreadable", "cannot be opened"),
    "cut in half": (edit_bytes(lambda b: b[: len(b) // 2]), "unreadable", "truncated"),
    "flipped byte": (edit_bytes(lambda b: b[:900] + bytes([b[900] ^ 255]) + b[901:]), "unreadable", "damaged"),
    "32767 cubed": (edit_header(42, np.array([32767] * 3, np.int16)), "unreadable", "cannot hold them"),
    "negative side": (edit_header(42, np.array([-5], np.int16)), "unreadable", "shape"),
    "complex voxels": (replace(lambda: ct_volume().astype(np.complex64)), "unreadable", "complex"),
    "2D": (replace(lambda: ct_volume()[..., 0]), "wrong_dimensions", "expected a 3D volume"),
    "one slice": (replace(lambda: ct_volume()[..., :1]), "wrong_dimensions", "expected a 3D volume"),
    "4D": (replace(lambda: np.stack([ct_volume()] * 3, -1)), "channels", "3 channel"),
    "affine with NaN": (edit_header(280, np.array([np.nan], np.float32)), "unreadable", "finite"),
    "affine of rank 2": (edit_header(312, np.zeros(4, np.float32)), "unreadable", "invertible"),
    "metres": (replace(lambda: (ct_volume(), np.diag([0.001, 0.001, 0.003, 1]))), "unusual_spacing", "mm"),
    "no orientation": (no_orientation, "no_orientation", "sform"),
    "NaN": (replace(lambda: with_value(ct_volume(), np.nan)), "not_finite", "1 voxel"),
    "infinity": (replace(lambda: with_value(ct_volume(), -np.inf)), "not_finite", "1 voxel"),
    "constant": (replace(lambda: np.full(SHAPE, -1000, np.int16)), "constant", "-1000"),
    "CT scaled to [0, 1]": (replace(lambda: (ct_volume() + 1000.0) / 2500), "not_hounsfield", "rescaled"),
    "CT scaled to [-1, 1]": (replace(lambda: ct_volume() / 1500.0), "not_hounsfield", "rescaled"),
    "CT shifted by 1024": (replace(lambda: ct_volume() + 1024), "not_hounsfield", "shifted"),
    "CT out of range": (replace(lambda: with_value(ct_volume(), 1e6)), "not_hounsfield", "outside"),
    "too small": (replace(lambda: ct_volume()[:5]), "smaller_than_region", "region"),
}

LABEL_FAULTS = {
    "removed": (Path.unlink, "missing_file", "does not exist"),
    "cut short": (edit_bytes(lambda b: b[:-9]), "unreadable", "truncated"),
    "wrong checksum": (edit_bytes(lambda b: b[:-8] + bytes(4) + b[-4:]), "unreadable", "CRC"),
    "4D": (replace(lambda: np.stack([label_volume()] * 2, -1)), "wrong_dimensions", "one 3D label map"),
    "undeclared class": (replace(lambda: with_value(label_volume(), 3, np.uint8)), "label_values", r"[3]"),
    "negative class": (replace(lambda: with_value(label_volume(), -1, np.int16)), "label_values", "-1"),
    "huge class": (replace(lambda: with_value(label_volume(), 2**30, np.int32)), "label_values", "1073741824"),
    "fractions": (replace(lambda: with_value(label_volume(), 0.5)), "label_values", "whole"),
    "NaN": (replace(lambda: with_value(label_volume(), np.nan)), "not_finite", "NaN"),
    "background alone": (replace(lambda: np.zeros(SHAPE, np.uint8)), "label_empty", "background"),
    "other shape": (replace(lambda: label_volume()[:, :-1]), "grid", "expected"),
    "other spacing": (replace(lambda: (label_volume(), np.diag([1.5, 1.5, 2.5, 1]))), "grid", "expected"),
    "other orientation": (replace(lambda: (label_volume(), np.diag([-1.5, 1.5, 3, 1]))), "grid", "LAS, expected RAS"),
    "shifted": (replace(lambda: (label_volume(), shifted(AFFINE, 4.0))), "grid", "4.00 mm"),
    "turned": (replace(lambda: (label_volume(), turned(AFFINE, 15))), "grid", "mm"),
}

CASES = [("image", name, *fault) for name, fault in IMAGE_FAULTS.items()]
CASES += [("label", name, *fault) for name, fault in LABEL_FAULTS.items()]


@pytest.mark.parametrize(("key", "name", "plant", "kind", "message"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES])
def test_each_fault_in_a_file(key, name, plant, kind, message, msd_folder):
    items = msd_datalist(msd_folder(2))
    plant(Path(items[1][key]))
    findings = find_problems(items, labels=LABELS, in_channels=1, roi_size=8)
    assert [f for f in findings if f.item != 1] == []
    matching = [f for f in findings if f.kind == kind]
    assert matching, findings
    # a mismatch of grids is told at the label, whichever of the two is at fault
    assert matching[0].file == items[1]["label" if kind == "grid" else key]
    assert message in matching[0].message


def test_a_clean_list_has_no_findings(msd_folder, synthrad_folder, brats_folder):
    items = msd_datalist(msd_folder())
    assert find_problems(items, labels=LABELS, in_channels=1, roi_size=8, root=items[0]["image"][:5]) == []
    assert check_datalist(items, labels=LABELS) == items
    pairs = synthrad_datalist(synthrad_folder())
    assert find_problems(pairs, required=("ct", "mr", "mask")) == []
    options = {"in_channels": 4, "channels": BRATS_CHANNELS, "labels": BRATS_LABELS}
    assert find_problems(brats_datalist(brats_folder()), **options) == []


def item_faults(items: list[dict]) -> dict:
    """Faults of the list itself: the list, and the kind to be found."""
    first, second = items[:2]
    return {
        "empty list": ([], "malformed_item"),
        "a string for an item": ([first, "case"], "malformed_item"),
        "no image": ([{"label": first["label"]}], "malformed_item"),
        "no label": ([{"image": first["image"]}], "malformed_item"),
        "a number for a path": ([{**first, "image": 3}], "malformed_item"),
        "none for a path": ([{**first, "label": None}], "malformed_item"),
        "an empty path": ([{**first, "image": ""}], "malformed_item"),
        "NUL in a path": ([{**first, "image": "a\0b"}], "malformed_item"),
        "a path that leaves the root": ([{**first, "image": first["image"] + "/../../../x.nii.gz"}], "malformed_item"),
        "an absolute path elsewhere": ([{**first, "label": "/etc/passwd"}], "malformed_item"),
        "unknown modality": ([{**first, "modality": "xray"}], "malformed_item"),
        "an image twice": ([first, {**second, "image": first["image"]}], "duplicate_file"),
        "an image in two folds": ([first | {"fold": 0}, first | {"fold": 1}], "image_in_two_folds"),
        "a patient in two folds": (
            [first | {"fold": 0, "patient": "p"}, second | {"fold": 1, "patient": "p"}],
            "patient_in_two_folds",
        ),
        "too few channels": ([{**first, "image": [first["image"], second["image"]]}], "channels"),
    }


@pytest.mark.parametrize("name", item_faults([{"image": "", "label": ""}] * 2))
def test_faults_of_the_list(name, msd_folder):
    root = msd_folder(2)
    items, kind = item_faults(msd_datalist(root))[name]
    findings = find_problems(items, root=root, required=("image", "label"), in_channels=3 if "channels" in name else 1)
    assert kind in {finding.kind for finding in findings}


def test_pairs_on_different_grids_and_empty_masks(synthrad_folder):
    items = synthrad_datalist(synthrad_folder(3))
    write_volume(Path(items[0]["mr"]), mr_volume(), np.diag([1.5, 1.5, 3.3, 1]))
    write_volume(Path(items[1]["mask"]), np.zeros(SHAPE, np.uint8))
    write_volume(Path(items[2]["mr"]), ct_volume())
    write_volume(Path(items[3]["ct"]), mr_volume())
    found = {f.item: (f.kind, f.file) for f in find_problems(items)}
    assert found == {
        0: ("grid", items[0]["mr"]),
        1: ("mask_empty", items[1]["mask"]),
        2: ("unusual_range", items[2]["mr"]),
        3: ("not_hounsfield", items[3]["ct"]),
    }


def test_channels_in_one_file_and_in_many(brats_folder, tmp_path):
    four = write_volume(tmp_path / "four.nii.gz", np.stack([mr_volume(k) for k in range(4)], -1))
    assert find_problems([{"image": str(four), "modality": "mr"}], in_channels=4) == []
    assert [f.kind for f in find_problems([{"image": str(four)}], in_channels=2)] == ["channels"]
    one_dead = write_volume(tmp_path / "dead.nii.gz", np.stack([mr_volume(), np.zeros(SHAPE, np.int16)], -1))
    assert [f.kind for f in find_problems([{"image": str(one_dead)}], in_channels=2)] == ["constant"]
    items = brats_datalist(brats_folder(1))
    write_volume(Path(items[0]["image"][2]), mr_volume(), turned(AFFINE, 90))
    assert [(f.kind, f.file) for f in find_problems(items, in_channels=4)] == [("grid", items[0]["image"][2])]


@pytest.mark.parametrize("channels", [["CT", "PET"], ["T2", "ADC"], ["FLAIR", "T1"]])
def test_names_of_files_contradict_the_order_of_the_channels(channels, tmp_path):
    words = [name.lower() for name in channels]
    files = [str(write_volume(tmp_path / f"p_{word}.nii.gz", mr_volume(k))) for k, word in enumerate(words)]
    options = {"in_channels": 2, "channels": channels}
    assert find_problems([{"image": files}], **options) == []
    found = find_problems([{"image": files[::-1]}], **options)
    assert [f.kind for f in found] == ["channels"] * 2 and channels[0] in found[0].message


def test_a_missing_sequence_is_a_finding_too(brats_folder):
    root = brats_folder(1)
    (root / "BraTS2021_00000/BraTS2021_00000_t1.nii.gz").unlink()
    assert [f.kind for f in find_problems(brats_datalist(root), in_channels=4)] == ["missing_file"]


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii"])
def test_other_formats(suffix, tmp_path):
    """Also read by way of ITK; the same grid in two formats agrees, and damage is found."""
    image = itk.image_from_array(np.ascontiguousarray(ct_volume().T))
    image.SetSpacing([1.5, 1.5, 3.0])
    path = tmp_path / f"ct{suffix}"
    itk.imwrite(image, str(path))
    # ITK's axes point left and posterior, NIfTI's right and anterior
    label = write_volume(tmp_path / "label.nii.gz", label_volume(), np.diag([-1.5, -1.5, 3.0, 1.0]))
    item = {"image": str(path), "label": str(label), "modality": "ct"}
    assert find_problems([item], labels=LABELS) == []
    path.write_bytes(path.read_bytes()[:30])
    assert [f.kind for f in find_problems([item])] == ["unreadable"]


def test_policies(msd_folder, caplog):
    items = msd_datalist(msd_folder(3))
    Path(items[1]["image"]).unlink()
    write_volume(Path(items[2]["label"]), np.zeros(SHAPE, np.uint8))
    with pytest.raises(DataListError) as error:
        check_datalist(items)
    assert [f.fatal for f in error.value.findings] == [True, False]
    assert all(file in str(error.value) for file in (items[1]["image"], items[2]["label"]))
    assert isinstance(pickle.loads(pickle.dumps(error.value)), DataListError)
    with caplog.at_level(logging.WARNING):
        assert check_datalist(items, policy="skip") == [items[0], items[2]]
    assert items[1]["image"] in caplog.text and "left out 1 of 3" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert check_datalist(items, policy="warn") == items
    assert items[1]["image"] in caplog.text
    for nothing, policy in (([], "warn"), ([], "skip"), (items[1:2], "skip")):
        with pytest.raises(DataListError):
            check_datalist(nothing, policy=policy)
    with pytest.raises(ValueError, match="policy"):
        check_datalist(items, policy="lenient")


def test_headers_alone_do_not_read_the_voxels(msd_folder):
    items = msd_datalist(msd_folder(2))
    write_volume(Path(items[0]["image"]), with_value(ct_volume(), np.nan))
    assert find_problems(items, contents=False) == []
    assert len(find_problems(items)) == 1


def test_real_volumes_are_clean_and_faults_planted_in_copies_are_found(swinfuse_data, tmp_path):
    source = swinfuse_data / "MSD_like" / "Task52_SarcomaMR"
    assert find_problems(msd_datalist(source), contents=False) == []
    planted = [case for case in CASES if case[1] != "too small" and not case[1].startswith("CT ")]
    items = []
    for original, (key, _, plant, _, _) in zip(msd_datalist(source), planted):
        copy = {**original, key: str(tmp_path / key / Path(original[key]).name)}
        Path(copy[key]).parent.mkdir(exist_ok=True)
        shutil.copyfile(original[key], copy[key])
        plant(Path(copy[key]))
        items.append(copy)
    found = find_problems(items, labels=[0, 1])
    for number, (_, name, _, kind, _) in enumerate(planted[: len(items)]):
        assert {f.kind for f in found if f.item == number} & {kind, "grid"}, name
    assert len(items) >= 30


@pytest.mark.parametrize("padding", [None, -1024, -2000, -3024])
def test_an_offset_of_1024_is_seen_whatever_the_padding(padding, swinfuse_data, tmp_path):
    source = nib.load(msd_datalist(swinfuse_data / "MSD_like" / "Task50_HeadNeckCT")[0]["image"])
    right = np.asarray(source.dataobj).astype(np.int16)
    for shift, expected in ((0, []), (1024, ["not_hounsfield"])):
        values = right + np.int16(shift)
        if padding is not None:
            values[:3] = values[-3:] = padding
        file = write_volume(tmp_path / f"{shift}.nii.gz", values, source.affine)
        assert [f.kind for f in find_problems([{"image": str(file), "modality": "ct"}])] == expected


def test_every_real_ct_is_taken_for_one(swinfuse_data):
    for task in ("Task50_HeadNeckCT", "Task51_SarcomaCT", "Task63_AbdomenCT"):
        items = msd_datalist(swinfuse_data / "MSD_like" / task)[::8]
        assert [f for f in find_problems(items) if f.kind == "not_hounsfield"] == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzzed_headers_never_crash_the_check(data, tmp_path):
    raw = bytearray(nib.Nifti1Image(ct_volume(), AFFINE).to_bytes())
    for _ in range(data.draw(st.integers(1, 12))):
        raw[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzzed.nii"
    path.write_bytes(bytes(raw[: data.draw(st.integers(1, len(raw)))]))
    findings = find_problems([{"image": str(path), "label": str(path), "modality": "ct"}], labels=LABELS, roi_size=4)
    assert all(finding.kind in set(Kind) and finding.message for finding in findings)


def test_every_kind_of_finding_is_documented(repository):
    text = (repository / "docs" / "data.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `([a-z_]+)` \| (fatal|warning) \|", text, re.MULTILINE))
    assert documented == {kind.value: "warning" if kind in WARNINGS else "fatal" for kind in Kind}
