"""Figures and reports from arrays and tables; nothing here knows a network."""

from .plots import heat_map

__all__ = ["heat_map"]
