"""Losses of pre-training: density matching, contrastive coding, and the whole of Eq. 4."""

# ruff: noqa: F401
from .contrastive import NTXentLoss, gather_batch, intensity_histograms, partner_accuracy
from .dense_contrastive import DenseContrastiveLoss
from .density import DensityDivergenceLoss, sample_tokens
from .pretraining import PretrainingLoss
