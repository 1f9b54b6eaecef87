"""Data lists of the three layouts, and their errors."""

import json
import os
import shutil

import pytest

from swinfuse_components.data import (
    BRATS_CHANNELS,
    UnsafePathError,
    brats_datalist,
    find_problems,
    images_of_pairs,
    list_images,
    msd_datalist,
    read_msd_task,
    read_task,
    resolve_inside,
    split_folds,
    synthrad_datalist,
)
from swinfuse_components.data.layouts import channel_of
from swinfuse_components.evaluation.targets import read_target


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
    odd = [(b"{", "not valid JSON"), (b"[]", "expected a JSON object"), (b"[" * 100000, "not valid JSON")]
    for content, message in [*odd, (bytes(range(128, 256)), "not valid JSON")]:
        (root / "dataset.json").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            msd_datalist(root)


def test_synthrad_datalist(synthrad_folder):
    root = synthrad_folder(2)
    items = synthrad_datalist(root)
    assert [item["region"] for item in items] == ["brain", "brain", "pelvis", "pelvis"]
    assert [item["patient"] for item in items] == ["1BA000", "1BA001", "1PA000", "1PA001"]
    assert all(os.path.isfile(item[key]) for item in items for key in ("ct", "mr", "mask"))
    assert synthrad_datalist(root, regions="brain") == synthrad_datalist(root / "Task1" / "brain") == items[:2]
    images = images_of_pairs(items)
    assert len(images) == 8 and {item["modality"] for item in images} == {"ct", "mr"}
    assert [item["image"] for item in images_of_pairs(items, ["mr"])] == [item["mr"] for item in items]


def test_cone_beam_ct_is_left_out_and_other_modalities_are_found(synthrad_folder):
    root = synthrad_folder(2)
    # Task2 has a cone-beam CT where Task1 has the MRI
    shutil.copytree(root / "Task1/brain/1BA001", root / "Task2/brain/2BA001")
    os.rename(root / "Task2/brain/2BA001/mr.nii.gz", root / "Task2/brain/2BA001/cbct.nii.gz")
    with pytest.raises(ValueError, match="no SynthRAD patient"):
        synthrad_datalist(root / "Task2")
    (root / "Task1/pelvis/1PA000/mr.nii.gz").rename(root / "Task1/pelvis/1PA000/pet.nii.gz")
    assert {"ct", "mr", "pet", "mask"} <= set(synthrad_datalist(root)[0])  # gaps are for the check to find


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
    with pytest.raises(ValueError, match="no BraTS21 patient"):
        brats_datalist(root / "notes")


def test_brats_of_every_year_is_read_in_one_channel_order(brats_folder, tmp_path):
    root = brats_folder(2)
    names = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w", "seg": "seg"}
    for number, folder in enumerate(sorted(root.iterdir())):
        new = f"BraTS-GLI-{number:05d}-001"
        for old, word in names.items():
            file = tmp_path / "2023" / new / f"{new}-{word}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / f"{folder.name}_{old}.nii.gz", file)
        shutil.copytree(folder, tmp_path / "2019" / ("HGG", "LGG")[number] / folder.name)
    newer = brats_datalist(tmp_path / "2023")
    assert [item["patient"] for item in newer] == ["BraTS-GLI-00000", "BraTS-GLI-00001"]  # without the visit
    assert [channel_of(path) for path in newer[0]["image"]] == ["flair", "t1ce", "t1", "t2"]
    assert newer[0]["allowed_labels"] == [0, 1, 2, 3]
    assert read_task(tmp_path / "2023")[0].labels[3] == "enhancing tumour" == read_task(root)[0].labels[4]
    assert [item["patient"] for item in brats_datalist(tmp_path / "2019")] == ["BraTS2021_00000", "BraTS2021_00001"]
    assert brats_datalist(tmp_path / "2019" / "HGG" / "BraTS2021_00000") == brats_datalist(tmp_path / "2019")[:1]
    listed = list_images(tmp_path / "2023", channels=BRATS_CHANNELS)[0]
    assert [channel_of(path) for path in listed["image"]] == [*BRATS_CHANNELS]


