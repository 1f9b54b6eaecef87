"""Scores against an independent computation: set arithmetic and SciPy's distance transform."""

import math

import numpy as np
import pytest
from scipy import ndimage

from swinfuse_components.evaluation.scores import score_case, score_masks

SPACING = (1.5, 0.8, 3.0)


def surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


def reference(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice by counting, distances from every surface voxel to the nearest one of the other surface."""
    sp, st = surface(prediction), surface(truth)
    to_truth = ndimage.distance_transform_edt(~st, sampling=SPACING)[sp]
    to_prediction = ndimage.distance_transform_edt(~sp, sampling=SPACING)[st]
    return {
        "dice": 2 * np.sum(prediction & truth) / (prediction.sum() + truth.sum()),
        "surface_distance": np.concatenate([to_truth, to_prediction]).mean(),
        "hausdorff95": max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95)),
        "sensitivity": np.sum(prediction & truth) / truth.sum(),
    }


def masks(seed: int | None) -> np.ndarray:
    """Prediction and truth: random blobs, or (None) boxes that touch the border."""
    if seed is not None:
        noise = np.random.default_rng(seed).normal(size=(2, 20, 24, 16))
        return np.stack([ndimage.gaussian_filter(each, 2) > 0.02 for each in noise])
    boxes = np.zeros((2, 12, 12, 12), bool)
    boxes[0, :4, 2:], boxes[1, :6] = True, True
    return boxes


@pytest.mark.parametrize("seed", [*range(6), None])
def test_masks_agree_with_scipy(seed: int | None) -> None:
    prediction, truth = masks(seed)
    scores = score_masks(prediction, truth, SPACING)
    for name, value in reference(prediction, truth).items():
        assert getattr(scores, name) == pytest.approx(value, rel=1e-4), name
    assert scores.truth_volume == pytest.approx(truth.sum() * 3.6)


def test_the_rule_for_empty_masks() -> None:
    empty, some = np.zeros((4, 5, 6)), np.zeros((4, 5, 6))
    some[1, 2, 3] = 1
    diagonal = math.sqrt((4 * 1.5) ** 2 + (5 * 0.8) ** 2 + (6 * 3.0) ** 2)

    both = score_masks(empty, empty, SPACING)
    assert all(math.isnan(value) for value in both[:4]) and both[4:] == (0.0, 0.0)
    false_alarm = score_masks(some, empty, SPACING)
    assert false_alarm[:3] == pytest.approx((0.0, diagonal, diagonal)) and math.isnan(false_alarm.sensitivity)
    missed = score_masks(empty, some, SPACING)
    assert missed[:4] == pytest.approx((0.0, diagonal, diagonal, 0.0))


def test_union_and_mapped_classes() -> None:
    truth = np.zeros((8, 8, 8), int)
    truth[:2], truth[2:4] = 1, 2
    prediction = np.zeros_like(truth)
    prediction[:4] = 3
    assert score_case(prediction, truth, (1, 1, 1))["foreground"].dice == 1
    mapped = score_case(prediction, truth, (1, 1, 1), {"organ": ([3], [2]), "whole": ([3], [1, 2])})
    assert mapped["organ"].dice == pytest.approx(2 * 128 / (256 + 128))
    assert mapped["whole"].dice == 1


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2, 2\).*\(3, 3, 3\)"):
        score_masks(np.ones((2, 2, 2)), np.ones((3, 3, 3)), (1, 1, 1))
    with pytest.raises(ValueError, match="spacing"):
        score_masks(np.ones((2, 2, 2)), np.ones((2, 2, 2)), (1, 0, 1))
