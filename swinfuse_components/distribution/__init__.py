"""Bundles on their way to users: self-contained packages, their check, exports and model cards."""

from .checks import check_network, check_package
from .exports import export_network, load_exported
from .model_card import write_model_card
from .package import build_package, save_weights
from .vendoring import vendor_library

__all__ = [
    "build_package",
    "check_network",
    "check_package",
    "export_network",
    "load_exported",
    "save_weights",
    "vendor_library",
    "write_model_card",
]
