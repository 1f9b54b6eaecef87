"""Weights in and out: read a checkpoint without running code, load it into a network, and say what happened."""

# ruff: noqa: F401
from .loading import load_pretrained, load_weights
from .reading import find_state_dict, read_checkpoint, read_weights, sha256
from .report import CheckpointError, LoadReport, TensorRecord
from .sources import SourceWeights, identify_source
