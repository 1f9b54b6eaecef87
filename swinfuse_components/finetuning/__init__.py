"""What fine-tuning a segmentation network needs beyond MONAI."""

from .description import GENERIC_DESCRIPTION, read_description, write_description
from .fingerprint import fingerprint
from .inference import FlipAveragingInferer, VolumeTable, list_images
from .metrics import HausdorffDistanceInMillimetres, SurfaceDistanceInMillimetres
from .optimization import EncoderFreezer, layerwise_parameter_groups
from .starting_points import load_starting_point
from .task import mirror_axes, patients_of, regions_of

__all__ = [
    "GENERIC_DESCRIPTION",
    "EncoderFreezer",
    "FlipAveragingInferer",
    "HausdorffDistanceInMillimetres",
    "SurfaceDistanceInMillimetres",
    "VolumeTable",
    "fingerprint",
    "layerwise_parameter_groups",
    "list_images",
    "load_starting_point",
    "mirror_axes",
    "patients_of",
    "read_description",
    "regions_of",
    "write_description",
]
