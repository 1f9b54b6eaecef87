"""Weights in and out: read a checkpoint without running code, load it into a network, and say what happened."""

from .digest import sha256
from .errors import CheckpointError
from .loading import load_pretrained
from .names import SourceWeights, identify_source
from .reading import find_state_dict, read_checkpoint
from .report import LoadReport, TensorRecord

__all__ = [
    "CheckpointError",
    "LoadReport",
    "SourceWeights",
    "TensorRecord",
    "find_state_dict",
    "identify_source",
    "load_pretrained",
    "read_checkpoint",
    "sha256",
]
