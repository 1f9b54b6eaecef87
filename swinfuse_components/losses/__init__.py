"""Losses of pre-training: density matching, contrastive coding, and the whole of Eq. 4."""

from .contrastive import NTXentLoss, gather_batch, intensity_histograms, partner_accuracy
from .density import DensityDivergenceLoss, sample_tokens
from .pretraining import PretrainingLoss

__all__ = [
    "DensityDivergenceLoss",
    "NTXentLoss",
    "PretrainingLoss",
    "gather_batch",
    "intensity_histograms",
    "partner_accuracy",
    "sample_tokens",
]
