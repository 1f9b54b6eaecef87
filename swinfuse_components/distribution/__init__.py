"""Bundles on their way to users: self-contained packages, their check, exports and model cards."""

from swinfuse_components.distribution.checks import check_network, check_package
from swinfuse_components.distribution.exports import export_network, load_exported
from swinfuse_components.distribution.model_card import write_model_card
from swinfuse_components.distribution.package import build_package, save_weights
from swinfuse_components.distribution.vendoring import vendor_library

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
