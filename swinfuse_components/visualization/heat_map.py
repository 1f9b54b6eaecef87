"""The matrix as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .style import FONT_SIZE, new_figure, save_figure


def heat_map(
    values: Mapping[tuple[str, str], float],
    path: str | Path,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    title: str = "",
    label: str = "mean Dice",
    limits: tuple[float, float] = (0.0, 1.0),
    separators: Sequence[int] = (),
) -> Path:
    """Draw a table of numbers as coloured cells, each with its number.

    Args:
        values: number by (row, column); missing and undefined cells stay white.
        path: PNG to write.
        rows: rows from top to bottom; by default in the order of ``values``.
        columns: columns from left to right, likewise.
        title: above the figure.
        label: of the colour bar.
        limits: values of the ends of the colour scale, the same for every figure that is to be compared.
        separators: rows before which a line is drawn.

    Returns:
        the path.

    Raises:
        ValueError: if there is nothing to draw.
    """
    rows = list(rows if rows is not None else dict.fromkeys(r for r, _ in values))
    columns = list(columns if columns is not None else dict.fromkeys(c for _, c in values))
    if not rows or not columns:
        raise ValueError("a heat map of no cells: expected at least one row and one column")
    table = np.array([[values.get((r, c), math.nan) for c in columns] for r in rows], dtype=float)
    longest = max(len(r) for r in rows)
    figure, [[ax]] = new_figure(1, 1, width=1.6 + 0.075 * longest + 0.95 * len(columns), height=1.3 + 0.34 * len(rows))
    image = ax.imshow(np.ma.masked_invalid(table), cmap="viridis", vmin=limits[0], vmax=limits[1], aspect="auto")
    for (i, j), value in np.ndenumerate(table):
        if not math.isnan(value):
            bright = (value - limits[0]) / (limits[1] - limits[0]) > 0.55
            colour = "black" if bright else "white"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=FONT_SIZE)
        else:
            ax.text(j, i, "-", ha="center", va="center", color="0.4", fontsize=FONT_SIZE)
    for number in separators:
        ax.axhline(number - 0.5, color="white", linewidth=4)
    ax.set_xticks(range(len(columns)), columns, rotation=25, ha="right", fontsize=FONT_SIZE)
    ax.set_yticks(range(len(rows)), rows, fontsize=FONT_SIZE)
    ax.set_xlabel("tested on", fontsize=FONT_SIZE)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=ax, fraction=0.05, pad=0.02)
    bar.set_label(label, fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE - 1)
    if title:
        figure.suptitle(title, fontsize=FONT_SIZE + 1)
    return save_figure(figure, path)