def test_nnunet_v2_as_it_is(msd_folder):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    root = msd_folder(3, modality=None, training=None, channel_names={"0": "CT"}, labels=labels)
    content = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    (root / "dataset.json").write_text(json.dumps({k: v for k, v in content.items() if v}), encoding="utf-8")
    for file in (root / "imagesTr").iterdir():
        file.rename(root / "imagesTr" / file.name.replace(".nii", "_0000.nii"))
    task, items = read_task(root)
    assert task.labels == {0: "background", 1: "label 1", 2: "core"}
    assert task.regions == {"whole": [1, 2], "core": [2]}
    assert [(os.path.basename(i["image"]), os.path.basename(i["label"]), i["patient"]) for i in items] == [
        (f"case_0{k}_0000.nii.gz", f"case_0{k}.nii.gz", f"case_0{k}") for k in range(3)
    ]
    assert find_problems(items, labels=task.labels) == []
    content["channel_names"] = {"0": "T1", "1": "T2"}
    (root / "dataset.json").write_text(json.dumps({k: v for k, v in content.items() if v}), encoding="utf-8")
    assert len(msd_datalist(root)[0]["image"]) == 2


def test_a_list_with_a_split_of_its_own_keeps_it_and_folders_name_the_patients(msd_folder):
    root = msd_folder(3)
    content = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    for number, entry in enumerate(content["training"]):
        for key, name in (("image", "imaging.nii.gz"), ("label", "segmentation.nii.gz")):
            (root / f"case_{number}").mkdir(exist_ok=True)
            (root / entry[key]).rename(root / f"case_{number}" / name)
            entry[key] = f"case_{number}/{name}"
    content["validation"] = [content["training"].pop()]
    (root / "list.json").write_text(json.dumps(content), encoding="utf-8")
    items = split_folds(read_task(root / "list.json")[1], 2)
    assert [(item["patient"], item["fold"]) for item in items] == [("case_0", 1), ("case_1", 1), ("case_2", 0)]
    names = [target_item["case"] for target_item in read_target(root / "list.json").items]
    assert names == ["case_0_segmentation", "case_1_segmentation", "case_2_segmentation"]


def test_nnunet_v1_lists_its_files_without_the_channel(msd_folder):
    root = msd_folder(2)
    for file in (root / "imagesTr").iterdir():
        file.rename(root / "imagesTr" / file.name.replace(".nii", "_0000.nii"))
    assert find_problems(msd_datalist(root), labels=[0, 1, 2]) == []


def test_text_as_other_systems_write_it(msd_folder, caplog):
    root = msd_folder(2, numTraining=7)
    text = (root / "dataset.json").read_text(encoding="utf-8").replace("imagesTr/", "imagesTr\\\\")
    (root / "dataset.json").write_text(text, encoding="utf-8-sig")
    (root / "imagesTr" / "._case_00.nii.gz").write_bytes(b"x")
    assert all(os.path.exists(item["image"]) for item in msd_datalist(root))
    assert "numTraining 7; its list of 2" in caplog.text
    (root / "imagesTr" / "case_00.nii.gz").rename(root / "imagesTr" / "c\u00e9_00.nii.gz")
    (root / "dataset.json").write_text(text.replace("case_00", "ce\u0301_00", 1), encoding="utf-8")
    assert os.path.exists(msd_datalist(root)[0]["image"])  # accents as macOS writes them
    odd = root.rename(root.with_name("Tâsk #1"))
    assert len(msd_datalist(str(odd).replace("#", "::"))) == 2  # as MONAI hands it over
    with pytest.raises(FileNotFoundError, match="nowhere #2"):
        msd_datalist("nowhere ::2")


def test_paths_stay_inside_their_root(tmp_path):
    assert resolve_inside(tmp_path, "a/./b.nii.gz") == str(tmp_path / "a/b.nii.gz")
    assert resolve_inside(tmp_path, str(tmp_path / "a")) == str(tmp_path / "a")
    for entry in ["..", "../x", "a/../../x", "/etc/passwd", str(tmp_path) + "x/y", "", ".", "a\0b", None, 3, ["a"]]:
        with pytest.raises(UnsafePathError):
            resolve_inside(tmp_path, entry)


def test_real_folders(swinfuse_data):
    assert len(synthrad_datalist(swinfuse_data / "SynthRAD_like")) == 41
    assert len(msd_datalist(swinfuse_data / "MSD_like" / "Task04_Hippocampus")) == 208
    assert read_msd_task(swinfuse_data / "MSD_like" / "Task50_HeadNeckCT").labels[5] == "Mandible"
    ct, mr = (msd_datalist(swinfuse_data / "MSD_like" / name) for name in ("Task51_SarcomaCT", "Task52_SarcomaMR"))
    assert [item["patient"] for item in ct] == [item["patient"] for item in mr]
    assert len(brats_datalist(swinfuse_data / "BraTS21_like")[0]["image"]) == 4
