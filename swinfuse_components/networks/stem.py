"""The domain invariance module behind the stem of any other encoder (the paper's open question on other backbones)."""

from __future__ import annotations

from torch import Tensor, nn

from .domain_invariance import DomainInvarianceOutput


class DomainInvariantStem(nn.Module):
    """A stem (image to embedding (B, C, D', H', W')) followed by a domain invariance module for such embeddings.

    Called with one input (B, channels, D, H, W) it returns the fused embedding, so it stands in for the bare stem.
    Called with two it returns the module's named tuple, for pre-training with two views.
    """

    def __init__(self, stem: nn.Module, domain_invariance: nn.Module) -> None:
        super().__init__()
        self.stem, self.domain_invariance = stem, domain_invariance

    def forward(self, x_i: Tensor, x_j: Tensor | None = None) -> Tensor | DomainInvarianceOutput:
        p_i = self.stem(x_i)
        if x_j is None:
            return self.domain_invariance(p_i, p_i).fused
        return self.domain_invariance(p_i, self.stem(x_j))


def insert_domain_invariance(network: nn.Module, stem: str, domain_invariance: nn.Module) -> DomainInvariantStem:
    """Put a domain invariance module behind one submodule of a network, in place; returns the new stem.

    Args:
        network: any network, for instance MONAI's ``SegResNet``.
        stem: name of the submodule, for instance ``"convInit"`` of ``SegResNet`` or ``"input_block"`` of ``DynUNet``;
            its weights then stand under ``<stem>.stem``, those of the module under ``<stem>.domain_invariance``.
        domain_invariance: the module. Window tokens suit full-resolution stems; plane tokens are for small ones.

    Raises:
        ValueError: the network has no submodule of that name.

    Example:
        >>> from monai.networks.nets import SegResNet
        >>> from swinfuse_components.networks import DomainInvarianceModule, insert_domain_invariance
        >>> net = SegResNet(init_filters=8, out_channels=3)
        >>> stem = insert_domain_invariance(net, "convInit", DomainInvarianceModule(8, tokens="windows"))
    """
    try:
        old = network.get_submodule(stem)
    except AttributeError as error:
        names = [child for child, _ in network.named_children()]
        raise ValueError(f"stem: found {stem!r}, expected a submodule of {type(network).__name__}: {names}") from error
    new = DomainInvariantStem(old, domain_invariance)
    # Networks may hold one module under several names, of which forward uses another one (DynUNet does).
    places = [(parent, name) for parent in network.modules() for name, child in parent._modules.items() if child is old]
    for parent, name in places:
        if parent is not new:
            setattr(parent, name, new)
    return new
