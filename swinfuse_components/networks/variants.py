"""The named variants of the domain invariance module, as a configuration chooses them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from .domain_invariance import DomainInvarianceModule, DomainInvarianceOutput

VARIANTS = ("swinfuse", "paper", "released", "none")
# Eq. 1 to the letter: the product with the embedding, a Psi for each stream, nothing else inside the stack.
PAPER_OPTIONS = {"tokens": "planes", "gate": "product", "shared": False, "residual": False, "normalize": False}


def build_domain_invariance(
    variant: str, embed_dim: int, embedding_size: Sequence[int] | int, options: Mapping[str, Any] | None = None
) -> nn.Module | None:
    """A domain invariance module by its name, or None for ``"none"``.

    ``variant`` is ``"swinfuse"`` (this project's default: plane tokens, a bounded gate that starts at the identity, one
    shared Psi, residual and pre-norm), ``"paper"`` (Eq. 1 to the letter), ``"released"`` (as the authors' published
    code) or ``"none"``; ``options`` override those of the variant, see :class:`DomainInvarianceModule`.

    Raises:
        ValueError: unknown variant, or options given for ``"none"``.
    """
    options = dict(options or {})
    if variant == "none":
        if options:
            raise ValueError(f"dim_options: found {sorted(options)}, expected none with dim='none'")
        return None
    if variant == "swinfuse":
        return DomainInvarianceModule(embed_dim, embedding_size, **options)
    if variant == "paper":
        return DomainInvarianceModule(embed_dim, embedding_size, **{**PAPER_OPTIONS, **options})
    if variant == "released":
        return ReleasedDomainInvarianceModule(embed_dim, embedding_size, **options)
    raise ValueError(f"dim: found {variant!r}, expected one of {VARIANTS}")


class ReleasedDomainInvarianceModule(nn.Module):
    """Two ``torch.nn.MultiheadAttention`` on planes of the embedding, as published at github.com/devalab/SwinFUSE.

    It differs from Eq. 1 of the paper, and is kept to compare with, defects included:

    - the planes stand on the batch axis and the batch on the sequence axis, so attention runs across the samples
      of a batch; at batch size 1 the softmax has one key only, its weight is 1, the output is a linear map of the
      input, and the query and key projections get exactly zero gradient;
    - the product with the embedding is missing: the mean of the two attention outputs replaces the embedding;
    - it has one layer with ``num_heads`` heads where the paper has four of 3, 6, 12 and 24;
    - in the published network both inputs are the same tensor (use ``mode="self"`` of the pre-training network).

    ``embedding_size`` is (D, H, W) of the embeddings, or one number for a cube; H * W is the dimension of the tokens
    (2304 at 96 cubed, where the module has 42.5 million parameters), which ``num_heads`` has to divide.
    """

    def __init__(self, embed_dim: int, embedding_size: Sequence[int] | int, *, num_heads: int = 3) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.embedding_size = ensure_tuple_rep(embedding_size, 3)
        self.token_dim = self.embedding_size[1] * self.embedding_size[2]
        if self.token_dim % num_heads:
            raise ValueError(
                f"num_heads: found {num_heads}, expected a divisor of the token dimension H * W = {self.token_dim}"
            )
        self.mh1 = nn.MultiheadAttention(self.token_dim, num_heads)
        self.mh2 = nn.MultiheadAttention(self.token_dim, num_heads)

    def forward(self, p_i: Tensor, p_j: Tensor) -> DomainInvarianceOutput:
        """Two embeddings (B, C, D, H, W) to their attention outputs and the mean of these, of the same shape."""
        expected = (self.embed_dim, *self.embedding_size)
        for name, p in (("p_i", p_i), ("p_j", p_j)):
            if not torch.jit.is_tracing() and tuple(p.shape[1:]) != expected:
                raise ValueError(f"{name}: found shape {tuple(p.shape)}, expected (B, {', '.join(map(str, expected))})")
        x_i, x_j = p_i.flatten(3).flatten(1, 2), p_j.flatten(3).flatten(1, 2)
        # No batch_first: the first axis, the samples, is taken for the sequence. This is the published behaviour.
        y_i, _ = self.mh1(x_j, x_i, x_i)
        y_j, _ = self.mh2(x_i, x_j, x_j)
        stream_i, stream_j = y_i.reshape(p_i.shape), y_j.reshape(p_j.shape)
        return DomainInvarianceOutput((stream_i + stream_j) / 2, stream_i, stream_j)
