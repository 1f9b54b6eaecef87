"""Load the weights of a checkpoint into a network, whoever wrote it, and report on every tensor."""

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, cast

import torch
from monai.networks.nets.swin_unetr import PatchMerging, PatchMergingV2, SwinTransformer
from torch import Tensor, nn

from ..networks import LegacyPatchMerging
from .reading import read_weights
from .report import ADAPTED, KEPT, LEFT, LOADED, MISMATCH, MISSING, CheckpointError, LoadReport, TensorRecord
from .sources import DIM, ENCODER, V2_CONVOLUTION, SourceWeights, differing_settings, identify_source, recorded_merging

PARTS = ("encoder", "swin", "all")
MERGINGS = ("auto", "legacy", "current")
# Convolutions that read the image, and can be given another number of input channels.
_IMAGE_CONVOLUTIONS = (
    ENCODER + "patch_embed.proj.weight",
    "encoder1.layer.conv1.conv.weight",
    "encoder1.layer.conv3.conv.weight",
)
# Buffers that follow from the architecture alone.
_DERIVED = ("relative_position_index", "num_batches_tracked")
_MERGING_NAMES = {LegacyPatchMerging: "legacy", PatchMerging: "merging", PatchMergingV2: "mergingv2"}

logger = logging.getLogger(__name__)
NetworkT = TypeVar("NetworkT", bound=nn.Module)


def load_pretrained(
    network: nn.Module,
    path: str | os.PathLike[str],
    *,
    part: str = "encoder",
    allow_partial: bool = False,
    merging: str = "auto",
) -> LoadReport:
    """Load pre-trained weights into a network, in place; all that was asked for, or nothing and an error.

    The kind of checkpoint is recognised by its keys (:func:`identify_source` lists them). Where the number of input
    channels differs, the convolutions that read the image are adapted so that channels which are all equal give the
    same embedding: one channel to n divides its weights by n; n channels to one takes n times their average.

    Args:
        network: ``SwinFUSE``, MONAI's ``SwinUNETR``, ``SwinFUSEPretrainer``, or a bare ``SwinTransformer``; may be
            wrapped by DistributedDataParallel or ``torch.compile``.
        path: checkpoint file; read without running code from it (:func:`read_checkpoint`).
        part: ``"encoder"``: the Swin encoder with its domain invariance module; decoders and heads keep their
            values. ``"swin"``: the encoder without that module, for weights that have none, or to leave theirs.
            ``"all"``: the whole network, to continue a pre-training with its heads, or to start from a segmentation.
        allow_partial: accept that some of that part is missing in the file or has another shape; the network's own
            values then stay there, and the report names them. Half of the part's tensors have to fit all the same.
        merging: the patch merging with which the weights were trained: ``"legacy"`` (MONAI before 1.5), ``"current"``,
            or ``"auto"``: by the kind of checkpoint. Weights of one merging load into the other without a sign and
            compute something else, so a stated or recorded merging that is not the network's is an error, and one that
            the kind of checkpoint suggests, or leaves open, a warning. ``downsample="legacy"`` builds the old one.

    Returns:
        the report, which is also logged: a table, one line for each group of tensors (``report.table()``: each tensor).

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: the file cannot be read safely, or does not fit. The message names file and tensors, what was
            found and what was expected; the network is unchanged.
        ValueError: unknown ``part`` or ``merging``, or a network without a Swin encoder.
    """
    for name, value, known in (("part", part, PARTS), ("merging", merging, MERGINGS)):
        if value not in known:
            raise ValueError(f"{name}: found {value!r}, expected one of {known}")
    targets = _targets(network)
    weights = read_weights(path)
    try:
        source = identify_source(weights)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    report = LoadReport(str(path), source.description, part, notes=list(source.notes))
    values = _match(targets, source, report)
    problem = (
        (part != "swin" and _other_module(network, targets, source, Path(path)))
        or _forgotten_modules(targets, source, report, allow_partial)
        or _gaps(report, allow_partial)
        or _not_finite({source.original[name]: value for name, value in values.items()})
        or _other_merging(network, source, merging, report)
    )
    if problem:
        raise CheckpointError(f"{path}: {problem}", report)
    with torch.no_grad():
        for name, tensor in values.items():
            targets[name].copy_(tensor)
    logger.log(logging.WARNING if report.warnings else logging.INFO, "%s", report)
    logger.debug("%s", report.table())
    return report


