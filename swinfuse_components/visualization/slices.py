"""Slices of volumes with label maps and attention over them, the patient's right on the left, proportions in mm.

Drawn by matplotlib alone: nilearn's displays place their axes themselves, which breaks a grid of panels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..engines.files import atomic_write, csv_cell
from .plots import LOOK, class_colour, new_figure, save_figure

#: the axis that a plane cuts in a right-anterior-superior volume, and the letters at its left and right
PLANES = {"sagittal": (0, "AP"), "coronal": (1, "RL"), "axial": (2, "RL")}


@dataclass
class CasePicture:
    """One row of a figure: a case with everything on its voxel grid, volumes (D, H, W), the affine (4, 4).

    ``dice`` of each model stands in its title; ``limits`` are the grey values shown as black and white; ``gate`` is
    what the domain invariance module multiplies its embedding by.
    """

    name: str
    image: np.ndarray
    affine: np.ndarray
    truth: np.ndarray
    predictions: Mapping[str, np.ndarray] = field(default_factory=dict)
    dice: Mapping[str, float] = field(default_factory=dict)
    limits: tuple[float, float] | None = None
    gate: np.ndarray | None = None

    def grey_limits(self) -> tuple[float, float]:
        """Grey values shown as black and white: ``limits``, or percentiles of the image."""
        low, high = self.limits or np.percentile(self.image, [1, 99.5])
        return float(low), float(max(high, low + 1e-6))


def to_ras(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """Turn a volume (D, H, W) so that its axes point right, anterior and superior, as nearly as 90 degrees can.

    Returns the turned volume and its voxel size in mm; ``affine`` (4, 4) leads from voxels to millimetres.
    """
    array = np.asarray(volume)
    image = nib.as_closest_canonical(nib.Nifti1Image(array, np.asarray(affine, dtype=np.float64), dtype=array.dtype))
    return np.asanyarray(image.dataobj), tuple(float(z) for z in image.header.get_zooms()[:3])


def best_slice(target: np.ndarray, plane: str = "axial") -> int:
    """Number of the slice that shows most of a target, in a right-anterior-superior volume; the middle one of equals.

    Each class counts by the share of its own largest area.
    """
    stack = np.moveaxis(np.asarray(target), PLANES[plane][0], 0)
    areas = [(stack == value).sum(axis=(1, 2)) for value in np.unique(stack) if value > 0]
    if not areas:
        return len(stack) // 2
    score = np.sum([area / area.max() for area in areas], axis=0)
    best = np.flatnonzero(score >= score.max() - 1e-9)
    return int(best[len(best) // 2])


def cut(volume: np.ndarray, index: int, plane: str = "axial") -> np.ndarray:
    """One slice of a right-anterior-superior volume as pixels (rows, columns): right or anterior left, the other up."""
    return np.flip(np.take(volume, index, axis=PLANES[plane][0]).T, axis=(0, 1))


class _Row:
    """One case of a figure, cut at the slice that shows most of its target."""

    def __init__(self, case: CasePicture, plane: str) -> None:
        self.case, self.plane = case, plane
        truth, spacing = to_ras(case.truth, case.affine)
        self.index = best_slice(truth, plane)
        horizontal, vertical = (size for axis, size in enumerate(spacing) if axis != PLANES[plane][0])
        height, width = self.pixels(case.truth).shape
        self.extent = (0.0, width * horizontal, 0.0, height * vertical)

    def pixels(self, volume: np.ndarray) -> np.ndarray:
        return cut(to_ras(volume, self.case.affine)[0], self.index, self.plane)

    def show(self, ax: Axes, title: str, labels: np.ndarray | None = None) -> None:
        """The slice in grey, the classes of a label map over it: filled faintly, outlined sharply."""
        low, high = self.case.grey_limits()
        where: dict[str, Any] = {"extent": self.extent, "aspect": "equal"}
        ax.imshow(self.pixels(self.case.image), cmap="gray", vmin=low, vmax=high, **where)
        drawn = np.zeros((1, 1)) if labels is None else self.pixels(labels)
        for value in np.unique(drawn[drawn > 0]):
            mask, colour = drawn == value, class_colour(int(value))
            ax.imshow(mask[..., None] * np.array(to_rgba(colour, 0.3)), interpolation="nearest", **where)
            if not mask.all():
                ax.contour(np.flipud(mask), levels=[0.5], colors=[colour], linewidths=1.1, extent=self.extent)
        ax.set(xlim=self.extent[:2], ylim=self.extent[2:], xticks=[], yticks=[], title=title)
        style: dict[str, Any] = {"va": "center", "color": "white", "fontweight": "bold", "transform": ax.transAxes}
        style["bbox"] = {"facecolor": "black", "alpha": 0.45, "pad": 0.8, "edgecolor": "none"}
        for letter, x, side in zip(PLANES[self.plane][1], (0.03, 0.97), ("left", "right")):
            ax.text(x, 0.5, letter, ha=side, **style)


@rc_context(LOOK)
def side_by_side(
    cases: Sequence[CasePicture], path: str | Path, *, classes: Mapping[str, int], plane: str = "axial"
) -> Path:
    """Segmentations as in the paper's Fig. 3: image, truth and every model's answer, Dice in the titles.

    The slice is the one that shows most of the target. A CSV beside the PNG holds case, slice and Dice. ``classes`` are
    label values by name, for the legend; ``plane`` is ``axial``, ``coronal`` or ``sagittal``. ValueError if there is no
    case, or the rows differ in their models.
    """
    if not cases:
        raise ValueError("a figure of no cases: expected at least one")
    models = list(cases[0].predictions)
    if any(list(case.predictions) != models for case in cases):
        raise ValueError(f"the rows show different models: expected {models} in each")
    figure, axes = new_figure(len(cases), 2 + len(models))
    records = []
    for line, case in zip(axes, cases):
        row = _Row(case, plane)
        row.show(line[0], "image")
        line[0].set_ylabel(case.name)
        for ax, name, labels in zip(line[1:], ["truth", *models], [case.truth, *case.predictions.values()]):
            row.show(ax, f"{name}\nDice {case.dice[name]:.2f}" if name in case.dice else name, labels)
        dice = {f"Dice {model}": f"{case.dice[model]:.4f}" if model in case.dice else "" for model in models}
        records.append({"case": case.name, "plane": plane, "slice (RAS)": row.index, **dice})
    return _finish(figure, classes, records, path)


@rc_context(LOOK)
def attention_overlay(rows: Sequence[CasePicture], path: str | Path, *, plane: str = "axial") -> Path:
    """Image, gate over the image, truth and prediction, one row a volume, as in the paper's Fig. 1.

    One colour scale for all rows; darker means more relevant. A CSV of the same name holds the mean gate in the target,
    in the rest of the body and outside it. The rows have a ``gate``, and images scaled to [0, 1].
    """
    figure, axes = new_figure(len(rows), 3 + len(rows[0].predictions))
    drawn = [(_Row(case, plane), np.asarray(case.gate, dtype=np.float32)) for case in rows]
    low, high = np.percentile(np.concatenate([row.pixels(gate).ravel() for row, gate in drawn]), [1, 99])
    records = []
    for line, (row, gate) in zip(axes, drawn):
        case = row.case
        row.show(line[0], "image")
        line[0].set_ylabel(case.name)
        row.show(line[1], "gate of the DIM")
        style = {"cmap": "YlOrRd", "vmin": low, "vmax": max(high, low + 1e-6), "alpha": 0.6}
        heat = line[1].imshow(row.pixels(gate), extent=row.extent, aspect="equal", **style)
        for ax, (name, labels) in zip(line[2:], {"truth": case.truth, **case.predictions}.items()):
            row.show(ax, name, (labels > 0).astype(np.uint8))
        target, body = case.truth > 0, (case.image > 0.05) & (case.truth == 0)
        parts = {"in target": target, "in body": body, "outside": ~body & ~target}
        means = {f"gate {name}": f"{gate[m].mean():.5f}" if m.any() else "nan" for name, m in parts.items()}
        record = {"volume": case.name, "plane": plane, "slice (RAS)": row.index}
        records.append({**record, **means, "std of gate": f"{gate.std():.5f}"})
    figure.colorbar(heat, ax=sum(axes, []), location="right", fraction=0.03, pad=0.01, label="mean gate (darker: more)")
    return _finish(figure, {"target": 1}, records, path)


def _finish(figure: Figure, classes: Mapping[str, int], records: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Add the legend, write the figure and the table beside it."""
    patches = [Patch(color=class_colour(value), label=name) for name, value in classes.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=max(1, min(len(patches), 6)))
    written = save_figure(figure, path)
    with atomic_write(written.with_suffix(".csv")) as file:
        pd.DataFrame(records).map(csv_cell).to_csv(file, index=False)
    return written
