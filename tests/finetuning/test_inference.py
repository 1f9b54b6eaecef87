from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.inferers import SimpleInferer

from swinfuse_components.finetuning import (
    FlipAveragingInferer,
    HausdorffDistanceInMillimetres,
    dice_of_regions,
    list_images,
    list_sequences,
)


def test_flips_are_undone_before_they_are_averaged() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 4, 5, 6)
    # a network that knows where it looks: it adds a ramp along each axis
    ramp = torch.arange(4.0).view(-1, 1, 1) + 10 * torch.arange(5.0).view(-1, 1) + 100 * torch.arange(6.0)
    averaged = FlipAveragingInferer(SimpleInferer(), axes=[0, 2])(image, lambda x: x + ramp)
    mean = 1.5 + 10 * torch.arange(5.0).view(-1, 1) + 250  # ramps along the mirrored axes average out
    torch.testing.assert_close(averaged, image + mean, rtol=1e-5, atol=1e-4)


def test_without_axes_the_inferer_answers_alone() -> None:
    image = torch.rand(1, 1, 3, 3, 3)
    calls = []
    result = FlipAveragingInferer(SimpleInferer())(image, lambda x: calls.append(1) or x * 2)
    assert torch.equal(result, image * 2) and len(calls) == 1


def dicom(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0" * 128 + b"DICM")


def test_images_are_found_as_users_have_them(tmp_path: Path) -> None:
    (tmp_path / "b.nii.gz").write_bytes(b"x")
    (tmp_path / "a.NRRD").write_bytes(b"x")
    (tmp_path / ".hidden.nii.gz").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    dicom(tmp_path / "series" / "IM0001")
    found = [Path(item["image"]).name for item in list_images(tmp_path)]
    assert found == ["a.NRRD", "b.nii.gz", "series"]
    assert list_images(tmp_path / "b.nii.gz") == [{"image": str(tmp_path / "b.nii.gz")}]
    assert list_images(tmp_path / "series") == [{"image": str(tmp_path / "series")}]


def test_a_decathlon_task_means_its_test_images(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}", encoding="utf-8")
    (tmp_path / "imagesTs").mkdir()
    (tmp_path / "imagesTs" / "t.nii.gz").write_bytes(b"x")
    assert [Path(item["image"]).name for item in list_images(tmp_path)] == ["t.nii.gz"]


def test_nothing_to_segment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no image"):
        list_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such image"):
        list_images(tmp_path / "nowhere")


def test_distances_are_in_millimetres() -> None:
    affine = torch.diag(torch.tensor([2.0, 1.0, 5.0, 1.0]))
    truth, shifted = torch.zeros(1, 12, 12, 12), torch.zeros(1, 12, 12, 12)
    truth[:, 3:6, 3:6, 3:6] = 1
    shifted[:, 3:6, 3:6, 5:8] = 1  # two voxels of 5 mm
    metric = HausdorffDistanceInMillimetres(include_background=True, percentile=100)
    metric([shifted], [MetaTensor(truth, affine=affine)])
    assert metric.aggregate().item() == pytest.approx(10.0)
    with pytest.raises(TypeError, match="affine"):
        metric([shifted], [truth])


def test_sequences_of_a_patient_are_found_in_their_order_and_form(tmp_path: Path) -> None:
    for patient in ("P1", "P2"):
        folder = tmp_path / "new" / patient
        dicom(folder / f"{patient}_t1" / "IM0001")
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
    assert list_sequences(tmp_path / "four.nii.gz", names) == [{"image": str(tmp_path / "four.nii.gz")}]


def test_each_region_has_its_dice_under_its_name() -> None:
    first, second = torch.zeros(2, 4, 4, 4), torch.zeros(2, 4, 4, 4)
    first[0, :2], second[0, :2] = 1, 1  # equal
    first[1, :2], second[1, 1:3] = 1, 1  # half of it
    engine = Engine(lambda *_: [{"pred": first, "label": second}])
    for name, metric in dice_of_regions(["liver", "GTV (primary)"]).items():
        metric.attach(engine, name)
    assert engine.run([0]).metrics == pytest.approx({"val_dice_liver": 1.0, "val_dice_GTV _primary_": 0.5})
