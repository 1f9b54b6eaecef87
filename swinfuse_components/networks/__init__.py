"""Networks: Eq. 1 of the paper and what stands on it."""

# ruff: noqa: F401
from .domain_invariance import DomainInvarianceModule, DomainInvarianceOutput
from .encoder import SwinFUSEEncoder
from .heads import DenseHead, InpaintingDecoder, PooledHead
from .merging import LegacyPatchMerging
from .pretrainer import SwinFUSEPretrainer
from .segmentation import SwinFUSE
from .variants import ReleasedDomainInvarianceModule, build_domain_invariance
