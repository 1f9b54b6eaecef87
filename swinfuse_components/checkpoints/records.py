"""Settings of a network that its tensors do not show, from the records that a training leaves beside its weights."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from ..networks import DomainInvarianceModule
from ..networks.domain_invariance import CoAttentionLayer
from ..networks.variants import PAPER_OPTIONS

# written beside the weights: by pre-training the whole configuration, by fine-tuning the model's description
RECORDS = ("configuration.json", "model.json")
_INVISIBLE = ("gate", "residual", "num_heads", "head_dim")


def differing_settings(path: Path, network: nn.Module) -> list[str]:
    """How the module of the network differs from the one that the record beside a checkpoint describes.

    A module with another gate, other residuals, or other heads of the same total width has tensors of the same names
    and shapes; it would load without a sign and compute something else.

    Args:
        path: the checkpoint; ``configuration.json`` or ``model.json`` in its folder are read as data.
        network: the network it is loaded into.

    Returns:
        one text for each setting, empty if all agree or nothing is recorded.
    """
    module = next((each for each in network.modules() if isinstance(each, DomainInvarianceModule)), None)
    recorded = _recorded_settings(path)
    if module is None or recorded is None:
        return []
    layers = [cast(CoAttentionLayer, layer).attention for layer in cast(nn.ModuleList, module.psi[0])]
    present = {
        "gate": module.gate,
        "residual": module.residual,
        "num_heads": [layer.num_heads for layer in layers],
        "head_dim": layers[0].to_q.out_features // layers[0].num_heads,
    }
    return [
        f"{name}={recorded[name]!r} in its record, {present[name]!r} in the network"
        for name in _INVISIBLE
        if recorded[name] != present[name]
    ]


def recorded_merging(path: Path) -> str | None:
    """The patch merging (as in ``downsample``) that the record beside a checkpoint names, or None."""
    for content in _records(path):
        options = content.get("network_options")
        merging = content.get("downsample", options.get("downsample") if isinstance(options, Mapping) else None)
        if merging in ("legacy", "merging", "mergingv2"):
            return str(merging)
    return None


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    """The readable records beside a checkpoint."""
    for name in RECORDS:
        try:
            content = json.loads(path.with_name(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, Mapping):
            yield content


def _recorded_settings(path: Path) -> dict[str, Any] | None:
    """The invisible settings by name; None if no record gives them plainly."""
    for content in _records(path):
        options = content.get("dim_options") or {}
        if content.get("dim") not in ("swinfuse", "paper") or not isinstance(options, Mapping):
            continue
        if any(isinstance(value, str) and value.startswith(("@", "$", "%")) for value in options.values()):
            continue  # a reference or expression of MONAI's configurations, which is not evaluated here
        parameters = inspect.signature(DomainInvarianceModule).parameters
        variant = PAPER_OPTIONS if content["dim"] == "paper" else {}
        settings = {**{key: parameter.default for key, parameter in parameters.items()}, **variant, **options}
        return {key: list(settings[key]) if key == "num_heads" else settings[key] for key in _INVISIBLE}
    return None
