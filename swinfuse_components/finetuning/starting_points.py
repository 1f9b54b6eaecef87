"""Where fine-tuning starts from, by one word."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..checkpoints import load_pretrained

__all__ = ["load_starting_point", "pretraining_patients"]

logger = logging.getLogger(__name__)


def load_starting_point(
    network: nn.Module, start: str, checkpoints: Mapping[str, str | os.PathLike[str]], **options: Any
) -> Any:
    """Initialise ``network`` from ``start`` and log what was loaded.

    Args:
        network: segmentation network, already built.
        start: ``"scratch"`` leaves the random weights; any other word is a key of ``checkpoints``.
        checkpoints: file of each starting point, e.g. ``{"pretrained": "…/model.pt", "swin_unetr_ct": "…"}``.
        options: further arguments of :func:`~swinfuse_components.checkpoints.load_pretrained`.

    Returns:
        the report of :func:`~swinfuse_components.checkpoints.load_pretrained`, ``None`` for ``"scratch"``.

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
    return load_pretrained(network, path, **{"part": part, **options})


def pretraining_patients(checkpoint: str | os.PathLike[str]) -> list[str]:
    """Patients that a pre-training has seen, from the ``patients.json`` in the folder of its checkpoint.

    They must not be tested on either. Without the file the list is empty, and the log says so.
    """
    path = Path(checkpoint).parent / "patients.json"
    if not path.is_file():
        logger.warning("%s does not exist: it is not known which patients the pre-training has seen", path)
        return []
    return sorted(str(patient) for patient in json.loads(path.read_text(encoding="utf-8"))["training"])
