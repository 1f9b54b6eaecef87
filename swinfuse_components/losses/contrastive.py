"""Contrastive loss between two views (NT-Xent), and how often the partner is found."""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class NTXentLoss(nn.Module):
    r"""Contrastive loss of Chen et al., "A simple framework for contrastive learning" (ICML 2020), Eq. 1.

    Row ``n`` of both inputs comes from two views of one sub-volume. For each of the 2B embeddings, the other view is
    to be told from the 2B - 2 embeddings of other sub-volumes:

    .. math:: \ell = -\log \frac{\exp(\cos(z, z^+) / \tau)}{\sum_{k \ne z} \exp(\cos(z, z_k) / \tau)}

    averaged over all 2B. With embeddings that are all equal it is ln(2B - 1): a loss that stays there has collapsed.
    A batch of one has no negative and gives zero.

    MONAI's ``ContrastiveLoss`` has the same formula, but overflows at low temperature and in half precision, and sees
    the negatives of its own rank only.

    Args:
        temperature: :math:`\tau`, 0.5 in the paper's pre-training.
        gather_distributed: with an initialised process group, take the negatives from all ranks. Every rank then
            returns the loss of the joined batch, whose sizes may differ between ranks. The gradient of a rank's
            embeddings sums what all ranks contribute, so that the mean over ranks that DistributedDataParallel takes
            is the gradient of the joined batch. Without a process group it does nothing.

    Shape:
        z_i and z_j are (B, d), any B >= 1; the result is a scalar. Lower precisions are raised to float32, also under
        autocast; float64 stays.

    Raises:
        ValueError: temperature not positive, or inputs that are not two (B, d) of one shape.

    Example::

        >>> import torch
        >>> from swinfuse_components.losses import NTXentLoss
        >>> z = torch.eye(4)
        >>> round(float(NTXentLoss(temperature=0.01)(z, z)), 4)
        0.0
        >>> collapsed = torch.ones(4, 8)
        >>> round(float(NTXentLoss()(collapsed, collapsed).exp()), 4)
        7.0
    """

    def __init__(self, temperature: float = 0.5, gather_distributed: bool = False) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = float(temperature)
        self.gather_distributed = gather_distributed

    @property
    def ranks(self) -> int:
        """Number of ranks whose embeddings are compared: 1 unless they are gathered."""
        gathers = self.gather_distributed and dist.is_available() and dist.is_initialized()
        return dist.get_world_size() if gathers else 1

    def forward(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        _check_embeddings(z_i, z_j)
        with torch.autocast(z_i.device.type, enabled=False):
            z_i, z_j = _unit_length(z_i), _unit_length(z_j)
            if self.ranks > 1:
                z_i, z_j = gather_batch(torch.stack((z_i, z_j), dim=1)).unbind(1)
            if len(z_i) == 1:
                return (z_i + z_j).sum() * 0.0
            cosines, partner = _cosines(z_i, z_j)
            return F.cross_entropy(cosines / self.temperature, partner)


@torch.no_grad()
def partner_accuracy(z_i: Tensor, z_j: Tensor) -> Tensor:
    """How often the most similar of the other 2B - 1 embeddings is that of the same sub-volume's other view.

    Two (B, d), rows of one index from one sub-volume, to a scalar. Chance is 1 / (2B - 1).
    """
    _check_embeddings(z_i, z_j)
    with torch.autocast(z_i.device.type, enabled=False):
        cosines, partner = _cosines(_unit_length(z_i), _unit_length(z_j))
    return (cosines.argmax(1) == partner).float().mean()


@torch.no_grad()
def intensity_histograms(views: Tensor, bins: int = 32) -> Tensor:
    """Embeddings that know nothing but intensities: (B, C, D, H, W) in [0, 1] to (B, ``bins``), of unit length.

    They are roots of histograms, so that their cosine is the Bhattacharyya coefficient; one voxel in eight is counted.
    Where they find the partner (:func:`partner_accuracy`), the contrastive task asks for nothing but intensities.
    """
    values = views.as_subclass(Tensor).flatten(1)[:, ::8].float().nan_to_num()
    places = (values * bins).long().clamp_(0, bins - 1) + bins * torch.arange(len(views), device=views.device)[:, None]
    counts = torch.bincount(places.flatten(), minlength=bins * len(views)).view(len(views), bins)
    return (counts / values.shape[1]).sqrt()


def _check_embeddings(z_i: Tensor, z_j: Tensor) -> None:
    if z_i.ndim != 2 or z_i.shape != z_j.shape or len(z_i) == 0:
        raise ValueError(f"embeddings must be two (B, d) of one shape, got {tuple(z_i.shape)}, {tuple(z_j.shape)}")


def _cosines(z_i: Tensor, z_j: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of all pairs (2B, 2B), -inf for a view with itself, and the index of each view's partner."""
    embeddings = torch.cat((z_i, z_j))
    cosines = embeddings @ embeddings.T
    cosines.fill_diagonal_(-math.inf)
    return cosines, torch.arange(len(embeddings), device=cosines.device).roll(len(z_i))


def gather_batch(x: Tensor) -> Tensor:
    """Joins the first axis over all ranks, in their order and with gradients; shorter batches travel padded."""
    length = torch.tensor([len(x)], device=x.device)
    lengths = [torch.zeros_like(length) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, length)
    counts = [int(n) for n in lengths]
    padding = [0, 0] * (x.ndim - 1) + [0, max(counts) - len(x)]
    gathered = _AllGather.apply(F.pad(x, padding))
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])


class _AllGather(torch.autograd.Function):
    """``all_gather`` with a gradient: each rank gets the sum of what all ranks have for its part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """x of every rank, stacked on a new first axis."""
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.stack(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """The gradient of this rank's x."""
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[dist.get_rank()]


def _unit_length(z: Tensor) -> Tensor:
    # the floor keeps the gradient of an embedding that is exactly zero at a sane size
    return F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1, eps=1e-6)
