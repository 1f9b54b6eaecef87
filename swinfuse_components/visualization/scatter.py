"""Points in a plane, by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .style import CLASS_COLOURS, FONT_SIZE, blank_axes, new_figure, save_figure

MARKERS = ("o", "^", "s", "D")


def scatter(
    groups: Mapping[str, Sequence[tuple[float, float]]],
    path: str | Path,
    *,
    title: str = "",
    links: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
) -> Path:
    """Draw points of each group with a colour and a marker of its own.

    There are no axes: those of an embedding mean nothing.

    Args:
        groups: points (x, y) by name.
        path: PNG to write.
        title: above the figure.
        links: pairs of points joined by a thin line, such as CT and MRI of the same place.

    Returns:
        the path.

    Raises:
        ValueError: if there are no points.
    """
    if not any(groups.values()):
        raise ValueError("a figure of no points: expected at least one")
    figure, [[ax]] = new_figure(1, 1, width=4.2, height=3.8)
    for a, b in links:
        ax.plot([a[0], b[0]], [a[1], b[1]], color="0.8", linewidth=0.7, zorder=1)
    for number, (name, points) in enumerate(groups.items()):
        style = {"color": CLASS_COLOURS[number % len(CLASS_COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        ax.scatter(*zip(*points), s=26, edgecolors="black", linewidths=0.4, label=name, zorder=2, **style)
    blank_axes([ax])
    ax.legend(fontsize=FONT_SIZE, loc="best")
    if title:
        ax.set_title(title, fontsize=FONT_SIZE)
    return save_figure(figure, path)
