"""Segmentations side by side, as in the paper's Fig. 3."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch

from .slices import around, best_slice, cut, show, to_ras
from .style import FONT_SIZE, class_colour, new_figure, save_figure


@dataclass
class CasePicture:
    """One row of the figure.

    Attributes:
        name: written at the left.
        image: (D, H, W).
        affine: (4, 4).
        truth: labels (D, H, W).
        predictions: labels (D, H, W) of each model.
        dice: of each model, for its title.
        limits: grey values shown as black and white.
    """

    name: str
    image: np.ndarray
    affine: np.ndarray
    truth: np.ndarray
    predictions: Mapping[str, np.ndarray] = field(default_factory=dict)
    dice: Mapping[str, float] = field(default_factory=dict)
    limits: tuple[float, float] | None = None


def side_by_side(
    cases: Sequence[CasePicture],
    path: str | Path,
    *,
    classes: Mapping[str, int],
    plane: str = "axial",
    margin: float | None = None,
) -> Path:
    """Image, truth and every model's answer on the slice that shows most of the target, Dice in the titles.

    Args:
        cases: rows; all with predictions of the same models.
        path: PNG to write; a CSV of the same name holds case, slice and Dice.
        classes: label value by name, for the legend. Colours belong to the values and are the same in every figure.
        plane: ``axial``, ``coronal`` or ``sagittal``.
        margin: show only the labelled part of the slice and so many millimetres around it; None shows all of it.

    Returns:
        the path of the PNG.

    Raises:
        ValueError: if there is no case, or the rows differ in their models.
    """
    if not cases:
        raise ValueError("a figure of no cases: expected at least one")
    models = list(cases[0].predictions)
    if any(list(case.predictions) != models for case in cases):
        raise ValueError(f"the rows show different models: expected {models} in each")
    figure, axes = new_figure(len(cases), 2 + len(models))
    records = []
    for line, case in zip(axes, cases):
        image, spacing = to_ras(case.image, case.affine)
        maps = [to_ras(m, case.affine)[0] for m in (case.truth, *case.predictions.values())]
        index = best_slice(maps[0], plane)
        grey = cut(image, spacing, index, plane)
        low, high = case.limits or np.percentile(image, [1, 99.5])
        limits = (float(low), float(high))
        pieces = [cut(labels, spacing, index, plane) for labels in maps]
        box = None if margin is None else around(pieces, margin)
        show(line[0], grey, limits=limits, title="image", box=box)
        line[0].set_ylabel(case.name, fontsize=FONT_SIZE)
        for ax, name, piece in zip(line[1:], ["truth", *models], pieces):
            title = f"{name}\nDice {case.dice[name]:.2f}" if name in case.dice else name
            show(ax, grey, piece, limits=limits, title=title, marks="RL", box=box)
        records.append([case.name, plane, index, *(f"{case.dice[m]:.4f}" if m in case.dice else "" for m in models)])
    patches = [Patch(color=class_colour(value), label=name) for name, value in classes.items()]
    figure.legend(
        handles=patches, loc="outside lower center", ncols=min(len(patches), 6), fontsize=FONT_SIZE, frameon=False
    )
    written = save_figure(figure, path)
    with written.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["case", "plane", "slice (RAS)", *(f"Dice {m}" for m in models)], *records])
    return written
