"""Sub-volumes of CT and MRI at the same places, on which encoders are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, LoadImaged, Orientationd, Spacingd, SpatialPadd

from ..transforms import ModalityIntensityd

MODALITIES = ("ct", "mr")


@dataclass
class PairedCrops:
    """Sub-volumes of CT and MRI at the same places of the same patients.

    Attributes:
        ct: (N, 1, D, H, W), scaled to [0, 1].
        mr: the same places on MRI.
        patients: patient of each.
    """

    ct: torch.Tensor
    mr: torch.Tensor
    patients: list[str]


def paired_crops(
    pairs: Iterable[Mapping[str, Any]],
    *,
    roi_size: Sequence[int],
    spacing: Sequence[float],
    ct_window: Sequence[float] = (-1000.0, 1000.0),
    crops: int = 2,
    seed: int = 0,
) -> PairedCrops:
    """Cut sub-volumes at random places inside the body mask, the same for CT and MRI.

    Args:
        pairs: items with ``ct``, ``mr`` and ``mask`` on one grid and ``patient``, as SynthRAD's.
        roi_size: size of a sub-volume.
        spacing: in mm.
        ct_window: in Hounsfield units.
        crops: sub-volumes of each patient.
        seed: of the places.

    Raises:
        ValueError: if there are no pairs.
    """
    keys = ("ct", "mr", "mask")
    prepare = Compose(
        [
            LoadImaged(keys, image_only=True, ensure_channel_first=True),
            Orientationd(keys, "RAS", labels=None),
            Spacingd(keys, list(spacing), mode=("bilinear", "bilinear", "nearest")),
            ModalityIntensityd(MODALITIES, modality=MODALITIES, ct_window=ct_window),
            SpatialPadd(keys, list(roi_size)),
        ]
    )
    rng = np.random.default_rng(seed)
    found: dict[str, list[torch.Tensor]] = {"ct": [], "mr": []}
    patients = []
    for pair in pairs:
        item = dict(prepare({key: pair[key] for key in keys}))
        inside = np.argwhere(np.asarray(item["mask"][0]) > 0)
        for centre in inside[rng.integers(len(inside), size=crops)]:
            limits = [n - r for n, r in zip(item["mask"].shape[1:], roi_size)]
            start = [int(np.clip(c - r // 2, 0, limit)) for c, r, limit in zip(centre, roi_size, limits)]
            window = tuple(slice(s, s + r) for s, r in zip(start, roi_size))
            for key in MODALITIES:
                found[key].append(torch.as_tensor(np.asarray(item[key])[(slice(None), *window)]).float())
            patients.append(str(pair["patient"]))
    if not patients:
        raise ValueError("no pairs of CT and MRI: expected at least one")
    return PairedCrops(torch.stack(found["ct"]), torch.stack(found["mr"]), patients)
