"""The two views, and the cutout in them."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, RandCropByPosNegLabeld, RandFlipd, RandScaleIntensity, RandSpatialCropSamplesd

from swinfuse_components.transforms import MindSSC, RandCurve, RandInnerCutout, RandTwoViewsd, RepeatSamples


@pytest.mark.parametrize("suffix", ["i", "j"])
def test_target_is_the_rotated_image_and_the_view_differs_only_in_the_mask(suffix):
    image = torch.rand(1, 16, 16, 12)
    transform = RandTwoViewsd("image").set_random_state(0)
    for _ in range(8):
        item = transform({"image": image})
        view, target, turns, mask = (item[f"{name}_{suffix}"] for name in ("view", "target", "rotation", "cutout"))
        # the rotation, by indices: a quarter turn sends (a, b) to (n - 1 - b, a)
        expected = image
        for _ in range(int(turns)):
            expected = expected.transpose(1, 2).flip(1)
        assert torch.equal(target, expected)
        assert torch.equal(view[~mask], target[~mask])
        assert (view != target)[mask].any()
        assert mask.dtype == torch.bool and turns.dtype == torch.int64 and turns.ndim == 0


def test_views_are_drawn_independently_and_all_turns_come_equally_often():
    transform = RandTwoViewsd("image", cutout=RandInnerCutout(holes=(1, 1))).set_random_state(3)
    image = torch.rand(1, 8, 8, 8)
    draws = [transform({"image": image}) for _ in range(400)]
    pairs = Counter((int(item["rotation_i"]), int(item["rotation_j"])) for item in draws)
    # 16 cells of 25: chi-squared with 15 degrees of freedom stays below 37.7 in 99.9 % of the cases
    assert sum((pairs[(a, b)] - 25) ** 2 / 25 for a in range(4) for b in range(4)) < 37.7
    assert sum(torch.equal(item["cutout_i"], item["cutout_j"]) for item in draws) < 40


def test_pairs_take_one_view_from_each():
    item = {"ct": torch.zeros(1, 8, 8, 8), "mr": torch.ones(1, 8, 8, 8)}
    views = RandTwoViewsd(["ct", "mr"])(item)
    assert torch.equal(views["target_i"], item["ct"]) and torch.equal(views["target_j"], item["mr"])


def test_the_same_seed_gives_the_same_views_also_through_a_compose():
    def run(seed):
        chain = Compose(
            [
                RandSpatialCropSamplesd("image", (8, 8, 8), num_samples=2, random_size=False),
                RandTwoViewsd("image", augment=RandScaleIntensity(0.5, prob=1.0)),
            ]
        )
        return chain.set_random_state(seed)({"image": torch.arange(4096.0).reshape(1, 16, 16, 16)})

    first, second, other = run(1), run(1), run(2)
    for a, b in zip(first, second):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(first[0]["view_i"], other[0]["view_i"])


@pytest.mark.parametrize("augment_target", [True, False])
def test_augmented_contrast_in_the_target_or_not(augment_target):
    transform = RandTwoViewsd("image", augment=lambda image: 1 - image, augment_target=augment_target)
    image = torch.full((1, 8, 8, 8), 0.25)
    item = transform({"image": image})
    assert torch.all(item["target_i"] == (0.75 if augment_target else 0.25))
    assert torch.all(item["view_i"][~item["cutout_i"]] == 0.75)
    assert torch.all(image == 0.25)


def test_views_of_one_geometry_with_targets_without_contrast():
    describe = MindSSC()
    transform = RandTwoViewsd(
        "image", augment=RandCurve(decreasing=0.5), augment_target=False, same_rotation=True, describe=describe
    ).set_random_state(0)
    image = torch.rand(1, 12, 12, 12)
    turns = set()
    for _ in range(10):
        item = transform({"image": image})
        assert item["rotation_i"] == item["rotation_j"]
        turns.add(int(item["rotation_i"]))
        expected = describe(torch.rot90(image, int(item["rotation_i"]), (1, 2)))
        assert torch.equal(item["target_i"], expected) and torch.equal(item["target_j"], expected)
        kept = ~(item["cutout_i"] | item["cutout_j"])[0]
        assert not torch.allclose(*[item[f"view_{suffix}"][0][kept] for suffix in "ij"])
        foreground = torch.rot90(image > 0.05, int(item["rotation_i"]), (1, 2))[0]
        assert (item["shown"][0] != (foreground & kept)).sum() < 20  # the threshold is relative to the range
    assert len(turns) > 1


def test_plain_tensors_that_collate():
    items = [{"image": MetaTensor(torch.rand(1, 8, 8, 8))} for _ in range(3)]
    transform = Compose([RandTwoViewsd("image")])
    batch = next(iter(DataLoader(Dataset(items, transform), batch_size=3)))
    assert type(batch["view_i"]) is torch.Tensor and batch["view_i"].shape == (3, 1, 8, 8, 8)
    assert batch["rotation_j"].shape == (3,) and batch["cutout_j"].shape == (3, 1, 8, 8, 8)


def test_a_plane_that_a_quarter_turn_would_reshape_is_refused():
    with pytest.raises(ValueError, match="equal sides"):
        RandTwoViewsd("image", rotation_axes=(1, 2))({"image": torch.rand(1, 8, 8, 6)})
    for axes in [(0, 0), (0,), (0, 3)]:
        with pytest.raises(ValueError, match="rotation_axes"):
            RandTwoViewsd("image", rotation_axes=axes)
    with pytest.raises(ValueError, match="keys"):
        RandTwoViewsd(["a", "b", "c"])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    holes=st.tuples(st.integers(1, 10), st.integers(0, 40)).map(lambda t: (t[0], t[0] + t[1])),
    sizes=st.tuples(st.floats(0.05, 0.6), st.floats(0, 0.3)).map(lambda t: (t[0], min(t[0] + t[1], 0.66))),
    shape=st.tuples(*[st.integers(4, 20)] * 3),
)
def test_the_cutout_removes_something_but_never_more_than_its_bound(seed, holes, sizes, shape):
    cutout = RandInnerCutout(holes, sizes, max_removed=0.3).set_random_state(seed)
    cut, mask = cutout(torch.rand(2, *shape) + 1)
    assert mask.shape == (1, *shape)
    assert 0 < mask.sum() <= 0.3 * mask.numel()
    assert torch.isfinite(cut).all()


def test_cutout_fills_with_noise_of_the_images_range():
    image = torch.rand(2, 10, 10, 10)
    cut, mask = RandInnerCutout()(image)
    noise = cut[:, mask[0]]
    assert image.min() <= noise.min() and noise.max() <= image.max() and noise.std() > 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holes": (0, 3)}, "holes"),
        ({"holes": (4, 3)}, "holes"),
        ({"hole_size": (0.0, 0.3)}, "hole_size"),
        ({"hole_size": (0.2, 1.0)}, "hole_size"),
        ({"max_removed": 1.0}, "max_removed"),
        ({"hole_size": (0.2, 0.8)}, "alone removes more"),
    ],
)
def test_cutout_settings_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        RandInnerCutout(**options)


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
