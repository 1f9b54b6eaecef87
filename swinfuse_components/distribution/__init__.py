"""Bundles on their way to users: self-contained packages, their check, exports and model cards."""
