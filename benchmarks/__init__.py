"""Benchmarks, always beside a reference in the same run: ``python -m benchmarks --help``."""
