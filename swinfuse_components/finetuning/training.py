"""Where fine-tuning starts from, how fast each part of the network learns, and a metric for each region."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import MeanDice
from torch import nn

from ..checkpoints import LoadReport, load_pretrained
from ..data.paths import read_json

logger = logging.getLogger(__name__)


def load_starting_point(
    network: nn.Module, start: str, checkpoints: Mapping[str, str | os.PathLike[str]]
) -> LoadReport | None:
    """Initialise ``network`` from ``start`` and log what was loaded.

    ``start`` is ``"scratch"``, which leaves the random weights, or a key of ``checkpoints``, e.g. ``{"pretrained":
    "…/model.pt", "swin_unetr_ct": "…"}``.

    Raises:
        ValueError: for an unknown ``start``.
        FileNotFoundError: if its checkpoint does not exist. Training never falls back to random weights.
    """
    if start == "scratch":
        logger.info("start=scratch: random weights")
        return None
    if start not in checkpoints:
        raise ValueError(f"start={start!r} is unknown, expected one of {['scratch', *checkpoints]}")
    path = Path(checkpoints[start])
    if not path.is_file():
        raise FileNotFoundError(f"start={start!r}: no checkpoint at {path}")
    has_dim = getattr(getattr(network, "swinViT", None), "domain_invariance", None) is not None
    # Swin UNETR's own weights know no domain-invariance module: it starts at random, close to the identity
    part = "encoder" if has_dim and start != "swin_unetr_ct" else "swin"
    logger.info("start=%s: loading the part '%s' of %s", start, part, path)
    return load_pretrained(network, path, part=part)


def pretraining_patients(checkpoint: str | os.PathLike[str]) -> list[str]:
    """Patients that a pre-training has seen, from the ``patients.json`` in the folder of its checkpoint.

    They must not be tested on either. Without the file the list is empty, and the log says so; another one is an error.
    """
    path = Path(checkpoint).parent / "patients.json"
    if not path.is_file():
        logger.warning("%s does not exist: it is not known which patients the pre-training has seen", path)
        return []
    training = read_json(path).get("training")
    if not isinstance(training, list):
        raise ValueError(f"{path} has no list 'training', which says what patients the pre-training has seen")
    return sorted(map(str, training))


def layerwise_parameter_groups(network: nn.Module, learning_rate: float, decay: float = 1.0) -> list[dict[str, Any]]:
    """Parameter groups whose learning rate falls towards the input of the encoder.

    The decoder learns with ``learning_rate``; the last of the four Swin stages with ``learning_rate * decay``, the one
    before with ``decay ** 2``, and the patch embedding and the domain-invariance module with ``decay ** 5``. Layers
    close to the input carry what pre-training taught, and change least.

    Every parameter is in exactly one group. ``learning_rate`` is that of the decoder, ``decay`` the factor per depth.

    Raises:
        ValueError: if ``decay`` is outside (0, 1].
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must lie in (0, 1], got {decay}")
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        stage = re.match(r"swinViT\.layers(\d)c?\.", name)
        depth = int(stage[1]) if stage else 0 if name.startswith("swinViT.") else 5
        groups.setdefault(depth, []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rate * decay ** (5 - depth)}
        for depth, parameters in sorted(groups.items())
    ]


class EncoderFreezer:
    """Handler that keeps the encoder fixed during the first epochs, while the decoder's weights are random.

    A decoder without weights sends large, meaningless gradients into a pre-trained encoder (``swinViT``). 0 ``epochs``
    never freeze, ``None`` freezes for the whole training (with random weights the "frozen random encoder" baseline).

    Raises:
        ValueError: if the network has no such encoder.
    """

    def __init__(self, network: nn.Module, epochs: int | None) -> None:
        encoder = getattr(network, "swinViT", None)
        if not isinstance(encoder, nn.Module):
            raise ValueError(f"{type(network).__name__} has no module named 'swinViT' to freeze")
        self.encoder, self.epochs = encoder, epochs

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        if self.epochs != 0:
            engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Freeze or release for the epoch that starts; asked anew each epoch, so a resumed run does the right thing."""
        frozen = self.epochs is None or engine.state.epoch <= self.epochs
        if any(parameter.requires_grad == frozen for parameter in self.encoder.parameters()):
            self.encoder.requires_grad_(not frozen)
            logger.info("epoch %d: encoder %s", engine.state.epoch, "frozen" if frozen else "released")
        if frozen:
            self.encoder.zero_grad()  # an optimizer would go on stepping on a stale gradient


def dice_of_regions(regions: Iterable[str]) -> dict[str, MeanDice]:
    """``{"val_dice_<region>": metric}`` in the order of the channels of ``pred`` and ``label``: numbers, not a vector.

    What trackers refuse in a name becomes an underscore.
    """

    def channel(number: int) -> Callable[[Any], tuple[list[torch.Tensor], ...]]:
        return lambda output: tuple([item[key][number : number + 1] for item in output] for key in ("pred", "label"))

    return {
        "val_dice_" + re.sub(r"[^\w. -]", "_", name): MeanDice(output_transform=channel(number))
        for number, name in enumerate(regions)
    }
