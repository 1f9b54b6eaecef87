"""Settings of a network that its tensors do not show, from the records that a training leaves beside its weights."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..networks import DomainInvarianceModule, build_domain_invariance
from ..networks.domain_invariance import CoAttentionLayer


def differing_settings(path: Path, network: nn.Module) -> list[str]:
    """How the module of the network differs from the one that the record beside a checkpoint describes.

    A module with another gate, other residuals, or other heads of the same total width has tensors of the same names
    and shapes; it would load without a sign and compute something else. ``configuration.json`` or ``model.json`` in
    the checkpoint's folder are read as data. One text for each setting, none if all agree or nothing is recorded.
    """
    present = next((_settings(m) for m in network.modules() if isinstance(m, DomainInvarianceModule)), None)
    for content in _records(path):
        try:
            with torch.device("meta"):
                module = build_domain_invariance(content["dim"], 1, 16, content.get("dim_options"))
        except (KeyError, TypeError, ValueError):
            continue  # not recorded, or an expression of MONAI's configurations, which is not evaluated here
        if present and isinstance(module, DomainInvarianceModule):
            recorded = _settings(module).items()
            pairs = [(name, value, present[name]) for name, value in recorded if value != present[name]]
            return [f"{name}={theirs!r} in its record, {ours!r} in the network" for name, theirs, ours in pairs]
    return []


def recorded_merging(path: Path) -> str | None:
    """The patch merging (as in ``downsample``) that the record beside a checkpoint names, or None."""
    for content in _records(path):
        options = content.get("network_options")
        merging = content.get("downsample", options.get("downsample") if isinstance(options, Mapping) else None)
        if merging in ("legacy", "merging", "mergingv2"):
            return str(merging)
    return None


def _settings(module: DomainInvarianceModule) -> dict[str, Any]:
    layers = [cast(CoAttentionLayer, layer).attention for layer in cast(nn.ModuleList, module.psi[0])]
    heads, width = [layer.num_heads for layer in layers], layers[0].to_q.out_features
    return {"gate": module.gate, "residual": module.residual, "num_heads": heads, "head_dim": width // heads[0]}


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    """The readable records beside a checkpoint: of pre-training and of fine-tuning."""
    for name in ("configuration.json", "model.json"):
        try:
            content = json.loads(path.with_name(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, Mapping):
            yield content
