"""Intensities by modality, against numpy."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Flip

from swinfuse_components.transforms import ModalityIntensityd


def test_ct_window_is_linear_and_clipped():
    image = torch.tensor([-3000.0, -1000.0, 0.0, 500.0, 1000.0, 4000.0]).reshape(1, 1, 2, 3)
    scaled = ModalityIntensityd("image", "ct")({"image": image})["image"]
    torch.testing.assert_close(scaled.flatten(), torch.tensor([0.0, 0.0, 0.5, 0.75, 1.0, 1.0]))


def test_mr_percentiles_channel_by_channel():
    values = np.random.default_rng(0).gamma(2.0, 50.0, (2, 9, 10, 11)) * np.array([1.0, 30.0]).reshape(2, 1, 1, 1)
    scaled = ModalityIntensityd("image", mr_percentiles=(1, 98))({"image": torch.tensor(values), "modality": "mr"})[
        "image"
    ]
    low, high = (np.percentile(values.reshape(2, -1), q, axis=1).reshape(2, 1, 1, 1) for q in (1, 98))
    np.testing.assert_allclose(scaled.numpy(), np.clip((values - low) / (high - low), 0, 1), atol=1e-5)


def test_mr_nonzero_ignores_the_background():
    foreground = np.random.default_rng(1).uniform(100, 200, 125)
    volume = torch.zeros(1, 10, 10, 10)
    volume[:, :5, :5, :5] = torch.tensor(foreground, dtype=torch.float32).reshape(5, 5, 5)
    scaled = ModalityIntensityd("image", "mr", mr_percentiles=(10, 90), mr_nonzero=True)({"image": volume})["image"]
    low, high = np.percentile(foreground, [10, 90])
    np.testing.assert_allclose(
        scaled[0, :5, :5, :5].flatten(), np.clip((foreground - low) / (high - low), 0, 1), atol=1e-5
    )
    assert scaled[0, 5:].max() == 0


@pytest.mark.parametrize("fill", [0.0, 7.0])
@pytest.mark.parametrize("nonzero", [True, False])
def test_a_constant_mr_volume_becomes_zero(fill, nonzero):
    scaled = ModalityIntensityd("image", "mr", mr_nonzero=nonzero)({"image": torch.full((1, 4, 4, 4), fill)})["image"]
    assert torch.equal(scaled, torch.zeros(1, 4, 4, 4))


def test_modality_of_each_key_of_a_pair_and_of_the_item():
    image = torch.linspace(-1000, 1000, 64).reshape(1, 4, 4, 4)
    pair = ModalityIntensityd(["ct", "mr"], ["ct", "mr"])({"ct": image, "mr": image})
    for modality in ("ct", "mr"):
        single = ModalityIntensityd("image")({"image": image, "modality": modality})["image"]
        assert torch.equal(single, pair[modality])
    assert not torch.equal(pair["ct"], pair["mr"])
    listed = ModalityIntensityd(["ct", "mr"])({"ct": image, "mr": image, "modality": ["ct", "mr"]})
    assert all(torch.equal(listed[modality], pair[modality]) for modality in ("ct", "mr"))
    assert image.min() == -1000  # the input is left alone


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_affine_and_record_of_transforms_are_kept(modality):
    image = Flip(0)(MetaTensor(torch.rand(1, 4, 5, 6) * 100, affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0]))))
    scaled = ModalityIntensityd("image", modality)({"image": image})["image"]
    assert isinstance(scaled, MetaTensor) and scaled.dtype == torch.float32
    assert torch.equal(scaled.affine, image.affine)
    assert len(scaled.applied_operations) == len(image.applied_operations) == 1


def test_unusable_settings_and_items_are_named():
    with pytest.raises(ValueError, match="ct_window"):
        ModalityIntensityd("image", ct_window=(300, -100))
    with pytest.raises(ValueError, match="percentiles"):
        ModalityIntensityd("image", mr_percentiles=(0, 101))
    with pytest.raises(ValueError, match="'xray'"):
        ModalityIntensityd("image", "xray")
    with pytest.raises(KeyError, match="modality"):
        ModalityIntensityd("image")({"image": torch.rand(1, 2, 2, 2)})
    with pytest.raises(ValueError, match="'xray'"):
        ModalityIntensityd("image")({"image": torch.rand(1, 2, 2, 2), "modality": "xray"})
