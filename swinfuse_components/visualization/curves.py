"""Curves of a training, from the CSV it leaves."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from .style import CLASS_COLOURS, FONT_SIZE, new_figure, save_figure

# yellow is hard to see as a line on white
LINE_COLOURS = tuple(colour for colour in CLASS_COLOURS if colour != "#F0E442")


def read_columns(path: str | Path) -> dict[str, list[float]]:
    """Numeric columns of a CSV; empty cells and text are NaN, columns without a number are left out.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    columns: dict[str, list[float]] = {}
    for name in records[0] if records else ():
        values = []
        for record in records:
            try:
                values.append(float(record[name]))
            except (TypeError, ValueError):
                values.append(math.nan)
        if not all(math.isnan(v) for v in values):
            columns[name] = values
    return columns


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: str | Path,
    *,
    title: str = "",
    xlabel: str = "iteration",
    ylabel: str = "loss",
    bounds: Mapping[str, float] | None = None,
) -> Path:
    """Lines over a common axis, undefined points left out.

    Args:
        series: (x, y) by name.
        path: PNG to write.
        title: above the figure.
        xlabel: of the horizontal axis.
        ylabel: of the vertical axis.
        bounds: horizontal dashed lines by name, for a loss's bound.

    Returns:
        the path.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if not series:
        raise ValueError("a figure of no curves: expected at least one")
    figure, [[ax]] = new_figure(1, 1, width=5.2, height=3.2)
    for number, (name, (x, y)) in enumerate(series.items()):
        points = [(a, b) for a, b in zip(x, y) if not (math.isnan(a) or math.isnan(b))]
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        line = "-" if number < len(LINE_COLOURS) else "--"
        marker = "o" if len(points) < 30 else None
        ax.plot(*zip(*points), line, color=colour, label=name, linewidth=1.3, marker=marker, markersize=3)
    for name, value in (bounds or {}).items():
        ax.axhline(value, color="0.5", linestyle=":", linewidth=1)
        ax.text(0.99, value, name, transform=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize=FONT_SIZE - 1)
    ax.set_xlabel(xlabel, fontsize=FONT_SIZE)
    ax.set_ylabel(ylabel, fontsize=FONT_SIZE)
    ax.tick_params(labelsize=FONT_SIZE - 1)
    ax.grid(alpha=0.3)
    if all(float(a).is_integer() for x, _ in series.values() for a in x):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=FONT_SIZE - 1, frameon=False)
    if title:
        ax.set_title(title, fontsize=FONT_SIZE + 1)
    return save_figure(figure, path)
