"""Dice, surface distances and sensitivity of one case, by MONAI's metrics.

One rule for empty masks, which MONAI leaves to its user (:data:`EMPTY_RULE`):

=========  =========  ==============================  ===========
truth      predicted  Dice and surface distances      sensitivity
=========  =========  ==============================  ===========
empty      empty      undefined                       undefined
empty      something  Dice 0, distances = diagonal    undefined
something  empty      Dice 0, distances = diagonal    0
=========  =========  ==============================  ===========

The diagonal is that of the volume in mm, as BraTS scores such cases. Undefined scores are NaN and left out of means.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.metrics import compute_confusion_matrix_metric, compute_dice, get_confusion_matrix
from monai.metrics.utils import get_edge_surface_distance

#: printed wherever scores are printed
EMPTY_RULE = (
    "A class absent from truth and prediction is undefined and left out of the mean; absent from only one of them, "
    "Dice is 0 and the distance is the diagonal of the volume."
)


class CaseScores(NamedTuple):
    """Scores of one mask. Distances in the unit of the spacing (millimetres), volumes in its cube."""

    dice: float
    surface_distance: float
    hausdorff95: float
    sensitivity: float
    truth_volume: float
    predicted_volume: float


def score_masks(
    prediction: np.ndarray | torch.Tensor, truth: np.ndarray | torch.Tensor, spacing: Sequence[float]
) -> CaseScores:
    """Score one mask (D, H, W; non-zero is foreground) against another; ``spacing`` is a voxel's size in mm.

    ValueError if the shapes differ or the spacing has not one positive value per axis.
    """
    p, t = (torch.as_tensor(np.asarray(m) != 0) for m in (prediction, truth))
    if p.shape != t.shape:
        raise ValueError(f"the prediction has shape {tuple(p.shape)}, the truth {tuple(t.shape)}: expected the same")
    if len(spacing) != p.ndim or min(spacing) <= 0:
        raise ValueError(f"the spacing is {tuple(spacing)}: expected {p.ndim} positive values")
    volumes = [int(mask.sum()) * math.prod(spacing) for mask in (t, p)]
    if not (t.any() or p.any()):
        return CaseScores(math.nan, math.nan, math.nan, math.nan, *volumes)
    if not (t.any() and p.any()):
        diagonal = math.hypot(*(n * s for n, s in zip(p.shape, spacing)))
        return CaseScores(0.0, diagonal, diagonal, 0.0 if t.any() else math.nan, *volumes)
    y_pred, y = p[None, None].float(), t[None, None].float()
    confusion = get_confusion_matrix(y_pred, y, include_background=True)
    # both distances come from the same surfaces; MONAI's two functions would find and measure them twice
    _, distances, _ = get_edge_surface_distance(p, t, spacing=[float(s) for s in spacing], symmetric=True)
    dice, surface_distance = compute_dice(y_pred, y, ignore_empty=False), torch.cat(distances).mean()
    hausdorff95 = max(torch.quantile(d, 0.95) for d in distances)
    sensitivity = compute_confusion_matrix_metric("sensitivity", confusion)
    return CaseScores(float(dice), float(surface_distance), float(hausdorff95), float(sensitivity), *volumes)


def score_case(
    prediction: np.ndarray | torch.Tensor,
    truth: np.ndarray | torch.Tensor,
    spacing: Sequence[float],
    classes: Mapping[str, tuple[Sequence[int], Sequence[int]]] | None = None,
) -> dict[str, CaseScores]:
    """Score a label map (D, H, W; 0 is background), as the union of its foreground or class by class.

    ``classes`` holds, by name, the labels of the prediction and those of the truth. None takes the union of all
    foreground on both sides, as the paper's Table 2 must, where organs differ; it is called ``foreground``.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if classes is None:
        return {"foreground": score_masks(prediction, truth, spacing)}
    return {
        name: score_masks(np.isin(prediction, list(ours)), np.isin(truth, list(theirs)), spacing)
        for name, (ours, theirs) in classes.items()
    }
