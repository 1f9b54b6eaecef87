"""Random contrasts: formulas against plain loops in float64, seeds, regions, and types."""

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy import ndimage

from swinfuse_components.transforms import (
    MindSSC,
    MindSSCd,
    RandContrast,
    RandContrastd,
    RandConvolution,
    RandCurve,
    RandLabelCurves,
    RandOneContrast,
    RandRegionContrast,
    RandSpatialBlend,
    scale_to_unit,
)
from swinfuse_components.transforms.regional_contrast import bezier_curve, intensity_clusters

SHAPE = (5, 6, 4)


def _image(seed: int = 0, shape=SHAPE, dtype=torch.float64) -> torch.Tensor:
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _label(shape=SHAPE) -> torch.Tensor:
    label = torch.zeros(1, *shape)
    label[0, :2] = 1
    label[0, 3:, 2:4] = 2
    return label


ALL = [
    RandConvolution(),
    RandCurve(),
    RandLabelCurves(),
    RandRegionContrast(),
    RandSpatialBlend(RandConvolution(), control_points=3),
    RandOneContrast([RandCurve(), [RandRegionContrast(), RandConvolution()]], weights=[1, 2]),
]


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_a_seed_gives_the_same_image_and_another_seed_another(transform) -> None:
    image = MetaTensor(_image(dtype=torch.float32), affine=np.diag([2.0, 2, 3, 1]))
    first, again, other = (transform.set_random_state(s)(image, _label()) for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.allclose(first, other)
    assert isinstance(first, MetaTensor) and torch.equal(first.affine, image.affine) and first.dtype == image.dtype
    assert torch.isfinite(first).all() and first.shape == image.shape
    assert torch.equal(image, _image(dtype=torch.float32)), "the input is left alone"


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_constant_images_stay_finite(transform) -> None:
    assert torch.isfinite(transform.set_random_state(0)(torch.zeros(1, *SHAPE), _label())).all()


def test_dictionary_form_draws_as_the_array_form_and_keeps_the_label() -> None:
    item = {"image": _image(), "label": _label()}
    done = RandContrastd("image", RandLabelCurves()).set_random_state(5)(item)
    assert torch.equal(done["label"], item["label"]) and not torch.equal(done["image"], item["image"])
    unlabelled = RandContrastd("image", RandLabelCurves()).set_random_state(5)({"image": _image()})
    assert unlabelled["image"].shape == item["image"].shape
    chain = Compose([RandContrastd("image", RandConvolution())]).set_random_state(1)
    assert torch.equal(chain(item)["image"], chain.set_random_state(1)(item)["image"])


@pytest.mark.parametrize("rescale", [False, True])
def test_convolution_is_the_published_network_blend_and_norm(rescale: bool) -> None:
    image = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    transform = RandConvolution(unit=False, rescale=rescale).set_random_state(2)
    found = transform(image)[0].numpy()
    transform.set_random_state(2)
    transform.randomize(None)
    alpha, layers = transform.draw()
    features = [image[0].numpy()]
    for number, (kernel, bias) in enumerate(layers):
        if number:
            features = [np.where(f > 0, f, 0.01 * f) for f in features]
        half, produced = kernel.shape[-1] // 2, []
        for out in range(kernel.shape[0]):
            total = np.full(SHAPE, bias[out])
            for place in itertools.product(*map(range, SHAPE)):
                for entry, offset in itertools.product(
                    range(len(features)), itertools.product(*[range(-half, half + 1)] * 3)
                ):
                    at = tuple(p + o for p, o in zip(place, offset))
                    if all(0 <= a < n for a, n in zip(at, SHAPE)):
                        weight = kernel[(out, entry, *(o + half for o in offset))]
                        total[place] += weight * features[entry][at]
            produced.append(total)
        features = produced
    plain = image[0].numpy()
    network = features[0] * (np.linalg.norm(plain) / np.linalg.norm(features[0]) if rescale else 1)
    mixed = alpha * network + (1 - alpha) * plain
    assert np.allclose(found, mixed * np.linalg.norm(plain) / np.linalg.norm(mixed), atol=1e-12)


def test_bezier_curve_is_the_cubic_of_its_control_points() -> None:
    inner = np.array([[0.2, 0.9], [0.7, 0.1]])
    points = np.array([[0, 0], *inner, [1, 1]])
    curve = bezier_curve(inner, samples=2001)
    for t in np.linspace(0.05, 0.95, 7):  # De Casteljau
        level = points
        while len(level) > 1:
            level = (1 - t) * level[:-1] + t * level[1:]
        x, y = level[0]
        assert np.interp(x, np.linspace(0, 1, 2001), curve) == pytest.approx(y, abs=2e-3)
    straight = bezier_curve(np.array([[1 / 3, 1 / 3], [2 / 3, 2 / 3]]))
    assert np.allclose(straight, np.linspace(0, 1, 256), atol=1e-6)


def test_curves_keep_the_range_and_may_turn_the_order_round() -> None:
    image = _image()
    turned = RandCurve(decreasing=1.0).set_random_state(0)(image)
    assert image.min() - 1e-9 <= turned.min() and turned.max() <= image.max() + 1e-9
    assert turned.flatten()[image.argmin()] == pytest.approx(float(image.max()))


def test_each_label_gets_a_curve_of_its_own() -> None:
    image, label = torch.full((1, 4, 4, 4), 0.5), torch.zeros(1, 4, 4, 4)
    label[0, :2] = 1
    image[0, :2, 0] = 0.6
    image[0, 2:, 0] = 0.6
    found = RandLabelCurves().set_random_state(1)(image, label)[0]
    both = [{float(v) for v in found[part][image[0, part] == 0.6]} for part in (slice(0, 2), slice(2, 4))]
    assert len(both[0]) == len(both[1]) == 1 and both[0] != both[1]


def test_clusters_are_those_of_k_means() -> None:
    rng = np.random.RandomState(0)
    groups = [rng.normal(mean, 0.02, 400) for mean in (0.1, 0.5, 0.9)]
    values = torch.as_tensor(np.concatenate(groups)).view(1, 20, 60)
    assert intensity_clusters(values, 3, rng).flatten().tolist() == [0] * 400 + [1] * 400 + [2] * 400


def test_region_contrast_is_affine_in_each_label_and_leaves_air_dark() -> None:
    image, label = _image(1, (6, 6, 6)) * 0.8 + 0.2, torch.zeros(1, 6, 6, 6)
    label[0, 1:3, 1:3, 1:5] = 1
    image[0, 5] = 0  # air
    transform = RandRegionContrast(label_prob=1, smoothing=0, air_prob=1).set_random_state(0)
    found = transform(image, label)
    inside = label[0] == 1
    before, after = image[0][inside].numpy(), found[0][inside].numpy()
    free = (after > 0) & (after < 1)  # not clipped
    if free.sum() > 2:
        slope, shift = np.polyfit(before[free], after[free], 1)
        assert np.allclose(slope * before[free] + shift, after[free], atol=1e-9)
    assert (found[0, 5] == 0).all()


def test_blend_takes_two_draws_by_a_field_between_0_and_1() -> None:
    transform = RandSpatialBlend(RandCurve(), control_points=3).set_random_state(7)
    image = _image(2, (8, 8, 8))
    found = transform(image)
    transform.set_random_state(7)
    transform.randomize(None)
    field = transform.draw_field((8, 8, 8))
    one, two = transform.transform(image).numpy(), transform.transform(image).numpy()
    assert field.min() == 0 and field.max() == pytest.approx(1)
    assert np.allclose(found.numpy(), field * one + (1 - field) * two, atol=1e-12)
    assert np.abs(np.diff(field, axis=0)).max() < 0.6, "neighbours differ little"


def test_warmup_raises_the_chance_with_the_iteration() -> None:
    now = [0]
    transform = RandOneContrast([RandCurve()], prob=0.6, warmup=(100, 300), iteration=lambda: now[0])
    shares = []
    for now[0] in (0, 100, 200, 300, 900):
        transform.set_random_state(0)
        shares.append(np.mean([not torch.equal(transform(_image()), _image()) for _ in range(400)]))
    assert shares[:2] == [0, 0] and shares[2] == pytest.approx(0.3, abs=0.08)
    assert shares[3:] == pytest.approx([0.6, 0.6], abs=0.08)


def test_mind_equals_its_formula_and_ignores_linear_contrast() -> None:
    image = _image(3, (6, 5, 7))
    found = MindSSC()(image)
    padded = np.pad(image[0].numpy(), 1, mode="edge")
    steps = [np.array(s) for s in ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))]
    distances = []
    for a, b in itertools.combinations(steps, 2):
        if ((a - b) ** 2).sum() == 2:
            difference = np.empty(image.shape[1:])
            for place in itertools.product(*map(range, image.shape[1:])):
                difference[place] = padded[tuple(place + a + 1)] - padded[tuple(place + b + 1)]
            distances.append(ndimage.gaussian_filter(difference**2, 1.0, mode="nearest"))
    distances = np.stack(distances)
    assert len(distances) == 12
    distances -= distances.min(0)
    variance = distances.mean(0)
    variance = variance.clip(1e-3 * variance.mean(), 1e3 * variance.mean())
    assert np.allclose(found.numpy(), np.exp(-distances / variance), atol=1e-12)
    assert torch.allclose(MindSSC()(3 - 2 * image), found, atol=1e-9)
    assert torch.equal(MindSSCd("image")({"image": image})["image"], found)
    with pytest.raises(ValueError, match=r"\(1, D, H, W\)"):
        MindSSC()(torch.zeros(2, 4, 4, 4))


