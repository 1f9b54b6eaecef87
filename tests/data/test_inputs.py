"""Images as users have them: found, checked before inference, and the names of what is written."""

from pathlib import Path

import itk
import numpy as np
import pytest

from swinfuse_components.data import list_images, list_sequences


def dicom(folder: Path, uid: str = "1.2.3", slices: int = 3, number: int = 1, modality: str = "CT") -> Path:
    """Write a small series, one file a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(slices):
        image = itk.image_from_array(np.full((1, 8, 9), 100 * k - 1000, np.int16))
        image.SetOrigin([0.0, 0.0, 3.0 * k])
        tags = image.GetMetaDataDictionary()
        for tag, value in {
            "0020|000d": "1.2",
            "0020|000e": uid,
            "0008|0018": f"{uid}.{k}",
            "0008|0060": modality,
            "0020|0011": str(number),
            "0020|0013": str(k),
            "0020|0032": f"0\\0\\{3 * k}",
            "0008|103e": f"part {number}",
        }.items():
            tags[tag] = value
        image.SetMetaDataDictionary(tags)
        writer = itk.ImageFileWriter.New(Input=image, FileName=str(folder / f"{number}_{k}.dcm"))
        gdcm = itk.GDCMImageIO.New()
        gdcm.KeepOriginalUIDOn()
        writer.SetImageIO(gdcm)
        writer.Update()
    return folder


def test_images_are_found_as_users_have_them(tmp_path: Path) -> None:
    (tmp_path / "b.nii.gz").write_bytes(b"x")
    (tmp_path / "a.NRRD").write_bytes(b"x")
    (tmp_path / ".hidden.nii.gz").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    dicom(tmp_path / "series")
    found = [Path(item["image"]).name for item in list_images(tmp_path)]
    assert found == ["a.NRRD", "b.nii.gz", "series"]
    assert list_images(tmp_path / "b.nii.gz") == [{"image": str(tmp_path / "b.nii.gz"), "patient": "b"}]
    assert list_images(tmp_path / "series") == [{"image": str(tmp_path / "series"), "patient": "series"}]


def test_a_decathlon_task_means_its_test_images(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}", encoding="utf-8")
    (tmp_path / "imagesTs").mkdir()
    (tmp_path / "imagesTs" / "t.nii.gz").write_bytes(b"x")
    assert [Path(item["image"]).name for item in list_images(tmp_path)] == ["t.nii.gz"]


def test_nothing_to_segment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no image"):
        list_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list_images(tmp_path / "nowhere")


def test_sequences_of_a_patient_are_found_in_their_order_and_form(tmp_path: Path) -> None:
    for patient in ("P1", "P2"):
        folder = tmp_path / "new" / patient
        dicom(folder / f"{patient}_t1")
        (folder / f"{patient}_t1ce.nrrd").write_bytes(b"x")
        (folder / f"{patient}_flair.nii.gz").write_bytes(b"x")
    names = ["flair", "t1ce", "t1"]
    items = list_sequences(tmp_path / "new", names)
    assert [item["patient"] for item in items] == ["P1", "P2"]
    assert [Path(image).name for image in items[0]["image"]] == ["P1_flair.nii.gz", "P1_t1ce.nrrd", "P1_t1"]
    assert list_sequences(tmp_path / "new" / "P2", names) == items[1:]
    with pytest.raises(FileNotFoundError, match="2 sequence.s. are missing: P1_t2 in .*P2_t2 in "):
        list_sequences(tmp_path / "new", [*names, "t2"])
    (tmp_path / "four.nii.gz").write_bytes(b"x")
    assert list_sequences(tmp_path / "four.nii.gz", names) == [
        {"image": str(tmp_path / "four.nii.gz"), "patient": "four"}
    ]
