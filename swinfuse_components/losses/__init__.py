"""Losses of pre-training: density matching, contrastive coding, and the whole of Eq. 4."""

from swinfuse_components.losses.contrastive import NTXentLoss, gather_batch
from swinfuse_components.losses.density import DensityDivergenceLoss, sample_tokens
from swinfuse_components.losses.pretraining import PretrainingLoss

__all__ = ["DensityDivergenceLoss", "NTXentLoss", "PretrainingLoss", "gather_batch", "sample_tokens"]
