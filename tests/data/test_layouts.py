"""Data lists of the three layouts, and their errors."""

import json
import os
import shutil

import numpy as np
import pytest

from swinfuse_components.data import (
    UnsafePathError,
    brats_datalist,
    images_of_pairs,
    msd_datalist,
    read_msd_task,
    resolve_inside,
    synthrad_datalist,
)

DECATHLON = {
    # name, channels, classes without background; http://medicaldecathlon.com and each task's dataset.json
    "Task01_BrainTumour": (["FLAIR", "T1w", "t1gd", "T2w"], ["edema", "non-enhancing tumor", "enhancing tumour"], "mr"),
    "Task02_Heart": (["MRI"], ["left atrium"], "mr"),
    "Task03_Liver": (["CT"], ["liver", "cancer"], "ct"),
    "Task04_Hippocampus": (["MRI"], ["Anterior", "Posterior"], "mr"),
    "Task05_Prostate": (["T2", "ADC"], ["PZ", "TZ"], "mr"),
    "Task06_Lung": (["CT"], ["cancer"], "ct"),
    "Task07_Pancreas": (["CT"], ["pancreas", "cancer"], "ct"),
    "Task08_HepaticVessel": (["CT"], ["Vessel", "Tumour"], "ct"),
    "Task09_Spleen": (["CT"], ["spleen"], "ct"),
    "Task10_Colon": (["CT"], ["colon cancer primaries"], "ct"),
}


@pytest.mark.parametrize("name", DECATHLON)
def test_the_ten_tasks_are_understood(name, msd_folder):
    channels, classes, modality = DECATHLON[name]
    labels = {str(number): label for number, label in enumerate(["background", *classes])}
    task = read_msd_task(msd_folder(1, name=name, modality={str(i): c for i, c in enumerate(channels)}, labels=labels))
    assert (task.name, task.modality, list(task.channels), task.class_names) == (name, modality, channels, classes)
    assert task.in_channels == len(channels) and task.num_classes == len(classes) + 1


def test_msd_datalist(msd_folder, monkeypatch):
    root = msd_folder(3)
    items = msd_datalist(root)
    assert [item["patient"] for item in items] == ["case_00", "case_01", "case_02"]
    assert all(os.path.isabs(item["image"]) and os.path.exists(item["label"]) for item in items)
    assert {item["modality"] for item in items} == {"ct"}
    # a relative folder, and a test section without labels
    monkeypatch.chdir(root.parent)
    assert msd_datalist(root.name) == items
    assert msd_datalist(root, "test")[0].keys() == {"image", "modality", "patient"}
    assert {item["patient"] for item in msd_datalist(root, patient_pattern=r"case_(\d)")} == {"0"}


def test_nnunet_form_and_order_of_channels(msd_folder):
    names = {"1": "T2", "0": "FLAIR"}
    root = msd_folder(1, modality=names, labels={"background": 0, "tumour": 1})
    task = read_msd_task(root)
    assert task.channels == ("FLAIR", "T2") and task.labels == {0: "background", 1: "tumour"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": {}}, "'modality' must map"),
        ({"modality": ["CT"]}, "'modality' must map"),
        ({"modality": {"zero": "CT"}}, "channel numbers"),
        ({"modality": {"0": "X"}}, "cannot tell one modality"),
        ({"modality": {"0": "CT", "1": "T1"}}, "cannot tell one modality"),
        ({"labels": {}}, "'labels' must map"),
        ({"labels": ["background", "liver"]}, "'labels' must map"),
        ({"labels": {"0": "background", "2": "liver"}}, "without gaps"),
        ({"labels": {"0": "background"}}, "without gaps"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "declared twice"),
        ({"labels": {"a": ["x", 2]}}, "no integer value"),
        ({"training": []}, "missing or empty"),
        ({"training": None}, "missing or empty"),
        ({"training": [{"image": "a.nii.gz"}]}, r"training\[0\] needs"),
        ({"training": [17]}, r"training\[0\] needs"),
        ({"training": [{"image": 3, "label": "b.nii.gz"}]}, "found int"),
        ({"training": [{"image": "../other/a.nii.gz", "label": "b.nii.gz"}]}, "refused"),
        ({"training": [{"image": "/etc/passwd", "label": "b.nii.gz"}]}, "refused"),
        ({"training": [{"image": "a.nii.gz", "label": "labelsTr/../../b.nii.gz"}]}, "refused"),
        ({"training": [{"image": "", "label": "b.nii.gz"}]}, "empty or malformed"),
        ({"training": [{"image": "a\0.nii.gz", "label": "b.nii.gz"}]}, "empty or malformed"),
    ],
)
def test_a_faulty_dataset_json_is_named(changes, message, msd_folder):
    root = msd_folder(1, **changes)
    with pytest.raises(ValueError, match=message) as error:
        msd_datalist(root)
    assert "Task99_Made" in str(error.value)


