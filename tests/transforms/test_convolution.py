"""Random convolution against a convolution written out, and the repeated samples."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandCropByPosNegLabeld, RandFlipd
from scipy import ndimage

from swinfuse_components.transforms import RandConvolution, RandConvolutiond, RepeatSamples


def test_one_layer_equals_scipy_and_the_blend():
    image = torch.rand(1, 7, 8, 9, dtype=torch.float64)
    transform = RandConvolution(prob=1.0, layers=1, kernel_sizes=(3,), output="norm").set_random_state(4)
    result = transform(image)
    kernel, bias = transform.weights[0]
    convolved = ndimage.correlate(image[0].numpy(), kernel[0, 0], mode="constant") + bias[0]
    length = np.linalg.norm(image)
    convolved *= length / np.linalg.norm(convolved)
    blended = transform.blend * convolved + (1 - transform.blend) * image[0].numpy()
    np.testing.assert_allclose(result[0], blended * length / np.linalg.norm(blended), atol=1e-5)


def test_range_is_kept_contrast_is_not_and_draws_differ():
    image = torch.rand(2, 8, 8, 8)
    transform = RandConvolution(prob=1.0).set_random_state(0)
    first, second = transform(image), transform(image)
    for result in (first, second):
        for channel in range(2):
            assert torch.isclose(result[channel].min(), image[channel].min(), atol=1e-5)
            assert torch.isclose(result[channel].max(), image[channel].max(), atol=1e-5)
    assert (first - second).abs().mean() > 0.01 and (first - image).abs().mean() > 0.01


@pytest.mark.parametrize("output", ["range", "norm"])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_images_stay_finite(output, value):
    for seed in range(5):
        result = RandConvolution(prob=1.0, output=output).set_random_state(seed)(torch.full((1, 4, 4, 4), value))
        assert torch.isfinite(result).all()


def test_dictionary_form_shares_a_draw_keeps_metadata_and_obeys_its_seed_and_chance():
    image = MetaTensor(torch.rand(1, 6, 6, 6), affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
    item = {"a": image, "b": image.clone()}
    result = RandConvolutiond(["a", "b"], prob=1.0).set_random_state(5)(item)
    assert torch.equal(result["a"], result["b"]) and not torch.equal(result["a"], image)
    assert torch.equal(result["a"].affine, image.affine)
    again = RandConvolutiond(["a", "b"], prob=1.0).set_random_state(5)(item)
    assert torch.equal(again["a"], result["a"])
    assert RandConvolutiond("a", prob=0.0)(item)["a"] is image
    transform = RandConvolutiond("a", prob=0.5).set_random_state(1)
    acted = sum(transform({"a": image})["a"] is not image for _ in range(200))
    assert 70 < acted < 130


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match="kernel_sizes"):
        RandConvolution(kernel_sizes=(2,))
    with pytest.raises(ValueError, match="output"):
        RandConvolution(output="clip")
    with pytest.raises(ValueError, match="expected"):
        RandConvolution(prob=1.0)(torch.rand(4, 4))


def test_repeated_samples_are_flat_independent_and_seeded():
    crop = RandCropByPosNegLabeld(["image", "label"], "label", (4, 4, 4), num_samples=3)
    chain = Compose([RepeatSamples(crop, repeats=2), RandFlipd(["image", "label"], prob=0.5, spatial_axis=0)])
    image = torch.arange(512.0).reshape(1, 8, 8, 8)
    item = {"image": image, "label": (image > 100).float()}

    def run(seed):
        return chain.set_random_state(seed)(item)

    samples = [sample for seed in range(10) for sample in run(seed)]
    assert len(run(0)) == 6 and all(isinstance(sample, dict) for sample in samples)
    flipped = 0
    for first, second in zip(samples[::2], samples[1::2]):
        same = torch.equal(first["image"], second["image"])
        # copies of one crop, up to the flip drawn for each
        assert same or torch.equal(first["image"], second["image"].flip(1))
        flipped += not same
    assert 5 < flipped < 25
    for first, second in zip(run(7), run(7)):
        assert torch.equal(first["image"], second["image"])
    with pytest.raises(ValueError, match="repeats"):
        RepeatSamples(crop, repeats=0)
