"""What is known of a checkpoint: its kind by its keys, and its network by the record that a training leaves beside it.

The common naming is that of MONAI's ``SwinUNETR`` and this project's networks: the encoder under ``swinViT.``, its
domain invariance module under ``swinViT.domain_invariance.``, decoders and heads beside it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..networks import DomainInvarianceModule, build_domain_invariance
from ..networks.domain_invariance import CoAttentionLayer

ENCODER = "swinViT."
DIM = ENCODER + "domain_invariance."
# residual convolutions of `use_v2`
V2_CONVOLUTION = re.compile(re.escape(ENCODER) + r"layers\dc\.")
# what DistributedDataParallel, torch.compile, Fabric, FSDP and activation checkpointing put into names, at any place
_WRAPPERS = re.compile(r"(?<![^.])(module|_orig_mod|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_FIRST = "patch_embed.proj.weight"

# The convolutions of Swin UNETR's inpainting decoder stand at every fourth place of one nn.Sequential, because
# normalisation, activation and upsampling have no weights.
_DECODER = {f"conv.{4 * block}.": f"decoder.blocks.{block}.0." for block in range(5)} | {"conv.20.": "decoder.out."}


class SourceWeights(NamedTuple):
    """Weights under the common names, and what is known of where they come from.

    ``description`` is the kind of checkpoint; ``tensors`` and ``original`` lead from the common name to the tensor and
    to the name in the file. ``merging`` is ``"legacy"`` where this kind is known to have been trained with the patch
    merging of MONAI before 1.5, ``"unknown"`` where there are well-known files of both kinds, None for networks of this
    project. ``notes`` are what a user of these weights should know.
    """

    description: str
    tensors: dict[str, Tensor]
    original: dict[str, str]
    merging: str | None
    notes: tuple[str, ...]


def identify_source(state_dict: Mapping[str, Tensor]) -> SourceWeights:
    """Recognise a checkpoint by its keys and give its weights the common names.

    Known kinds, by their keys:

    - this project's networks: ``swinViT.…``, with ``swinViT.domain_invariance.…`` or the heads of pre-training;
    - Swin UNETR's self-supervised weights (``model_swinvit.pt``): ``module.patch_embed…``, ``module.layers1…``, MLPs
      called ``fc1`` and ``fc2``, or with its heads: ``swinViT.…``, ``rotation_head.…``, ``conv.…``;
    - MONAI's ``ssl_pretrained_weights.pth`` (disruptive autoencoders): ``encoder.patch_embed…``,
      ``encoder.layers1.0.0.blocks…``;
    - the SwinFUSE authors' published code: ``module.swinViT.…`` with ``mh1`` and ``mh2``;
    - a Swin UNETR segmentation network: ``swinViT.…``, ``encoder1…``, ``decoder1…``, ``out…``;
    - a bare Swin encoder: ``patch_embed…``, ``layers1…``.

    What wrappers and training frameworks put in front of all names (``module.``, Lightning's ``model.`` or ``net.``,
    Fabric's, FSDP's) is taken off, whatever it is.
    ValueError if no key belongs to a Swin encoder, or there are several encoders; names what was found.
    """
    plain = _without_prefix({_WRAPPERS.sub("", key): key for key in state_dict})
    roots = {key.partition(".")[0] for key in plain}
    notes: list[str] = []
    merging: str | None = None
    if any(key.startswith("encoder.patch_embed.") for key in plain):
        description, merging = "MONAI ssl_pretrained_weights (disruptive autoencoders)", "legacy"
    elif roots & {"mh1"} or any(".mh1." in key for key in plain):
        description, merging = "SwinFUSE authors' code", "legacy"
        notes.append("its module has no product with the embedding and attends across the batch: use dim='released'")
    elif "patch_embed" in roots:
        kinds = ("bare Swin encoder", "unknown"), ("Swin UNETR self-supervised weights (model_swinvit)", "legacy")
        description, merging = kinds[any(key.startswith("module.") for key in state_dict)]
    elif "rotation_head.weight" in plain:
        description, merging = "Swin UNETR self-supervised weights with heads", "legacy"
    elif "rotation_head" in roots:
        description = "SwinFUSE pre-training network"
    elif any(".domain_invariance." in key for key in plain):
        description = "SwinFUSE segmentation network"
    else:
        description, merging = "Swin UNETR segmentation network", "unknown"
    if "rotation_head.weight" in plain:
        notes.append("its rotation and contrastive heads read one corner token, here they read the mean of all")

    tensors: dict[str, Tensor] = {}
    original: dict[str, str] = {}
    for key, file_key in plain.items():
        name = _common_name(key)
        tensors[name], original[name] = state_dict[file_key], file_key
    if ENCODER + _FIRST not in tensors:
        found = ", ".join(list(state_dict)[:5])
        raise ValueError(
            f"no Swin encoder among its {len(state_dict)} tensors: found {found}, …; "
            f"expected a name that ends in {_FIRST!r}"
        )
    return SourceWeights(description, tensors, original, merging, tuple(notes))


def _without_prefix(keys: Mapping[str, str]) -> dict[str, str]:
    """Keys without what stands in front of the encoder's names in all of the network's."""
    before = {re.sub(r"(swinViT|swin_vit|encoder)\.$", "", k.removesuffix(_FIRST)) for k in keys if k.endswith(_FIRST)}
    if len(before) > 1:
        raise ValueError(
            f"holds several Swin encoders, under {', '.join(sorted(map(repr, before)))}: save the weights of one alone"
        )
    prefix = next(iter(before), "")
    return {key.removeprefix(prefix): name for key, name in keys.items()}


def _common_name(key: str) -> str:
    if key.startswith("encoder."):
        # MONAI's file nests each stage once more: encoder.layers1.0.0.blocks…
        key = ENCODER + re.sub(r"^encoder\.(layers\d\.0)\.0\.", r"\1.", key).removeprefix("encoder.")
    elif key.startswith("swin_vit."):
        key = ENCODER + key.removeprefix("swin_vit.")
    elif key.startswith(("patch_embed.", "layers", "mh1.", "mh2.", "norm.", "mask_token", "domain_invariance.")):
        key = ENCODER + key
    key = re.sub(r"\.mlp\.fc([12])\.", r".mlp.linear\1.", key)
    key = re.sub(r"^swinViT\.(mh[12])\.", rf"{DIM}\1.", key)
    key = re.sub(r"^(rotation|contrastive)_head\.(weight|bias)$", r"\1_head.2.\2", key)
    for theirs, ours in _DECODER.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


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