def load_weights(network: NetworkT, path: str | os.PathLike[str]) -> NetworkT:
    """Load what this very network was saved as, every tensor of it, and return the network.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: it cannot be read safely, or a tensor is missing, left over, of another shape, or holds NaN or
            infinity. The network is unchanged.
    """
    plain = _unwrapped(network)
    weights = read_weights(path)
    theirs, ours = ({n: tuple(v.shape) for n, v in each.items()} for each in (weights, plain.state_dict()))
    gaps = [
        f"{name}: file {theirs.get(name, 'has none')}, network {ours.get(name, 'has none')}"
        for name in ours | theirs
        if theirs.get(name) != ours.get(name)
    ]
    if gaps:
        found, wanted = (shapes.get("dense_head.projections.0.2.weight", (0,))[0] for shapes in (theirs, ours))
        dense = "" if found == wanted else f" (dense_size: file {found}, network {wanted})"
        raise CheckpointError(f"{path} does not fit the network in {len(gaps)} of its tensors{dense}: {_some(gaps)}")
    if problem := _not_finite(weights):
        raise CheckpointError(f"{path}: {problem}")
    plain.load_state_dict(weights)
    logger.info("weights of %s", path)
    return network


def _unwrapped(network: nn.Module) -> nn.Module:
    while hasattr(network, "module") or hasattr(network, "_orig_mod"):
        network = cast(nn.Module, network.module if hasattr(network, "module") else network._orig_mod)
    return network