def test_missing_or_broken_msd_folders(msd_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        msd_datalist(tmp_path / "nowhere")
    root = msd_folder(1)
    with pytest.raises(FileNotFoundError, match=r"did you mean.*Task99_Made"):
        msd_datalist(root.parent)
    with pytest.raises(NotADirectoryError, match="is a file"):
        msd_datalist(root / "imagesTr" / "case_00.nii.gz")
    with pytest.raises(ValueError, match="patient_pattern"):
        msd_datalist(root, patient_pattern="nobody")
    with pytest.raises(ValueError, match="expected one of"):
        read_msd_task(root, modality="xray")
    for text, message in [("{", "not valid JSON"), ("[]", "expected a JSON object"), ("[" * 100000, "not valid JSON")]:
        (root / "dataset.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            msd_datalist(root)


def test_synthrad_datalist(synthrad_folder):
    root = synthrad_folder(2)
    items = synthrad_datalist(root)
    assert [(item["region"], item["patient"]) for item in items] == [
        ("brain", "1BA000"),
        ("brain", "1BA001"),
        ("pelvis", "1PA000"),
        ("pelvis", "1PA001"),
    ]
    assert all(os.path.isfile(item[key]) for item in items for key in ("ct", "mr", "mask"))
    assert synthrad_datalist(root, regions="brain") == synthrad_datalist(root / "Task1" / "brain") == items[:2]
    images = images_of_pairs(items)
    assert len(images) == 8 and {item["modality"] for item in images} == {"ct", "mr"}
    assert [item["image"] for item in images_of_pairs(items, ["mr"])] == [item["mr"] for item in items]


def test_synthrad_gaps_are_named_all_at_once_and_cone_beam_ct_is_left_out(synthrad_folder):
    root = synthrad_folder(2)
    gaps = [root / "Task1/brain/1BA000/mr.nii.gz", root / "Task1/pelvis/1PA001/mask.nii.gz"]
    for path in gaps:
        path.unlink()
    with pytest.raises(FileNotFoundError) as error:
        synthrad_datalist(root)
    assert all(str(path) in str(error.value) for path in gaps)
    assert len(synthrad_datalist(root, check_files=False)) == 4
    # Task2 has a cone-beam CT where Task1 has the MRI
    shutil.copytree(root / "Task1/brain/1BA001", root / "Task2/brain/2BA001")
    os.rename(root / "Task2/brain/2BA001/mr.nii.gz", root / "Task2/brain/2BA001/cbct.nii.gz")
    with pytest.raises(ValueError, match="no SynthRAD patient"):
        synthrad_datalist(root / "Task2")


def test_synthrad_errors(synthrad_folder, tmp_path):
    root = synthrad_folder(1)
    with pytest.raises(ValueError, match=r"thorax.*Task1/brain"):
        synthrad_datalist(root, regions="thorax")
    with pytest.raises(FileNotFoundError, match="SynthRAD folder"):
        synthrad_datalist(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no such folder"):
        synthrad_datalist(tmp_path / "empty")
    with pytest.raises(ValueError, match="none of the"):
        images_of_pairs(synthrad_datalist(root), ["pet"])


def test_brats_datalist_and_its_channel_order(brats_folder):
    root = brats_folder(2)
    (root / "notes").mkdir()
    items = brats_datalist(root)
    assert [item["patient"] for item in items] == ["BraTS2021_00000", "BraTS2021_00001"]
    sequences = [os.path.basename(path).split("_")[-1] for path in items[0]["image"]]
    assert sequences == ["flair.nii.gz", "t1ce.nii.gz", "t1.nii.gz", "t2.nii.gz"]
    assert items[0]["label"].endswith("seg.nii.gz") and items[0]["modality"] == "mr"
    os.remove(items[0]["label"])
    os.remove(items[1]["image"][1])
    with pytest.raises(FileNotFoundError, match="2 file") as error:
        brats_datalist(root)
    assert "00000_seg" in str(error.value) and "00001_t1ce" in str(error.value)
    with pytest.raises(ValueError, match="no BraTS21 patient"):
        brats_datalist(root / "notes")
    os.remove(root / "BraTS2021_00001" / "BraTS2021_00001_seg.nii.gz")
    assert "label" not in brats_datalist(root, channels=("flair",), labelled=False)[1]


def test_paths_stay_inside_their_root(tmp_path):
    assert resolve_inside(tmp_path, "a/./b.nii.gz") == str(tmp_path / "a/b.nii.gz")
    assert resolve_inside(tmp_path, str(tmp_path / "a")) == str(tmp_path / "a")
    for entry in ["..", "../x", "a/../../x", "/etc/passwd", str(tmp_path) + "x/y", "", ".", "a\0b", None, 3, ["a"]]:
        with pytest.raises(UnsafePathError):
            resolve_inside(tmp_path, entry)


def test_real_folders(swinfuse_data):
    assert len(synthrad_datalist(swinfuse_data / "SynthRAD_like")) == 41
    assert len(msd_datalist(swinfuse_data / "MSD_like" / "Task04_Hippocampus")) == 208
    assert read_msd_task(swinfuse_data / "MSD_like" / "Task50_HeadNeckCT").num_classes == 6
    ct, mr = (msd_datalist(swinfuse_data / "MSD_like" / name) for name in ("Task51_SarcomaCT", "Task52_SarcomaMR"))
    assert [item["patient"] for item in ct] == [item["patient"] for item in mr]
    assert len(brats_datalist(swinfuse_data / "BraTS21_like")[0]["image"]) == 4


def test_dataset_json_with_a_byte_that_is_no_text(msd_folder):
    root = msd_folder(1)
    (root / "dataset.json").write_bytes(np.arange(128, 256, dtype=np.uint8).tobytes())
    with pytest.raises(ValueError, match="not valid JSON"):
        read_msd_task(root)
    facts = {"labels": {"0": "background", "1": "x"}, "modality": {"0": "MR"}}
    (root / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
    assert read_msd_task(root).modality == "mr"
