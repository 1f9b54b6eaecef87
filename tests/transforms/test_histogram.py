import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from swinfuse_components.transforms import MatchHistogram, MatchHistogramd, body_quantiles, mean_quantiles


def test_quantiles_of_the_body_are_numpys():
    image = torch.rand(2, 9, 8, 7, dtype=torch.float64)
    inside = image[1].numpy()[image[1].numpy() > 0.3]
    assert np.allclose(body_quantiles(image, 0.3)[1], np.percentile(inside, range(101)))
    other = torch.rand(2, 5, 5, 5, dtype=torch.float64)
    mean = (body_quantiles(image) + body_quantiles(other)) / 2
    assert np.allclose(mean_quantiles([image, other]), mean, atol=1e-5)


def test_a_matched_image_has_the_histogram_and_keeps_the_order():
    generator = np.random.default_rng(0)
    image = torch.from_numpy(0.06 + generator.gamma(2.0, 0.1, (1, 20, 20, 20)))
    reference = torch.from_numpy(generator.uniform(0.1, 0.9, (1, 20, 20, 20)))
    matched = MatchHistogram(body_quantiles(reference).tolist())(image)
    assert np.abs(np.sort(matched.flatten()) - np.sort(reference.flatten())).max() < 0.02
    order = image.flatten().argsort()
    assert (matched.flatten()[order].diff() >= 0).all()


def test_an_image_of_that_histogram_stays_and_so_does_air():
    image = torch.rand(1, 12, 12, 12, dtype=torch.float64)
    image[:, :4] = 0.01
    matched = MatchHistogram(body_quantiles(image).tolist())(image)
    assert torch.allclose(matched, image, atol=0.02) and (matched[:, :4] == 0.01).all()


def test_many_equal_voxels_and_the_dictionary_form():
    image = MetaTensor(torch.full((1, 4, 4, 4), 0.5), affine=2 * torch.eye(4))
    image[:, 0] = 1.0
    item = MatchHistogramd("image", [np.linspace(0.2, 0.8, 101).tolist()])({"image": image})["image"]
    assert torch.isfinite(item).all() and item.min() >= 0.2 and item[:, 0].min() > item[:, 1].max()
    assert torch.equal(item.affine, image.affine)


@pytest.mark.parametrize("quantiles", [[[0.5, 0.1]], [0.1, 0.2], [[0.1]]])
def test_wrong_quantiles_are_refused(quantiles):
    with pytest.raises(ValueError, match="quantiles of shape"):
        MatchHistogram(quantiles)


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"2 channel\(s\), histogram of 1"):
        MatchHistogram([[0.0, 1.0]])(torch.rand(2, 3, 3, 3))
