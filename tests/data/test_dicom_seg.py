"""Label maps as DICOM SEG on their series, read back with highdicom and pydicom."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import AsDiscreted, Compose, Invertd, LoadImaged, Orientationd, Spacingd

from swinfuse_components.data import OutputNames, SaveDicomSegmentationd, check_inputs, dicom_seg, read_msd_task
from swinfuse_components.data.dicom_seg import default_code

from .conftest import ct_volume, write_volume

hd = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

LABELS = {"0": "background", "1": "left kidney", "4": "tumour"}
OBLIQUE = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]  # rows along +x+y, columns downwards


def write_series(folder: Path, orientation=(1, 0, 0, 0, 1, 0), slices: int = 6, **changes: object) -> Path:
    """A CT series with the least that DICOM asks for, its files named in no order."""
    folder.mkdir(parents=True)
    normal = np.cross(orientation[:3], orientation[3:])
    uid = pydicom.uid.generate_uid
    shared = {name: uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    for k in range(slices):
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        pixels = np.random.default_rng(k).integers(0, 900, (7, 9)).astype(np.int16)
        position = np.array([-40.0, 25, 11]) + 3 * k * normal
        values = shared | {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "SOPInstanceUID": uid(), "Modality": "CT"}
        values |= {"ImageOrientationPatient": list(map(float, orientation)), "ImagePositionPatient": position.tolist()}
        values |= {"InstanceNumber": k + 1, "Rows": 7, "Columns": 9, "PixelSpacing": [2.0, 1.5], "SliceThickness": 3}
        values |= {"RescaleSlope": 1, "RescaleIntercept": -1000, "PixelData": pixels.tobytes(), "SamplesPerPixel": 1}
        values |= {"PhotometricInterpretation": "MONOCHROME2", "PixelRepresentation": 1, "BitsAllocated": 16}
        values |= {"BitsStored": 16, "HighBit": 15, **changes}
        for name, value in values.items():
            if value is not None:
                setattr(header, name, value)
        header.save_as(folder / f"{(3 - k) % slices}.dcm", enforce_file_format=True)
    return folder


def segment(series: Path, output: Path, first: float, second: float, **options: object) -> Path:
    """Threshold a series on another grid, invert, save; the file that is written."""
    names = OutputNames()
    (item,) = names.remember([{"image": str(series)}])
    steps = [LoadImaged("image", image_only=True, ensure_channel_first=True), Orientationd("image", "RAS", labels=None)]
    steps += [Spacingd("image", options.pop("spacing"))] if "spacing" in options else []
    before = Compose(steps)
    item = before(item)
    image = item["image"][0]
    classes = [image < first, (image >= first) & (image < second), image < -1e9, image < -1e9, image >= second]
    item["pred"] = MetaTensor(torch.stack(classes).float(), affine=item["image"].affine)
    after = Compose(
        [
            Invertd("pred", transform=before, orig_keys="image", nearest_interp=False, to_tensor=True),
            AsDiscreted("pred", argmax=True),
            SaveDicomSegmentationd("pred", names, str(output), LABELS, task="Task99", **options),
        ]
    )
    segment.label_map = after(item)["pred"][0].numpy()
    (file,) = output.iterdir()
    return file


def expected(series: Path, first: float, second: float) -> dict[str, np.ndarray]:
    """Segment numbers of each slice by its UID, from its own pixels."""
    slices = [pydicom.dcmread(file) for file in series.iterdir()]
    values = {s.SOPInstanceUID: s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices}
    return {uid: np.where(v >= second, 2, np.where(v >= first, 1, 0)) for uid, v in values.items()}


def read(file: Path, uids: list[str]) -> np.ndarray:
    return hd.seg.segread(file).get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, -1, 0), (0, 1, 0, 0, 0, -1), OBLIQUE], ids=str
)
def test_each_slice_has_the_voxels_that_were_computed_on_it(tmp_path: Path, orientation) -> None:
    series = write_series(tmp_path / "P1.100", orientation)
    file = segment(series, tmp_path / "out", -600, -300)
    assert file.name == "P1.100_seg.dcm"
    wanted = expected(series, -600, -300)
    assert np.array_equal(read(file, list(wanted)), np.stack(list(wanted.values())))
    source, result = pydicom.dcmread(series / "0.dcm"), pydicom.dcmread(file)
    for name in ("FrameOfReferenceUID", "StudyInstanceUID"):
        assert result[name] == source[name]
    assert result.Modality == "SEG" and result.SeriesInstanceUID != source.SeriesInstanceUID
    assert [segment.SegmentLabel for segment in result.SegmentSequence] == ["left kidney", "tumour"]


@pytest.mark.parametrize(("name", "limits"), [("CT", (0, 200)), ("MR_T1", (100, 300))])
def test_real_series_are_read_back_the_same(swinfuse_data: Path, tmp_path: Path, name: str, limits) -> None:
    series = swinfuse_data / "DICOM_like" / "STS_001" / name / "image"
    file = segment(series, tmp_path, *limits, spacing=[2.0, 2.0, 2.0])
    slices = sorted(
        (pydicom.dcmread(f, stop_before_pixels=True) for f in series.iterdir()),
        key=lambda s: float(s.ImagePositionPatient[2]),
    )
    voxels = read(file, [s.SOPInstanceUID for s in slices])
    label_map = segment.label_map  # (left to right, front to back, upwards), as ITK reads it
    assert np.array_equal(voxels, np.select([label_map == 1, label_map == 4], [1, 2]).transpose(2, 1, 0))
    assert (voxels == 1).sum() > 1000 and (voxels == 2).sum() > 1000
    assert pydicom.dcmread(file).FrameOfReferenceUID == slices[0].FrameOfReferenceUID


def test_an_empty_label_map_is_written_too(tmp_path: Path) -> None:
    series = write_series(tmp_path / "P1")
    file = segment(series, tmp_path / "out", 9000, 9001)
    assert not read(file, list(expected(series, 0, 1))).any()


def test_codes_come_from_the_data_set_or_by_the_name(tmp_path: Path, msd_folder) -> None:
    liver = ["10200004", "SCT", "Liver"]
    assert read_msd_task(msd_folder(codes={"liver": liver})).codes == {"liver": liver}
    for wrong, message in (({"spleen": liver}, "spleen"), ({"liver": "10200004"}, "expected .value, scheme")):
        with pytest.raises(ValueError, match=message):
            read_msd_task(msd_folder(codes=wrong))
    codes = {"4": {"category": ["49755003", "SCT", "Abnormal"], "type": ["86049000", "SCT", "Primary"]}}
    file = segment(write_series(tmp_path / "P1"), tmp_path / "out", -600, -300, codes=codes)
    kidney, tumour = pydicom.dcmread(file).SegmentSequence
    assert kidney.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Kidney"
    side = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert side.CodeMeaning == "Left"
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodeValue == "86049000"
    names = ["peritumoral oedema", "RightParotid", "Lungs", "no such thing"]
    assert [default_code(name)[1][2] for name in names] == ["Edema", "Parotid gland", "Lung", "Tissue"]


def test_what_cannot_be_written_is_said_before_the_first_window(tmp_path: Path, monkeypatch) -> None:
    volume = write_volume(tmp_path / "a.nii.gz", ct_volume())
    with pytest.raises(ValueError, match=r"a.nii.gz' is no DICOM series"):
        check_inputs([{"image": str(volume)}], output_format="dicom_seg")
    with pytest.raises(ValueError, match="expected 'volume' or 'dicom_seg'"):
        check_inputs([{"image": str(volume)}], output_format="dicom")
    for name, changes in (("FrameOfReferenceUID", {"FrameOfReferenceUID": None}), ("position", {})):
        series = write_series(tmp_path / name, **changes)
        if not changes:
            second = pydicom.dcmread(series / "0.dcm")
            second.SOPInstanceUID += ".1"
            second.save_as(series / "again.dcm")
        with pytest.raises(ValueError, match=name):
            check_inputs([{"image": str(series)}], output_format="dicom_seg")
    good = [{"image": str(write_series(tmp_path / "good"))}]
    check_inputs(good, output_format="dicom_seg")
    monkeypatch.setattr(dicom_seg, "optional_import", lambda *_, **__: (None, False))
    with pytest.raises(ModuleNotFoundError, match=r"swinfuse-components\[dicom\]"):
        check_inputs(good, output_format="dicom_seg")