def _targets(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors by their common names; writing into them changes the network."""
    network = _unwrapped(network)
    prefix = ENCODER if isinstance(network, SwinTransformer) else ""
    targets = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    if ENCODER + "patch_embed.proj.weight" not in targets:
        raise ValueError(
            f"network: found {type(network).__name__}, expected one with a Swin encoder called 'swinViT' (SwinFUSE, "
            "SwinUNETR, SwinFUSEPretrainer) or a SwinTransformer"
        )
    return targets


def _match(targets: Mapping[str, Tensor], source: SourceWeights, report: LoadReport) -> dict[str, Tensor]:
    """Compare tensor by tensor, into the report; the new values by name."""

    def is_wanted(name: str) -> bool:
        inside = name.startswith(ENCODER) and not (report.part == "swin" and name.startswith(DIM))
        return inside or report.part == "all"

    values: dict[str, Tensor] = {}
    for name, target in targets.items():
        if not is_wanted(name):
            continue
        value = source.tensors.get(name)
        status, reason, new = _fit(name, value, target)
        if new is not None:
            values[name] = new
        shapes = None if value is None else tuple(value.shape), tuple(target.shape)
        report.records.append(TensorRecord(name, status, reason, source.original.get(name, ""), *shapes))
    for name, value in source.tensors.items():
        if name not in targets or not is_wanted(name):
            reason = f"not of the part '{report.part}'" if name in targets else "no such tensor in the network"
            report.records.append(TensorRecord(name, LEFT, reason, source.original[name], tuple(value.shape)))
    return values


def _fit(name: str, value: Tensor | None, target: Tensor) -> tuple[str, str, Tensor | None]:
    """Status, reason and new value of a tensor of the network, for which the file has ``value``."""
    if value is None:
        is_derived = name.endswith(_DERIVED)
        return (KEPT, "follows from the architecture", None) if is_derived else (MISSING, "not in the file", None)
    if value.is_floating_point() > target.is_floating_point() and value.layout == torch.strided:
        if torch.equal(value, value.round()):  # a federated server's mean makes floats of whole numbers
            value = value.to(target.dtype)
    if value.layout != torch.strided or value.is_floating_point() != target.is_floating_point():
        return MISMATCH, f"is {value.dtype}, expected {target.dtype}", None
    if value.shape == target.shape:
        return LOADED, "", value
    same_but_channels = value.shape[:1] == target.shape[:1] and value.shape[2:] == target.shape[2:]
    if name in _IMAGE_CONVOLUTIONS and value.ndim == target.ndim and same_but_channels:
        found, wanted = value.shape[1], target.shape[1]
        if found == 1:
            return ADAPTED, f"1 input channel spread over {wanted}", value.expand_as(target) / wanted
        if wanted == 1:
            return ADAPTED, f"average of {found} input channels, times {found}", value.sum(1, keepdim=True)
    return MISMATCH, "shapes differ", None


def _other_module(network: nn.Module, targets: Mapping[str, Tensor], source: SourceWeights, path: Path) -> str | None:
    """A domain invariance module for another region, or of other settings that no tensor shows."""
    found, expected = _token_size(source.tensors), _token_size(targets)
    if found and expected and found != expected:
        return (
            f"the domain invariance module of the file is for tokens of dimension {_region(found)}, that of the "
            f"network for {_region(expected)}. Plane tokens tie its weights to the region size: build the network with "
            "the roi_size (and tokens) of the file, or leave the module's weights with part='swin'"
        )
    differing = differing_settings(path, network) if any(name.startswith(DIM) for name in source.tensors) else []
    if differing:
        return (
            f"its domain invariance module has tensors of the same shapes but other settings: {'; '.join(differing)}. "
            "Build the network with the same dim and dim_options, or leave the module's weights with part='swin'"
        )
    return None


def _token_size(tensors: Mapping[str, Tensor]) -> int | None:
    for name in (DIM + "psi.0.0.attention.out_proj.bias", DIM + "mh1.out_proj.bias"):
        if name in tensors:
            return len(tensors[name])
    return None


def _region(token_size: int) -> str:
    edge = math.isqrt(token_size)
    is_plane = edge**2 == token_size and edge % 16 == 0
    return f"{token_size} (planes of {edge} x {edge}: a region of {2 * edge} voxels)" if is_plane else str(token_size)


def _forgotten_modules(
    targets: Mapping[str, Tensor], source: SourceWeights, report: LoadReport, allow_partial: bool
) -> str | None:
    """A module of the file's encoder that the network lacks: what was trained behind it is half a model without it."""
    unused = [name for name in source.tensors if name not in targets]
    convolutions = [name for name in unused if V2_CONVOLUTION.match(name)]
    if convolutions and not allow_partial:
        return (
            f"its encoder has {len(convolutions)} tensors of the convolutions in front of the stages "
            f"({_some(convolutions)}) that the network lacks. Build the network with use_v2=True"
        )
    module = [name for name in unused if name.startswith(DIM)]
    if module and report.part == "swin":
        report.warnings.append(
            f"the {len(module)} tensors of the file's domain invariance module are left out: its encoder was trained "
            "behind that module"
        )
    elif module and not allow_partial:
        return (
            f"the file has {len(module)} tensors of a domain invariance module that the network lacks "
            f"({_some(module)}). Build the network with the same dim and dim_options, or leave them with part='swin'"
        )
    return None


def _gaps(report: LoadReport, allow_partial: bool) -> str | None:
    """Tensors of the wanted part that the file lacks or contradicts."""
    gaps = report.with_status(MISSING, MISMATCH)
    used = len(report.loaded) + len(report.adapted)
    wanted = used + len(gaps)
    if used and (not gaps or (allow_partial and 2 * used >= wanted)):
        return None
    named = _some([f"{r.name}: file {r.file_shape or 'has none'}, network {r.network_shape}" for r in gaps])
    advice = "" if allow_partial else ". To load what fits all the same: allow_partial=True"
    if all(record.name.startswith(DIM) and record.status == MISSING for record in gaps):
        advice = ". These weights come without such a module: load them with part='swin'"
    return (
        f"only {used} of {wanted} tensors of the part '{report.part}' fit the network, {len(gaps)} do not: {named}; "
        f"the file: {report.source}{advice}"
    )


def _not_finite(weights: Mapping[str, Tensor]) -> str | None:
    bad = [n for n, v in weights.items() if v.is_complex() or (v.is_floating_point() and not v.isfinite().all())]
    return f"{len(bad)} tensors hold NaN or infinity or are complex: {_some(bad)}" if bad else None


def _other_merging(network: nn.Module, source: SourceWeights, stated: str, report: LoadReport) -> str | None:
    """Another patch merging than the network's, if stated or recorded; a warning if it is likely or open."""
    built = {_MERGING_NAMES[type(m)] for m in network.modules() if type(m) in _MERGING_NAMES}
    known, how = (stated, "as given by `merging`") if stated != "auto" else (None, "")
    if known is None and source.merging != "legacy":
        # a file that is known to come from elsewhere lies beside the record of another network, if of any
        known, how = recorded_merging(Path(report.path)), "by the record beside them"
    same = built == {known} or (known == "current" and "legacy" not in built)
    if known and built and not same:
        return (
            f"its weights were trained with the {known} patch merging ({how}), the network has the "
            f"{' and '.join(built)} one. Build it with downsample='{'merging' if known == 'current' else known}'"
        )
    if known is None and source.merging == "legacy" and "legacy" not in built:
        report.warnings.append(
            "weights of this kind were trained with the patch merging of MONAI before 1.5, which read two octants "
            "twice and missed two. The network has today's and computes something else from them: build it with "
            "downsample='legacy', or say merging='current' if you know better"
        )
    elif known is None and source.merging == "unknown" and built:
        report.warnings.append(
            "nothing tells whether these weights were trained with the patch merging of MONAI before 1.5 or with "
            f"today's; the network has the {' and '.join(built)} one, and wrong ones change its output by about a "
            "tenth. Say merging='legacy' or merging='current', and build the network with downsample='legacy' for the "
            "first (the Model Zoo's and the BraTS21 challenge's Swin UNETR weights are of that kind)"
        )
    return None


def _some(names: list[str], most: int = 12) -> str:
    more = len(names) - most
    return "; ".join(names[:most]) + (f"; and {more} more" if more > 0 else "")
