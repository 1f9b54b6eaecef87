"""Figures and reports from arrays and tables; nothing here knows a network."""

# ruff: noqa: F401
from .plots import heat_map
