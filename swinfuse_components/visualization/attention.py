"""Attention over the image, as in the paper's Fig. 1."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch

from .slices import best_slice, cut, show, to_ras
from .style import FONT_SIZE, class_colour, new_figure, save_figure


@dataclass
class AttentionPicture:
    """One row: an image, what the module multiplies its embedding by, and segmentations.

    Attributes:
        name: written at the left.
        image: (D, H, W), scaled to [0, 1].
        gate: (D, H, W) on the same grid.
        affine: (4, 4).
        truth: labels (D, H, W); any foreground counts.
        prediction: labels (D, H, W), or None.
    """

    name: str
    image: np.ndarray
    gate: np.ndarray
    affine: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray | None = None


def attention_overlay(rows: Sequence[AttentionPicture], path: str | Path, *, plane: str = "axial") -> Path:
    """Image, gate over the image, truth and prediction, one row a volume; one colour scale for all rows.

    As in the paper's Fig. 1 darker means more relevant. A CSV of the same name holds the mean gate in the target, in
    the rest of the body and outside it.

    Args:
        rows: volumes, CT and MRI for instance.
        path: PNG to write.
        plane: ``axial``, ``coronal`` or ``sagittal``.

    Returns:
        the path.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("a figure of no volumes: expected at least one")
    columns = 3 + any(row.prediction is not None for row in rows)
    figure, axes = new_figure(len(rows), columns)
    pieces, records = [], []
    for row in rows:
        image, spacing = to_ras(row.image.astype(np.float32), row.affine)
        gate = to_ras(row.gate.astype(np.float32), row.affine)[0]
        truth = to_ras((row.truth > 0).astype(np.uint8), row.affine)[0]
        index = best_slice(truth, plane)
        pieces.append([cut(v, spacing, index, plane) for v in (image, gate, truth)])
        if row.prediction is not None:
            answer = to_ras((row.prediction > 0).astype(np.uint8), row.affine)[0]
            pieces[-1].append(cut(answer, spacing, index, plane))
        body = (image > 0.05) & (truth == 0)
        parts = {"target": truth > 0, "body": body, "outside": ~body & (truth == 0)}
        means = [float(gate[m].mean()) if m.any() else float("nan") for m in parts.values()]
        records.append([row.name, plane, index, *(f"{m:.5f}" for m in means), f"{gate.std():.5f}"])
    shown = np.concatenate([p[1].pixels.ravel() for p in pieces])
    low, high = (float(v) for v in np.percentile(shown, [1, 99]))
    for line, row, slices in zip(axes, rows, pieces):
        show(line[0], slices[0], limits=(0, 1), title="image")
        line[0].set_ylabel(row.name, fontsize=FONT_SIZE)
        show(line[1], slices[0], limits=(0, 1), title="gate of the DIM", marks="RL")
        style = {"cmap": "YlOrRd", "vmin": low, "vmax": max(high, low + 1e-6), "alpha": 0.6}
        drawn = line[1].imshow(slices[1].pixels, extent=slices[1].extent, aspect="equal", **style)
        for ax, name, labels in zip(line[2:], ("truth", "prediction"), slices[2:]):
            show(ax, slices[0], labels, limits=(0, 1), title=name, marks="RL")
    everywhere = [ax for line in axes for ax in line]
    bar = figure.colorbar(drawn, ax=everywhere, location="right", fraction=0.03, pad=0.01)
    bar.set_label("mean gate (darker: more)", fontsize=FONT_SIZE - 1)
    bar.ax.tick_params(labelsize=FONT_SIZE - 2)
    patches = [Patch(color=class_colour(1), label="target")]
    figure.legend(handles=patches, loc="outside lower center", fontsize=FONT_SIZE, frameon=False)
    written = save_figure(figure, path)
    with written.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        header = ["volume", "plane", "slice (RAS)", "gate in target", "gate in body", "gate outside", "std of gate"]
        csv.writer(file).writerows([header, *records])
    return written
