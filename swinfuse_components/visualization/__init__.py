"""Figures and reports from arrays and tables; nothing here knows a network."""

from .heat_map import heat_map
from .style import CLASS_COLOURS, class_colour

__all__ = ["CLASS_COLOURS", "class_colour", "heat_map"]
