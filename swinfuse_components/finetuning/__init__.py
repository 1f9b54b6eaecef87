"""What fine-tuning a segmentation network needs beyond MONAI."""

from .adaptation import AdaptingInferer
from .backends import OpenVINONetwork
from .description import (
    GENERIC_DESCRIPTION,
    build_network,
    build_preprocessing,
    check_regions,
    labels_of_regions,
    patients_of,
    read_description,
    regions_of,
)
from .ensembles import common_description, load_ensemble, require_unseen
from .fingerprint import fingerprint
from .inference import FlipAveragingInferer, VolumeTable
from .laterality import mirror_axes
from .precision import PrecisionInferer
from .training import (
    EncoderFreezer,
    dice_of_regions,
    layerwise_parameter_groups,
    load_starting_point,
    pretraining_patients,
)

__all__ = [
    "GENERIC_DESCRIPTION",
    "AdaptingInferer",
    "EncoderFreezer",
    "FlipAveragingInferer",
    "OpenVINONetwork",
    "PrecisionInferer",
    "VolumeTable",
    "build_network",
    "build_preprocessing",
    "check_regions",
    "common_description",
    "dice_of_regions",
    "fingerprint",
    "labels_of_regions",
    "layerwise_parameter_groups",
    "load_ensemble",
    "load_starting_point",
    "mirror_axes",
    "patients_of",
    "pretraining_patients",
    "read_description",
    "regions_of",
    "require_unseen",
]