def test_scale_to_unit_takes_percentiles_of_each_channel() -> None:
    image = torch.stack([torch.arange(1001.0).view(7, 11, 13), torch.full((7, 11, 13), 4.0)])
    found = scale_to_unit(image)
    assert torch.allclose(found[0], ((image[0] - 5) / 990).clamp(0, 1)) and (found[1] == 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandConvolution(kernel_sizes=[2]), "odd kernel sizes"),
        (lambda: RandRegionContrast(clusters=[3, 2]), "least and a greatest"),
        (lambda: RandOneContrast([RandCurve()], weights=[1, 2]), "for each transform"),
        (lambda: RandOneContrast([RandCurve()], warmup=(0, 5)), "iteration"),
        (lambda: RandCurve()(torch.zeros(4, 4, 4)), r"\(C, D, H, W\)"),
    ],
)
def test_bad_settings_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_overlapping_regions_are_taken_apart():
    regions = torch.zeros(2, 6, 6, 6)
    regions[0, 1:5], regions[1, 3:6] = 1, 1
    image, seen = torch.rand(1, 6, 6, 6), []

    class Spy(RandContrast):
        def apply(self, image, label):
            seen.append(label)
            return image

    Spy()(image, regions)
    assert torch.equal(seen[0], regions[:1] + 2 * regions[1:])
