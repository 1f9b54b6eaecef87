"""Intensities by modality: Hounsfield units and arbitrary MRI units brought to one range."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data.meta_obj import get_track_meta
from monai.transforms import MapTransform, ScaleIntensityRange
from monai.transforms.utils_pytorch_numpy_unification import percentile
from monai.utils import convert_to_tensor, ensure_tuple_rep


class ModalityIntensityd(MapTransform):
    """Scale CT by a fixed window of Hounsfield units and MRI by percentiles of the volume, both to [0, 1], clipped.

    A CT number means the same in every scanner, so that a fixed window keeps it comparable; an MRI value does not, so
    that it is read relative to its own volume, each channel by itself. Apply it to whole volumes, before any crop.

    Args:
        keys: keys of the images, each (C, D, H, W) or any (C, …).
        modality: ``"ct"`` or ``"mr"`` for all keys, or one for each key (``["ct", "mr"]`` for a pair); by default the
            item says it under ``modality_key``.
        modality_key: see ``modality``.
        ct_window: lower and upper end of the CT window in Hounsfield units.
        mr_percentiles: lower and upper percentile that become 0 and 1.
        mr_nonzero: take the percentiles over the non-zero voxels alone, for volumes with the background set to 0
            (skull-stripped brains).
        allow_missing_keys: pass over keys that an item lacks.

    Raises:
        ValueError: on a window or percentiles that are not increasing, or a modality other than ``ct`` and ``mr``.
        KeyError: if an item does not say its modality.

    Example:
        >>> scale = ModalityIntensityd("image", modality="ct", ct_window=(-100, 300))
        >>> scale({"image": torch.tensor([[-1000.0, 100.0, 300.0]])})["image"]
        tensor([[0.0000, 0.5000, 1.0000]])
    """

    def __init__(
        self,
        keys: KeysCollection,
        modality: str | Sequence[str] | None = None,
        *,
        modality_key: str = "modality",
        ct_window: Sequence[float] = (-1000.0, 1000.0),
        mr_percentiles: Sequence[float] = (0.5, 99.5),
        mr_nonzero: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(ct_window) != 2 or not ct_window[0] < ct_window[1]:
            raise ValueError(f"ct_window={list(ct_window)}: expected two increasing Hounsfield units")
        if len(mr_percentiles) != 2 or not 0 <= mr_percentiles[0] < mr_percentiles[1] <= 100:
            raise ValueError(
                f"mr_percentiles={list(mr_percentiles)}: expected two increasing numbers between 0 and 100"
            )
        self.modality = None if modality is None else ensure_tuple_rep(modality, len(self.keys))
        for name in self.modality or ():
            self._check(name)
        self.modality_key = modality_key
        self.mr_percentiles = tuple(mr_percentiles)
        self.mr_nonzero = mr_nonzero
        self._window = ScaleIntensityRange(*ct_window, 0.0, 1.0, clip=True)

    @staticmethod
    def _check(name: object) -> str:
        if name not in ("ct", "mr"):
            raise ValueError(f"modality {name!r}: expected 'ct' or 'mr'")
        return str(name)

    def _scale_mr(self, image: torch.Tensor) -> torch.Tensor:
        scaled = image.clone()  # not empty_like: a MetaTensor would lose its affine and the record of what was applied
        for channel, values in enumerate(image):
            sample = values[values != 0] if self.mr_nonzero else values
            # a volume that is 0 everywhere has no non-zero voxel
            sample = sample if sample.numel() else values
            low, high = (float(percentile(sample, q)) for q in self.mr_percentiles)
            # a constant channel becomes 0, not a division by zero
            scaled[channel] = ((values - low) / (high - low)).clamp(0, 1) if high > low else torch.zeros_like(values)
        return scaled

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        item = dict(data)
        for number, key in enumerate(self.keys):
            if key not in item and self.allow_missing_keys:
                continue
            if self.modality is None and self.modality_key not in item:
                raise KeyError(f"the item has no '{self.modality_key}' ('ct' or 'mr'), needed to scale '{key}'")
            modality = self._check(self.modality[number] if self.modality else item[self.modality_key])
            image = convert_to_tensor(item[key], dtype=torch.float32, track_meta=get_track_meta())
            item[key] = self._window(image) if modality == "ct" else self._scale_mr(image)
        return item
