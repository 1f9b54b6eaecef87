"""Baselines against what they must be on volumes where the answer is known."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from swinfuse_components.evaluation.baselines import EverythingForeground, MeanTrainingMask, OtsuThreshold
from swinfuse_components.evaluation.scores import score_masks
from swinfuse_components.evaluation.targets import Case
from swinfuse_components.transforms import blank, inverted, silhouette


def case(size: int) -> Case:
    return Case("x", torch.zeros(1, size, size, size), np.zeros((size,) * 3), (1.0, 1.0, 1.0), "mr")


def test_everything_foreground_has_the_dice_of_its_share() -> None:
    truth = np.zeros((10, 10, 10))
    truth[:, :, :2] = 1
    mask = EverythingForeground().predict(case(10))
    assert score_masks(mask, truth, (1, 1, 1)).dice == pytest.approx(2 * 0.2 / 1.2)


def test_otsu_parts_two_tissues_and_a_constant_has_none() -> None:
    image = np.full((8, 8, 8), 10.0)
    image[2:5] = 200.0
    image += np.random.default_rng(0).normal(0, 5, image.shape)
    two = case(8)._replace(image=torch.as_tensor(image)[None])
    assert np.array_equal(OtsuThreshold().predict(two), image > 100)
    assert not OtsuThreshold().predict(case(4)).any()


def test_mean_mask_finds_the_common_place_at_any_size(tmp_path: Path) -> None:
    items = []
    for n in range(5):
        label = np.zeros((20, 20, 20), np.uint8)
        label[4:12, 4:12, 4:12] = 2
        label[0, n, 0] = 1  # a stray voxel of one case must not enter the mean
        nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / f"{n}.nii.gz")
        items.append({"label": str(tmp_path / f"{n}.nii.gz"), "patient": f"p{n}"})
    baseline = MeanTrainingMask(items)
    truth = np.zeros((40, 40, 40))
    truth[8:24, 8:24, 8:24] = 1
    assert score_masks(baseline.predict(case(40)), truth, (1, 1, 1)).dice > 0.93
    assert baseline.training_patients == {"p0", "p1", "p2", "p3", "p4"}
    with pytest.raises(ValueError, match="empty"):
        MeanTrainingMask([])


def test_views_of_an_image() -> None:
    image = torch.rand(1, 6, 6, 6)
    assert not blank(image).any()
    assert torch.allclose(inverted(inverted(image)), image, atol=1e-6)
    scaled = (image - image.min()) / (image.max() - image.min())
    assert torch.allclose(inverted(scaled), 1 - scaled, atol=1e-6)


def test_silhouette_fills_the_body_whatever_is_inside() -> None:
    body = torch.zeros(1, 24, 24, 24)
    body[:, 4:20, 4:20] = torch.linspace(0.25, 1, 24)  # tissues of many shades
    expected = body > 0
    body[:, 8:12, 8:12] = 0.0  # a dark organ open at both ends of the volume
    noisy = body + 0.05 * torch.rand(body.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(silhouette(noisy) > 0, expected)
    assert not silhouette(torch.ones(1, 4, 4, 4)).any()


def test_silhouette_agrees_with_body_masks_of_real_patients(swinfuse_data: Path) -> None:
    folder = swinfuse_data / "SynthRAD_like" / "Task1" / "thigh"
    patient = sorted(p for p in folder.iterdir() if p.is_dir())[0]
    mask = nib.load(patient / "mask.nii.gz").get_fdata() > 0
    for modality in ("ct", "mr"):
        image = torch.as_tensor(nib.load(patient / f"{modality}.nii.gz").get_fdata())[None]
        assert score_masks(silhouette(image)[0].numpy(), mask, (1.5, 1.5, 3.27)).dice > 0.85, modality
