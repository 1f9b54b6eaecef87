"""Bundles on their way to users: self-contained packages, their check, exports and model cards."""

# ruff: noqa: F401
from .checks import check_network, check_package
from .exports import export_network, load_exported
from .model_card import write_model_card
from .package import build_package, save_weights
from .vendoring import vendor_library
