"""Images as users have them: found, checked before inference, and the names of what is written."""

from pathlib import Path

import itk
import numpy as np
import pytest
from monai.transforms import LoadImage, SaveImaged

from swinfuse_components.data import DataListError, OutputNames, check_inputs, list_images

from ..bundles.grids import write_dicom_series
from .conftest import AFFINE, ct_volume, mr_volume, write_volume
from .test_checks import turned


def dicom(
    folder: Path, uid: str = "1.2.3", slices: int = 3, number: int = 1, modality: str = "CT", patient: str = ""
) -> Path:
    """Write a small series, one file a slice."""
    planes = np.stack([np.full((8, 9), 100 * k - 1000, np.int16) for k in range(slices)])
    tags = {"0010|0020": patient, "0020|000e": uid, "0008|0060": modality, "0020|0011": str(number)}
    write_dicom_series(folder, planes, (1.0, 1.0, 3.0), number, **tags, **{"0008|103e": f"part {number}"})
    return folder


def multi_frame(path: Path, values: np.ndarray) -> Path:
    """Write an enhanced CT: one file with a frame for each slice of (Z, Y, X)."""
    pydicom = pytest.importorskip("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.3.4"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Modality, file.StudyInstanceUID, file.SeriesInstanceUID, file.SeriesNumber = "CT", "1.2", "1.2.3", 1
    file.NumberOfFrames, file.Rows, file.Columns = values.shape
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"

    def group(**settings: object) -> pydicom.Dataset:
        part = pydicom.Dataset()
        for name, value in settings.items():
            setattr(part, name, value)
        return part

    file.SharedFunctionalGroupsSequence = [
        group(
            PixelMeasuresSequence=[group(PixelSpacing=[2, 2], SliceThickness=3, SpacingBetweenSlices=3)],
            PlaneOrientationSequence=[group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelValueTransformationSequence=[group(RescaleIntercept=-1024, RescaleSlope=1, RescaleType="HU")],
        )
    ]
    file.PerFrameFunctionalGroupsSequence = [
        group(
            PlanePositionSequence=[group(ImagePositionPatient=[0, 0, 3 * k])],
            FrameContentSequence=[group(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[k + 1])],
        )
        for k in range(len(values))
    ]
    file.PixelData = (values + 1024).astype("<i2").tobytes()
    path.parent.mkdir(parents=True)
    file.save_as(str(path), enforce_file_format=True)
    return path


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
    # a task's test images
    (tmp_path / "dataset.json").write_text("{}", encoding="utf-8")
    (tmp_path / "imagesTs").mkdir()
    with pytest.raises(FileNotFoundError, match="imagesTs' holds no image"):
        list_images(tmp_path)
    (tmp_path / "imagesTs" / "t.nii.gz").write_bytes(b"x")
    assert [Path(item["image"]).name for item in list_images(tmp_path)] == ["t.nii.gz"]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list_images(tmp_path / "nowhere")


def test_sequences_of_a_patient_are_found_in_their_order_and_form(tmp_path: Path) -> None:
    for patient in ("P1", "P2"):
        folder = tmp_path / "new" / patient
        dicom(folder / f"{patient}_t1")
        (folder / f"{patient}_t1ce.nrrd").write_bytes(b"x")
        (folder / f"{patient}_flair.nii.gz").write_bytes(b"x")
    names = ["flair", "t1ce", "t1"]
    items = list_images(tmp_path / "new", channels=names)
    assert [item["patient"] for item in items] == ["P1", "P2"]
    assert [Path(image).name for image in items[0]["image"]] == ["P1_flair.nii.gz", "P1_t1ce.nrrd", "P1_t1"]
    assert list_images(tmp_path / "new" / "P2", channels=names) == items[1:]
    missing = list_images(tmp_path / "new", channels=[*names, "t2"])
    assert [item["image"][3] for item in missing] == [str(tmp_path / f"new/{p}/{p}_t2.nii.gz") for p in ("P1", "P2")]
    (file := tmp_path / "four.nii.gz").write_bytes(b"x")
    assert list_images(file, channels=names) == [{"image": str(file), "patient": "four"}]


@pytest.mark.parametrize("beside", ["0_notes.txt", "DICOMDIR", "a_ct.nii.gz", "inner"])
def test_a_series_is_found_beside_anything(beside: str, tmp_path: Path) -> None:
    folder = dicom(tmp_path / "study" / "series")
    if beside == "inner":
        dicom(folder / beside, "1.2.4")
    else:
        (folder / beside).write_bytes(b" " * 128 + b"DICM" if beside == "DICOMDIR" else b"x" * 200)
    if beside == "DICOMDIR":
        (folder / beside).rename(tmp_path / "study" / beside)
    found = [Path(item["image"]).name for item in list_images(tmp_path / "study")]
    assert found == {"a_ct.nii.gz": ["a_ct.nii.gz", "series"], "inner": ["series", "inner"]}.get(beside, ["series"])


def test_series_of_one_patient_id_are_one_patient(tmp_path: Path) -> None:
    for patient, series in (("P1", "a/x"), ("P1", "b/y"), ("P2", "c/z")):
        dicom(tmp_path / patient / series, f"1.2.{ord(series[0])}", patient=patient)
    assert [item["patient"] for item in list_images(tmp_path)] == ["P1", "P1", "P2"]
    dicom(tmp_path / "flat" / "s1", "1.2.1", patient="ID")
    dicom(tmp_path / "flat" / "s2", "1.2.2", patient="ID")  # which is in no folder's name, and stays in the header
    assert [item["patient"] for item in list_images(tmp_path / "flat")] == ["s1", "s1"]


def test_a_missing_slice_is_said(tmp_path: Path, caplog) -> None:
    folder = dicom(tmp_path / "series", slices=6)
    check_inputs(list_images(folder), modality="ct")
    assert "mm apart" not in caplog.text
    (folder / "1_3.dcm").unlink()
    check_inputs(list_images(folder), modality="ct")
    assert "3 to 6 mm apart" in caplog.text


def test_a_multi_frame_file_is_a_volume(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7))
    file = multi_frame(tmp_path / "study" / "series" / "ct.dcm", values)
    for path in (tmp_path, file):
        (item,) = check_inputs(list_images(path), modality="ct", strict=True)
        image = LoadImage(image_only=True)(item["image"])
        assert np.array_equal(image.numpy().transpose(2, 1, 0), values)
        assert np.allclose(np.diag(image.affine), [-2, -2, 3, 1])


def test_a_folder_of_several_series_is_refused_unless_one_is_chosen(tmp_path: Path) -> None:
    folder = dicom(tmp_path / "P1", "1.2.200", slices=2, number=1)
    dicom(folder, "1.2.300", slices=4, number=2)
    with pytest.raises(ValueError, match=r"P1' holds 2 DICOM series: 1.2.200 .*2 files.*1.2.300 .*4 files.*--series"):
        list_images(tmp_path)
    for series in ("largest", "1.2.300", "2", "part 2"):
        items = list_images(tmp_path, series=series)
        assert [Path(item["image"]).name for item in items] == ["P1"]
        assert LoadImage(image_only=True)(items[0]["image"]).shape == (9, 8, 4)
    with pytest.raises(ValueError, match="found 0 for '9'"):
        list_images(tmp_path, series="9")


def test_folders_of_patients_bids_and_channels_in_files(tmp_path: Path) -> None:
    names = ["bids/sub-01/anat/sub-01_T1w.nii.gz", "bids/sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz"]
    names += ["bids/derivatives/sub-01/sub-01_T1w.nii.gz", "bids/sub-01/anat/sub-01_T1w_mask.nii.gz"]
    names += ["cases/case_1/imaging.nii.gz", "cases/case_2/imaging.nii.gz", "cases/case_2/segmentation.nii.gz"]
    names += ["raw/imagesTs/a_0000.nii.gz", "raw/imagesTs/a_0001.nii.gz", "raw/imagesTs/._a_0000.nii.gz"]
    for name in names:
        write_volume(tmp_path / name, ct_volume())
    assert [item["patient"] for item in list_images(tmp_path / "bids")] == ["sub-01", "sub-01"]
    assert [item["patient"] for item in list_images(tmp_path / "cases")] == ["case_1", "case_2"]
    (item,) = list_images(tmp_path / "raw", channels=["T1", "T2"])
    assert item["patient"] == "a"
    assert [Path(image).name for image in item["image"]] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    named = list_images(tmp_path / "cases", patient_pattern=r"case_(\d)")
    assert [item["patient"] for item in named] == ["1", "2"]


def test_what_makes_an_answer_meaningless_is_an_error_and_the_rest_a_warning(tmp_path: Path, caplog) -> None:
    volumes = {
        "good": ct_volume(),
        "nan": np.where(np.arange(960).reshape(12, 10, 8) == 7, np.nan, ct_volume()).astype(np.float32),
        "rescaled": (ct_volume() + 1000) / 2500,
        "flat": np.zeros((12, 10, 8), np.int16),
        "empty": np.full((12, 10, 8), np.nan, np.float32),
        "four": np.stack([ct_volume()] * 4, -1),
    }
    files = {name: write_volume(tmp_path / f"{name}.nii.gz", volume) for name, volume in volumes.items()}

    def check(*names: str, **options) -> list[dict]:
        return check_inputs([{"image": str(files[name])} for name in names], modality="ct", **options)

    assert len(check("good", "nan", "rescaled")) == 3
    assert "nan.nii.gz: 1 voxel" in caplog.text and "rescaled.nii.gz" in caplog.text and "good" not in caplog.text
    for name in ("flat", "empty", "four"):
        assert [item["image"] for item in check("good", name)] == [str(files["good"])]
        assert f"fatal: {files[name]}" in caplog.text
        with pytest.raises(DataListError, match=f"{name}.nii.gz"):
            check(name)
    for name in ("nan", "rescaled"):
        with pytest.raises(DataListError, match=f"{name}.nii.gz"):
            check(name, strict=True)
    with pytest.raises(DataListError, match="does not exist"):
        check_inputs([{"image": str(tmp_path / "none.nii.gz")}])


def test_channels_of_one_image_are_in_order_and_on_one_grid(tmp_path: Path) -> None:
    names = ("flair", "t1ce", "t1", "t2")
    files = [str(write_volume(tmp_path / f"P_{name}.nii.gz", mr_volume(k))) for k, name in enumerate(names)]
    options = {"modality": "mr", "in_channels": 4, "channels": ["FLAIR", "T1ce", "T1", "T2"]}
    assert check_inputs([{"image": files}], **options)
    with pytest.raises(DataListError, match="its name says t1, expected T1ce"):
        check_inputs([{"image": [files[0], files[2], files[1], files[3]]}], **options)
    with pytest.raises(DataListError, match="3 image files, expected 4"):
        check_inputs([{"image": files[:3]}], **options)
    write_volume(Path(files[3]), mr_volume(), turned(AFFINE, 90))
    with pytest.raises(DataListError, match="orientation"):
        check_inputs([{"image": files}], **options)


def test_no_output_replaces_another(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a.mha", "x/b.nii.gz", "y/b.nii.gz", "c.v1.nii.gz", "c.v2.nii.gz"):
        image = itk.image_from_array(np.ascontiguousarray(ct_volume().T))
        (tmp_path / name).parent.mkdir(exist_ok=True)
        itk.imwrite(image, str(tmp_path / name))
    for uid in ("1.2.100", "1.2.101"):
        dicom(tmp_path / uid, uid)
    names = OutputNames()
    items = names.remember(list_images(tmp_path))
    assert len(items) == 8
    save = SaveImaged("image", output_dir=tmp_path / "out", output_postfix="seg", separate_folder=False,
                      output_name_formatter=names, print_log=False)  # fmt: skip
    for item in items:
        save({"image": LoadImage(ensure_channel_first=True)(item["image"])})
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(written) == 8 and {"1.2.100_seg.nii.gz", "1.2.101_seg.nii.gz", "c.v1_seg.nii.gz"} <= set(written)
    assert {"a_mha_seg.nii.gz", "a_nii_gz_seg.nii.gz", "x_b_seg.nii.gz", "y_b_seg.nii.gz"} <= set(written)
    # a file that nobody announced, as from MONAI Label, keeps its own name
    assert OutputNames()({"filename_or_obj": "/tmp/image.nii.gz"}, save)["subject"] == "image.nii.gz"
