"""What fine-tuning a segmentation network needs beyond MONAI."""

# ruff: noqa: F401, I001
from .adaptation import AdaptingInferer
from .backends import OpenVINONetwork
from .description import GENERIC_DESCRIPTION, build_network, build_preprocessing, check_regions, labels_of_regions
from .description import patients_of, read_description, regions_of
from .ensembles import common_description, load_ensemble, require_unseen
from .fingerprint import fingerprint
from .inference import FlipAveragingInferer, VolumeTable
from .laterality import mirror_axes
from .precision import PrecisionInferer
from .training import EncoderFreezer, dice_of_regions, layerwise_parameter_groups, load_starting_point
from .training import pretraining_patients
