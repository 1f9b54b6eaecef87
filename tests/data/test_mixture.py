"""Pre-training from any layouts and from random shapes, and who the patients are."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from swinfuse_components.data import (
    DataListError,
    images_of_pairs,
    joint_datalist,
    msd_datalist,
    pairs_of,
    patient_of,
    pretraining_items,
    read_source,
    register_modality,
    sampling_weights,
    synthetic_volumes,
    two_images,
)
from swinfuse_components.data.patients import patients_of_files
from swinfuse_components.data.synthetic import random_appearance, random_labels
from swinfuse_components.transforms import ForegroundMaskd, ModalityIntensityd

from .conftest import SHAPE, ct_volume, label_volume, mr_volume, write_volume


def test_sources_of_every_layout_become_one_list(msd_folder, synthrad_folder, brats_folder, tmp_path):
    plain = tmp_path / "plain"
    for number in range(2):
        write_volume(plain / f"p{number}_MR.nii.gz", mr_volume(number))
    entries = {"training": [{"image": "p0_MR.nii.gz", "modality": "T1"}], "validation": [{"image": "p1_MR.nii.gz"}]}
    (plain / "list.json").write_text(json.dumps({"modality": "MRI", **entries}), encoding="utf-8")
    write_volume(tmp_path / "bids" / "sub-1" / "anat" / "sub-1_T1w.nii.gz", mr_volume())
    synthrad, msd = synthrad_folder(1), msd_folder(2)
    brats = brats_folder(1)
    items = pretraining_items(
        [synthrad, {"path": msd, "weight": 2, "name": "liver"}, brats, plain, plain / "list.json", tmp_path / "bids"],
        policy="warn",  # the plain folder and the list name the same files
    )
    images = images_of_pairs(items)
    assert {i["modality"] for i in images} == {"ct", "mr"}
    assert len(images) == 2 * 2 + 2 + 4 + 2 + 2 + 1
    assert {i["patient"] for i in images if i["source"] == str(plain)} == {"p0", "p1"}
    assert {i["weight"] for i in images if i["source"] == "liver"} == {2}
    assert len(pairs_of(items)) == 2 and "mask" in pairs_of(items)[0]
    with pytest.raises(ValueError, match="registered images"):
        pairs_of(items, ["ct", "pet"])
    with pytest.raises(ValueError, match="expected 'path'"):
        pretraining_items([{"folder": str(msd)}])


def test_modalities_that_nothing_says_are_asked_for(tmp_path):
    write_volume(tmp_path / "own" / "x.nii.gz", ct_volume())
    with pytest.raises(ValueError, match="x.nii.gz.*--modality"):
        read_source(tmp_path / "own")
    assert read_source(tmp_path / "own", modality={"name": "oct", "limits": [1, 99]})[0]["modality"] == "oct"


LABELS = "a_gt ct_mask a.seg seg_a labels/a a-labelmap ground_truth/a Segmentation_1 x/a_dseg a_prediction".split()


@pytest.mark.parametrize("name", LABELS)
def test_label_maps_are_no_images(name, tmp_path):
    write_volume(tmp_path / "data" / "a_ct.nii.gz", ct_volume())
    write_volume(tmp_path / "data" / f"{name}.nii.gz", label_volume())
    assert [Path(item["image"]).name for item in read_source(tmp_path / "data")] == ["a_ct.nii.gz"]


def test_masks_are_used_where_there_are_any_and_an_empty_one_is_refused(synthrad_folder):
    root = synthrad_folder(1)
    mask = root / "Task1" / "brain" / "1BA000" / "mask.nii.gz"
    write_volume(mask, np.zeros(SHAPE, np.uint8))
    with pytest.raises(DataListError, match="background alone"):
        pretraining_items([root])
    assert len(pretraining_items([root], policy="skip")) == 1
    for path in root.rglob("mask.nii.gz"):
        path.unlink()
    assert len(pretraining_items([root])) == 2
    image = torch.zeros(1, 4, 4, 4)
    image[0, 1:3, 1:3, 1:3] = 0.5
    assert ForegroundMaskd("image")({"image": image})["mask"].sum() == 8


def test_pet_and_registered_modalities_are_scaled_by_their_rule(swinfuse_data):
    item = msd_datalist(swinfuse_data / "MSD_like" / "Task53_SarcomaPET")[0]
    assert item["modality"] == "pet"
    image = torch.tensor([[[0.0, 5.0, 20.0, 40.0]]])
    assert ModalityIntensityd("image", item["modality"])({"image": image})["image"].tolist() == [[[0, 0.25, 1, 1]]]
    register_modality("scaled", scaling="zscore")
    scaled = ModalityIntensityd("image", "scaled")({"image": image})["image"]
    torch.testing.assert_close(scaled, (image - image.mean()) / image.std())
    broken = torch.tensor([[[float("nan"), -1000.0, 1000.0, float("inf")]]])
    assert ModalityIntensityd("image", "ct")({"image": broken})["image"].tolist() == [[[0, 0, 1, 1]]]
    with pytest.raises(ValueError, match="increasing"):
        register_modality("bad", limits=[5, 5])


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("imagesTr/liver_3.nii.gz", "liver_3"),
        ("STS_001_0000.nii.gz", "STS_001"),
        ("p7_ct.nrrd", "p7"),
        ("p4.T2.nii.gz", "p4"),
        ("ct_train_1001_image.nii.gz", "ct_train_1001"),
        ("BraTS-GLI-00005-100-t1c.nii.gz", "BraTS-GLI-00005"),
        ("sub-07_ses-2_T1w.nii.gz", "sub-07"),
        ("1.2.840.100", "1.2.840.100"),
    ],
)
def test_one_rule_says_who_a_patient_is(name, patient):
    assert patient_of(name) == patient_of(patient_of(name)) == patient


@pytest.mark.parametrize(
    ("files", "patients"),
    [
        ("case_1/imaging.nii.gz case_2/imaging.nii.gz", "case_1 case_2"),
        ("ct/p1.nii.gz mr/p1.nii.gz", "p1 p1"),
        ("a/prostate.nii.gz b/prostate.nii.gz c/prostate.nii.gz", "a b c"),
        ("x_0000.nii.gz x_0001.nii.gz y_0000.nii.gz y_0001.nii.gz", "x x y y"),
        ("P1/ct/image P1/pet/image P2/ct/image", "P1 P1 P2"),
        (" ".join(f"case_{k:04d}.nii" for k in range(1, 20)), " ".join(f"case_{k:04d}" for k in range(1, 20))),
    ],
)
def test_folders_say_who_a_patient_is_where_names_repeat(files, patients):
    assert patients_of_files(files.split()) == patients.split()


def test_joint_training_needs_the_same_labels(tmp_path: Path) -> None:
    def task(name: str, modality: str, labels: dict[str, str]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        entry = {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        content = {"name": name, "modality": {"0": modality}, "labels": labels, "training": [entry]}
        (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
        return folder

    liver = {"0": "background", "1": "liver"}
    ct, mr = task("a", "CT", liver), task("b", "MRI", liver)
    other = task("c", "MRI", {"0": "background", "1": "spleen"})
    items = joint_datalist([ct, mr])
    assert [item["modality"] for item in items] == ["ct", "mr"] and sampling_weights(items) == [0.5, 0.5]
    with pytest.raises(ValueError, match="same labels and channels: .*liver.*spleen"):
        joint_datalist([ct, other])
    with pytest.raises(ValueError, match="different data sets"):
        joint_datalist([ct, ct])
    with pytest.raises(ValueError, match="--datasets"):
        joint_datalist([])


def test_labels_are_many_shapes_and_appearances_know_nothing_of_each_other() -> None:
    shares, correlations = [], []
    for seed in range(6):
        rng = np.random.RandomState(seed)
        labels = random_labels(40, rng)
        assert len(np.unique(labels)) > 8 and (labels == 0).any()
        images = [random_appearance(labels, rng) for _ in range(2)]
        assert all(image.shape == labels.shape and image.min() == 0 and image.max() == 1 for image in images)
        means = [np.array([image[labels == v].mean() for v in np.unique(labels)]) for image in images]
        size = np.array([(labels == v).sum() for v in np.unique(labels)])
        for image, mean in zip(images, means):  # the share of the variance that lies between the shapes
            shares.append(np.average((mean - image.mean()) ** 2, weights=size) / image.var())
        correlations.append(np.corrcoef(*means)[0, 1])
    assert np.mean(shares) > 0.4
    assert abs(np.mean(correlations)) < 0.5


def test_volumes_are_written_once_and_the_same_for_a_seed(tmp_path: Path) -> None:
    folder = Path(synthetic_volumes(tmp_path / "a", 2, size=32, spacing=(2, 2, 2), ct_window=(-100, 300)))
    files = sorted(folder.rglob("*.nii.gz"))
    assert len(files) == 6
    ct = nib.load(folder / "Task1/synthetic/synthetic_00000/ct.nii.gz")
    assert ct.header.get_zooms() == (2, 2, 2) and ct.get_fdata().min() == -100 and ct.get_fdata().max() == 300
    before = [file.stat().st_mtime_ns for file in files]
    synthetic_volumes(folder, 2, size=32)
    assert before == [file.stat().st_mtime_ns for file in files]
    again = Path(synthetic_volumes(tmp_path / "b", 1, size=32, seed=1))
    name = "Task1/synthetic/synthetic_00001/mr.nii.gz"
    np.testing.assert_array_equal(nib.load(again / name).get_fdata(), nib.load(folder / name).get_fdata())


def test_mixed_with_patients_in_any_ratio(tmp_path: Path, synthrad_folder, msd_folder) -> None:
    sources = {
        str(synthrad_folder(2)): 1,
        str(msd_folder(cases=3)): 2,
        synthetic_volumes(tmp_path / "s", 5, size=32): 3,
    }
    patients = pretraining_items([{"path": path, "weight": weight} for path, weight in sources.items()])
    items = two_images(patients)
    assert [item["modality"] for item in items].count(["ct", "mr"]) == 4 + 5  # two regions of two patients
    weights = np.array(sampling_weights(items))
    for path, weight in sources.items():
        chosen = [item["source"] == path for item in items]
        assert weights[chosen].sum() == pytest.approx(weight / 6)
    of_ct = two_images(patients, ["ct"])
    assert all(item["modality"] == ["ct", "ct"] and item["first"] == item["second"] for item in of_ct)
    single = next(item for item in items if item["modality"] != ["ct", "mr"])
    assert single["first"] == single["second"] and len(set(single["modality"])) == 1
