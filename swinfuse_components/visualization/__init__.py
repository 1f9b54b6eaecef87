"""Figures and reports from arrays and tables; nothing here knows a network."""
