"""Intensity scaling by modality, and the foreground of scaled images."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data.meta_obj import get_track_meta
from monai.transforms import MapTransform
from monai.transforms.utils_pytorch_numpy_unification import percentile
from monai.utils import convert_to_tensor, ensure_tuple_rep

from ..data.modalities import REGISTRY, Modality, get_modality

logger = logging.getLogger(__name__)


class ModalityIntensityd(MapTransform):
    """Scale every image by the rule of its modality: CT by a window of Hounsfield units, MRI by percentiles.

    A CT number means the same in every scanner, so that a fixed window keeps it comparable; an MRI value does not, so
    that it is read relative to its own volume, each channel by itself. Both end in [0, 1], clipped. Other modalities
    (PET: a window of uptake values; any that is registered) follow the rule of
    :class:`~swinfuse_components.data.Modality`. Apply it to whole volumes, before any crop. NaN and infinities become
    the nearest end of the finite values, with a warning.

    Args:
        keys: keys of the images, each (C, D, H, W) or any (C, …).
        modality: name of a registered modality, or the definition of a new one, for all keys, or a list with one for
            each key (``["ct", "mr"]`` for a pair); by default the item says it under ``modality``, a name or a list.
        ct_window: lower and upper end of the CT window in Hounsfield units.
        mr_percentiles, mr_nonzero: the percentiles that become 0 and 1, and whether they are taken over the non-zero
            voxels alone, for volumes with the background set to 0 (skull-stripped brains).
        allow_missing_keys: pass over keys that an item lacks.

    Raises:
        ValueError: on a window or percentiles that are not increasing, or a modality that is not registered.
        KeyError: if an item does not say its modality.

    Example:
        >>> scale = ModalityIntensityd("image", modality="ct", ct_window=(-100, 300))
        >>> scale({"image": torch.tensor([[-1000.0, 100.0, 300.0]])})["image"]
        tensor([[0.0000, 0.5000, 1.0000]])
    """

    def __init__(
        self,
        keys: KeysCollection,
        modality: str | Mapping[str, Any] | Sequence[str] | None = None,
        *,
        ct_window: Sequence[float] = (-1000.0, 1000.0),
        mr_percentiles: Sequence[float] = (0.5, 99.5),
        mr_nonzero: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if isinstance(modality, Mapping):
            modality = get_modality(modality).name
        self.modality = None if modality is None else ensure_tuple_rep(modality, len(self.keys))
        for setting, ends in (("ct_window", ct_window), ("mr_percentiles", mr_percentiles)):
            if len(ends) != 2 or not ends[0] < ends[1]:
                raise ValueError(f"{setting}={list(ends)}: expected two increasing numbers")
        # a copy, which travels to worker processes with this transform
        self.rules = {
            **REGISTRY,
            "ct": replace(REGISTRY["ct"], limits=tuple(map(float, ct_window))),
            "mr": replace(REGISTRY["mr"], limits=tuple(map(float, mr_percentiles)), nonzero=mr_nonzero),
        }
        for name in self.modality or ():
            self._rule(name)

    def _rule(self, name: object) -> Modality:
        return self.rules.get(str(name)) or get_modality(str(name))

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        item = dict(data)
        for number, key in enumerate(self.keys):
            if key not in item and self.allow_missing_keys:
                continue
            if self.modality is None and "modality" not in item:
                raise KeyError(f"the item has no 'modality' ({sorted(self.rules)}), needed to scale '{key}'")
            named = self.modality or item["modality"]
            rule = self._rule(named[number] if isinstance(named, (list, tuple)) else named)
            image = convert_to_tensor(item[key], dtype=torch.float32, track_meta=get_track_meta())
            scaled = image.clone()  # not empty_like: a MetaTensor would lose its affine and what was applied to it
            for channel, values in enumerate(image):
                scaled[channel] = _scale(_finite(values, getattr(image, "meta", {})), rule)
            item[key] = scaled
        return item


def _finite(values: torch.Tensor, meta: Mapping[str, Any]) -> torch.Tensor:
    finite = torch.isfinite(values)
    if finite.all():
        return values
    name = meta.get("filename_or_obj", "an image")
    logger.warning("%s: %d voxel(s) are NaN or infinite, replaced", name, int((~finite).sum()))
    inside = values[finite] if finite.any() else torch.zeros(1)
    low, high = float(inside.min()), float(inside.max())
    return torch.nan_to_num(values, nan=low, posinf=high, neginf=low)


def _scale(values: torch.Tensor, rule: Modality) -> torch.Tensor:
    """One channel by its rule; a constant channel becomes 0, not a division by zero."""
    low, high = rule.limits
    if rule.scaling != "window":
        sample = values[values != 0] if rule.nonzero else values
        sample = sample if sample.numel() else values  # a volume that is 0 everywhere has no non-zero voxel
        if rule.scaling == "zscore":
            return (values - sample.mean()) / sample.std().clamp(min=1e-8)
        low, high = (float(percentile(sample, q)) for q in rule.limits)
    return ((values - low) / (high - low)).clamp(0, 1) if high > low else torch.zeros_like(values)


class ForegroundMaskd(MapTransform):
    """Add a mask (1, D, H, W) of the foreground where an item has none: voxels above a share of an image's range.

    Args:
        keys: keys of the scaled images, each (C, D, H, W).
        mask_key: key of the mask; one that is there is left as it is.
        threshold: share of the range between lowest and highest value, above which a voxel is foreground.
    """

    def __init__(self, keys: KeysCollection, mask_key: str = "mask", threshold: float = 0.05) -> None:
        super().__init__(keys)
        self.mask_key, self.threshold = mask_key, threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        if self.mask_key not in item:
            masks = [
                (item[key] > item[key].min() + self.threshold * (item[key].max() - item[key].min())).any(
                    0, keepdim=True
                )
                for key in self.keys
            ]
            item[self.mask_key] = torch.stack(masks).any(0)
        return item
