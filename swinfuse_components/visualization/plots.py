"""Curves, heat maps and scatter plots, and the look that all figures share."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..engines.files import atomic_write

#: colour of a class by its label value, the same in every figure: Okabe and Ito's palette for the colour blind
CLASS_COLOURS = ("#D55E00", "#56B4E9", "#F0E442", "#009E73", "#CC79A7", "#E69F00", "#0072B2", "#999999")
# yellow is hard to see as a line on white
LINE_COLOURS = tuple(colour for colour in CLASS_COLOURS if colour != "#F0E442")
#: matplotlib's settings while a figure is drawn
LOOK = {"font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False}
LOOK |= {"xtick.labelsize": 8, "ytick.labelsize": 8}


def class_colour(value: int) -> str:
    """Colour of a label value of 1 or more; from the ninth class on they repeat."""
    return CLASS_COLOURS[(value - 1) % len(CLASS_COLOURS)]


def new_figure(rows: int, columns: int, *, width: float = 2.2, height: float = 2.2) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a grid of axes, sizes in inches for one of them; pyplot's state is not touched."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, [list(line) for line in figure.subplots(rows, columns, squeeze=False)]


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a PNG in one step, its folder made if missing."""
    with atomic_write(path, "wb") as file:
        figure.savefig(file, dpi=200, facecolor="white", format="png")
    return Path(path)


@rc_context(LOOK)
def curves(lines: pd.DataFrame, path: str | Path, **texts: str) -> Path:
    """One line for each column over the index (integers), undefined points left out; ValueError if there is no line.

    ``texts`` are ``title``, ``xlabel`` and ``ylabel``.
    """
    if lines.empty:
        raise ValueError("a figure of no curves: expected at least one")
    figure, [[ax]] = new_figure(1, 1, width=5.2, height=3.2)
    for number, name in enumerate(lines):
        points, colour = lines[name].dropna(), LINE_COLOURS[number % len(LINE_COLOURS)]
        style = "o-" if number < len(LINE_COLOURS) else "o--"
        ax.plot(points.index, points, style, color=colour, label=name, linewidth=1.3, markersize=3)
    ax.set(**texts)
    ax.grid(alpha=0.3)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return save_figure(figure, path)


@rc_context(LOOK)
def heat_map(cells: pd.DataFrame, path: str | Path) -> Path:
    """Draw a table of mean Dice as coloured cells with their numbers, undefined ones white; ValueError if empty."""
    if cells.empty:
        raise ValueError("a heat map of no cells: expected at least one row and one column")
    rows, columns = [str(name) for name in cells.index], [str(name) for name in cells.columns]
    width = 1.6 + 0.075 * max(map(len, rows)) + 0.95 * len(columns)
    figure, [[ax]] = new_figure(1, 1, width=width, height=1.3 + 0.34 * len(rows))
    table = cells.to_numpy(dtype=float)
    image = ax.imshow(np.ma.masked_invalid(table), cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(table):
        text, colour = ("-", "0.4") if math.isnan(value) else (f"{value:.2f}", "black" if value > 0.55 else "white")
        ax.text(j, i, text, ha="center", va="center", color=colour)
    ax.set_xticks(range(len(columns)), columns, rotation=25, ha="right")
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xlabel("tested on")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure.colorbar(image, ax=ax, fraction=0.05, pad=0.02, label="mean Dice")
    return save_figure(figure, path)


@rc_context(LOOK)
def scatter(points: pd.DataFrame, path: str | Path, *, title: str = "") -> Path:
    """CT and MRI of the same places as points joined by lines, without axes: those of an embedding mean nothing.

    ``points`` hold ``x``, ``y`` and ``modality`` (``ct``, ``mr``), the places of both in one order.
    """
    figure, [[ax]] = new_figure(1, 1, width=4.2, height=3.8)
    ct, mr = (points.loc[points["modality"] == name, ["x", "y"]].to_numpy() for name in ("ct", "mr"))
    for a, b in zip(ct, mr):
        ax.plot([a[0], b[0]], [a[1], b[1]], color="0.8", linewidth=0.7, zorder=1)
    for xy, name, colour, marker in zip((ct, mr), ("CT", "MR"), CLASS_COLOURS, "o^"):
        ax.scatter(*xy.T, s=26, color=colour, marker=marker, edgecolors="black", linewidths=0.4, label=name, zorder=2)
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    ax.legend(frameon=True)
    return save_figure(figure, path)
