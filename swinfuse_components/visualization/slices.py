"""From a volume to a slice as radiologists look at it: the patient's right on the left, proportions in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes

from .style import FONT_SIZE, class_colour

#: name of the plane to the axis it cuts in a right-anterior-superior volume
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
#: letters at the left, right, top and bottom of each plane
MARKS = {"sagittal": "APSI", "coronal": "RLSI", "axial": "RLAP"}


class Slice(NamedTuple):
    """A slice ready for ``imshow``: pixels (rows, columns), width and height in mm, orientation marks."""

    pixels: np.ndarray
    extent: tuple[float, float, float, float]
    marks: str


def to_ras(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """Turn a volume so that its axes point right, anterior and superior, as nearly as turning by 90 degrees can.

    Args:
        volume: (D, H, W).
        affine: (4, 4), from voxels to millimetres in right-anterior-superior coordinates.

    Returns:
        the turned volume and its voxel size in mm.
    """
    array = np.asarray(volume)
    array = array.astype(np.uint8) if array.dtype == bool else array
    image = nib.as_closest_canonical(nib.Nifti1Image(array, np.asarray(affine, dtype=np.float64), dtype=array.dtype))
    return np.asanyarray(image.dataobj), tuple(float(z) for z in image.header.get_zooms()[:3])


def best_slice(target: np.ndarray, plane: str = "axial") -> int:
    """Number of the slice that shows most of a target, in a right-anterior-superior volume.

    Each class counts by the share of its own largest area, so that a small one is not lost beside a large one. Of equal
    slices, and without any target, it is the middle one.
    """
    stack = np.moveaxis(np.asarray(target), PLANES[plane], 0)
    values = np.unique(stack)
    if not (values > 0).any():
        return stack.shape[0] // 2
    areas = [(stack == value).sum(axis=(1, 2)) for value in values if value > 0]
    score = np.sum([area / area.max() for area in areas], axis=0)
    best = np.flatnonzero(score >= score.max() - 1e-9)
    return int(best[len(best) // 2])


def around(labels: Sequence[Slice], margin: float) -> tuple[float, float, float, float] | None:
    """Box around everything labelled in slices of one place, with a margin in mm: (left, right, bottom, top).

    None if nothing is labelled.
    """
    mask = np.any([s.pixels > 0 for s in labels], axis=0)
    if not mask.any():
        return None
    left, right, bottom, top = labels[0].extent
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    dx, dy = right / mask.shape[1], top / mask.shape[0]
    return (
        max(left, columns[0] * dx - margin),
        min(right, (columns[-1] + 1) * dx + margin),
        max(bottom, top - (rows[-1] + 1) * dy - margin),
        min(top, top - rows[0] * dy + margin),
    )


def cut(volume: np.ndarray, spacing: Sequence[float], index: int, plane: str = "axial") -> Slice:
    """One slice of a right-anterior-superior volume, the patient's right on the left side of the picture."""
    axis = PLANES[plane]
    pixels = np.take(volume, index, axis=axis)
    horizontal, vertical = (spacing[i] for i in range(3) if i != axis)
    # the first axis left runs from the picture's right to its left (R or A is left), the second upwards
    pixels = np.flip(pixels.T, axis=(0, 1))
    height, width = pixels.shape[0] * vertical, pixels.shape[1] * horizontal
    return Slice(pixels, (0.0, width, 0.0, height), MARKS[plane])


def show(
    ax: Axes,
    image: Slice,
    labels: Slice | None = None,
    *,
    limits: tuple[float, float] | None = None,
    values: Sequence[int] | None = None,
    title: str = "",
    marks: str = "RLAPSI",
    box: tuple[float, float, float, float] | None = None,
) -> None:
    """Draw a slice in grey, the classes of a label map over it: filled faintly, outlined sharply.

    Args:
        ax: where to draw.
        image: grey values.
        labels: label map of the same slice.
        limits: grey values shown as black and white; the 1 and 99 percentiles of the slice by default.
        values: label values to draw; all by default.
        title: above the picture.
        marks: the orientation marks to write: ``RL`` leaves out those of the other axes.
        box: part of the slice to show, see :func:`around`.
    """
    low, high = limits if limits is not None else np.percentile(image.pixels, [1, 99])
    ax.imshow(image.pixels, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), extent=image.extent, aspect="equal")
    if labels is not None:
        found = [int(v) for v in np.unique(labels.pixels) if v > 0 and (values is None or v in values)]
        for value in found:
            mask = labels.pixels == value
            colour = class_colour(value)
            tint = np.zeros((*mask.shape, 4))
            tint[mask] = (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 0.3)
            ax.imshow(tint, extent=image.extent, aspect="equal", interpolation="nearest")
            if mask.any() and not mask.all():
                ax.contour(np.flipud(mask), levels=[0.5], colors=[colour], linewidths=1.1, extent=image.extent)
    left, right, bottom, top = box or image.extent
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.set_xticks([])
    ax.set_yticks([])
    if title:
        ax.set_title(title, fontsize=FONT_SIZE)
    places = [(0.03, 0.5, "left", "center"), (0.97, 0.5, "right", "center")]
    places += [(0.5, 0.97, "center", "top"), (0.5, 0.03, "center", "bottom")]
    frame = {"facecolor": "black", "alpha": 0.45, "pad": 0.8, "edgecolor": "none"}
    for letter, (x, y, ha, va) in zip(image.marks, places):
        if letter in marks:
            style: dict[str, Any] = {"ha": ha, "va": va, "fontsize": FONT_SIZE, "color": "white", "bbox": frame}
            ax.text(x, y, letter, transform=ax.transAxes, fontweight="bold", **style)
