"""How fast each part of a network learns: layer-wise learning rates, and an encoder that waits for its decoder."""

from __future__ import annotations

import logging
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

__all__ = ["EncoderFreezer", "layerwise_parameter_groups"]

logger = logging.getLogger(__name__)


def _encoder_depth(name: str, num_stages: int) -> int:
    """Depth of a parameter: 0 for the patch embedding and the DIM, i for Swin stage i, ``num_stages + 1`` beyond."""
    if not name.startswith("swinViT."):
        return num_stages + 1
    part = name.split(".")[1]
    for stage in range(1, num_stages + 1):
        if part in (f"layers{stage}", f"layers{stage}c"):
            return stage
    return 0


def layerwise_parameter_groups(
    network: nn.Module, learning_rate: float, decay: float = 1.0, num_stages: int = 4
) -> list[dict[str, Any]]:
    """Parameter groups whose learning rate falls towards the input of the encoder.

    The decoder learns with ``learning_rate``; the last Swin stage with ``learning_rate * decay``, the one before with
    ``decay ** 2``, and the patch embedding and the domain-invariance module with ``decay ** 5`` (four stages). With
    ``decay = 1`` all are equal. Layers close to the input carry what pre-training taught, and change least.

    Args:
        network: a :class:`~swinfuse_components.networks.SwinFUSE` or MONAI ``SwinUNETR`` (encoder named ``swinViT``).
        learning_rate: rate of the decoder.
        decay: factor per depth, in (0, 1].
        num_stages: Swin stages of the encoder.

    Returns:
        groups for any :mod:`torch.optim` optimizer; every parameter is in exactly one of them.

    Raises:
        ValueError: if ``decay`` is outside (0, 1].

    Example::

        optimizer = torch.optim.AdamW(layerwise_parameter_groups(network, 1e-4, decay=0.75), weight_decay=1e-5)
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must lie in (0, 1], got {decay}")
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        groups.setdefault(_encoder_depth(name, num_stages), []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rate * decay ** (num_stages + 1 - depth)}
        for depth, parameters in sorted(groups.items())
    ]


class EncoderFreezer:
    """Handler that keeps the encoder fixed while the randomly initialised decoder finds its feet.

    A decoder without weights sends large, meaningless gradients into a pre-trained encoder during the first epochs.
    From the start of training until the end of epoch ``epochs`` the parameters of the encoder take no gradient.

    Args:
        network: network whose attribute ``encoder`` is frozen.
        epochs: number of epochs to freeze for; 0 never freezes, ``None`` freezes for the whole training (with a
            randomly initialised encoder this is the "frozen random encoder" baseline).
        encoder: name of the attribute.
        trainable: names of sub-modules of the encoder that learn all the same (``["domain_invariance"]``).
    """

    def __init__(
        self,
        network: nn.Module,
        epochs: int | None,
        encoder: str = "swinViT",
        trainable: tuple[str, ...] | list[str] = (),
    ) -> None:
        module = getattr(network, "module", network)  # behind DistributedDataParallel
        if not isinstance(getattr(module, encoder, None), nn.Module):
            raise ValueError(f"{type(module).__name__} has no module named '{encoder}' to freeze")
        self.encoder: nn.Module = getattr(module, encoder)
        self.epochs = epochs
        self.trainable = tuple(trainable)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        if self.epochs == 0:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Freeze or release for the epoch that starts; asked anew each epoch, so a resumed run does the right thing."""
        frozen = self.epochs is None or engine.state.epoch <= self.epochs
        changed = False
        for name, parameter in self.encoder.named_parameters():
            wanted = not frozen or name.split(".")[0] in self.trainable
            changed |= parameter.requires_grad != wanted
            parameter.requires_grad_(wanted)
            if not wanted:
                parameter.grad = None  # an optimizer would go on stepping on a stale gradient
        if changed:
            logger.info("epoch %d: encoder %s", engine.state.epoch, "frozen" if frozen else "released")
