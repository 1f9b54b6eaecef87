import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from swinfuse_components.transforms import MatchHistogramd, body_quantiles, measure_for_test_time


def match(image, quantiles):
    return MatchHistogramd("image", quantiles)({"image": image})["image"]


def test_quantiles_of_the_body_are_numpys():
    image = torch.rand(2, 9, 8, 7, dtype=torch.float64)
    inside = image[1].numpy()[image[1].numpy() > 0.3]
    assert np.allclose(body_quantiles(image, 0.3)[1], np.percentile(inside, range(101)))
    other = torch.rand(2, 5, 5, 5, dtype=torch.float64)
    items = [{"image": each, "label": torch.zeros(1, *each.shape[1:])} for each in (image, other)]
    mean = (body_quantiles(image) + body_quantiles(other)) / 2
    assert np.allclose(measure_for_test_time(items)["histogram"], mean, atol=1e-4)


@pytest.mark.parametrize(("share", "kept"), [(0.05, True), (0.3, False)])
def test_no_histogram_where_the_window_clips_much_of_the_body(share: float, kept: bool) -> None:
    image = torch.linspace(0.1, 0.9, 1000)
    image[torch.randperm(1000)[: int(share * 1000)]] = 1.0
    item = {"image": image.view(1, 10, 10, 10), "label": torch.zeros(1, 10, 10, 10)}
    assert (measure_for_test_time([item])["histogram"] is not None) is kept


def test_structures_that_are_one_component_in_every_case_are_told():
    image, first, second = torch.rand(1, 10, 10, 10), torch.zeros(1, 10, 10, 10), torch.zeros(1, 10, 10, 10)
    first[:, 1:4, 1:4, 1:4] = 1
    first[:, 4, 4, 4] = 1  # touches by its corner
    first[:, 6:9, 6:9, 6:9] = 2
    second[:, 1:4] = 1
    second[:, 6, 2:4], second[:, 9, 2:4] = 2, 2  # two pieces
    second[:, 5, 5, 5] = 3
    items = [{"image": image, "label": label} for label in (first, second)]
    assert measure_for_test_time(items)["largest_component"] == [1, 3]
    assert measure_for_test_time(items, max_cases=1)["largest_component"] == [1, 2]


def test_a_matched_image_has_the_histogram_and_keeps_the_order():
    generator = np.random.default_rng(0)
    image = torch.from_numpy(0.06 + generator.gamma(2.0, 0.1, (1, 20, 20, 20)))
    reference = torch.from_numpy(generator.uniform(0.1, 0.9, (1, 20, 20, 20)))
    matched = match(image, body_quantiles(reference).tolist())
    assert np.abs(np.sort(matched.flatten()) - np.sort(reference.flatten())).max() < 0.02
    order = image.flatten().argsort()
    assert (matched.flatten()[order].diff() >= 0).all()


def test_an_image_of_that_histogram_stays_and_so_does_air():
    image = torch.rand(1, 12, 12, 12, dtype=torch.float64)
    image[:, :4] = 0.01
    matched = match(image, body_quantiles(image).tolist())
    assert torch.allclose(matched, image, atol=0.02) and (matched[:, :4] == 0.01).all()


def test_many_equal_voxels_and_the_metadata():
    image = MetaTensor(torch.full((1, 4, 4, 4), 0.5), affine=2 * torch.eye(4))
    image[:, 0] = 1.0
    item = match(image, [np.linspace(0.2, 0.8, 101).tolist()])
    assert torch.isfinite(item).all() and item.min() >= 0.2 and item[:, 0].min() > item[:, 1].max()
    assert torch.equal(item.affine, image.affine)


@pytest.mark.parametrize("quantiles", [[[0.5, 0.1]], [0.1, 0.2], [[0.1]], None])
def test_wrong_quantiles_are_refused(quantiles):
    with pytest.raises(ValueError, match="quantiles of shape|no quantiles"):
        MatchHistogramd("image", quantiles)


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"2 channel\(s\), histogram of 1"):
        match(torch.rand(2, 3, 3, 3), [[0.0, 1.0]])
