"""Networks: Eq. 1 of the paper and what stands on it."""

from __future__ import annotations

from .domain_invariance import DomainInvarianceModule, DomainInvarianceOutput
from .encoder import SwinFUSEEncoder
from .heads import ContrastiveHead, DenseHead, InpaintingDecoder, RotationHead
from .merging import LegacyPatchMerging
from .pretrainer import SwinFUSEPretrainer
from .segmentation import SwinFUSE
from .stem import DomainInvariantStem, insert_domain_invariance
from .variants import ReleasedDomainInvarianceModule, build_domain_invariance

__all__ = [
    "ContrastiveHead",
    "DenseHead",
    "DomainInvarianceModule",
    "DomainInvarianceOutput",
    "DomainInvariantStem",
    "InpaintingDecoder",
    "LegacyPatchMerging",
    "ReleasedDomainInvarianceModule",
    "RotationHead",
    "SwinFUSE",
    "SwinFUSEEncoder",
    "SwinFUSEPretrainer",
    "build_domain_invariance",
    "insert_domain_invariance",
]
