"""The named variants of the domain invariance module, as a configuration chooses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from .domain_invariance import DomainInvarianceModule
from .released import ReleasedDomainInvarianceModule

VARIANTS = ("swinfuse", "paper", "released", "none")
# Eq. 1 to the letter: the product with the embedding, a Psi for each stream, nothing else inside the stack.
PAPER_OPTIONS = {"tokens": "planes", "gate": "product", "shared": False, "residual": False, "normalize": False}


def build_domain_invariance(
    variant: str,
    embed_dim: int,
    embedding_size: Sequence[int] | int | None,
    options: Mapping[str, Any] | None = None,
) -> nn.Module | None:
    """Build a domain invariance module by its name.

    Args:
        variant: ``"swinfuse"`` (this project's default: plane tokens, a bounded gate that starts at the identity, one
            shared Psi, residual and pre-norm), ``"paper"`` (Eq. 1 to the letter), ``"released"`` (as the authors'
            published code) or ``"none"``.
        embed_dim: channels of the embeddings.
        embedding_size: spatial size of the embeddings, see :class:`DomainInvarianceModule`.
        options: further arguments of the module; they override those of the variant.

    Returns:
        The module, or None for ``"none"``.

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
        if embedding_size is None:
            raise ValueError("embedding_size: found None, expected (D, H, W) for the released variant")
        return ReleasedDomainInvarianceModule(embed_dim, embedding_size, **options)
    raise ValueError(f"dim: found {variant!r}, expected one of {VARIANTS}")
