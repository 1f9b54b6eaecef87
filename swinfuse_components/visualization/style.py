"""One look for all figures: fixed class colours, sizes that are legible in print, files written the same way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: colour of a class by its label value, the same in every figure: Okabe and Ito's palette for the colour blind
CLASS_COLOURS = ("#D55E00", "#56B4E9", "#F0E442", "#009E73", "#CC79A7", "#E69F00", "#0072B2", "#999999")
FONT_SIZE = 9.0


def class_colour(value: int) -> str:
    """Colour of a label value; 1 has the first colour, and from the ninth class on they repeat.

    Raises:
        ValueError: for the background.
    """
    if value < 1:
        raise ValueError(f"label value {value} has no colour: expected 1 or more")
    return CLASS_COLOURS[(value - 1) % len(CLASS_COLOURS)]


def new_figure(rows: int, columns: int, *, width: float = 2.2, height: float = 2.2) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a grid of axes, sizes in inches for one of them."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(line) for line in axes]


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 200) -> Path:
    """Write a PNG, its folder made if missing.

    Returns:
        the path.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=dpi, facecolor="white")
    return target


def blank_axes(axes: Sequence[Axes]) -> None:
    """No ticks, no frame: pictures whose axes are neither in millimetres nor in anything else."""
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)
