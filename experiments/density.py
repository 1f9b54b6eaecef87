"""Density divergence of real crops by bandwidth rule, estimator and tokens, for networks with random weights.

    python experiments/density.py --data_dir "$SWINFUSE_DATA" [--pairs 8] [--seeds 3]

prints the table of docs/method.md: one sub-volume as both inputs of a module with two Psi (streams that differ though
nothing in the image does), two cut-outs of it, and CT against MRI of one place.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import fire
import pandas as pd
import torch
from monai.transforms import Compose, EnsureTyped, LoadImaged, Orientationd, RandSpatialCropd, Spacingd

from swinfuse_components.data import synthrad_datalist
from swinfuse_components.losses import DensityDivergenceLoss, sample_tokens
from swinfuse_components.networks import SwinFUSEEncoder
from swinfuse_components.transforms import ModalityIntensityd, RandInnerCutout

KEYS = ["ct", "mr"]


def crops(data_dir: str, pairs: int, edge: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """One registered crop of CT and MRI from each of some patients, (pairs, 1, edge, edge, edge) in [0, 1]."""
    transform = Compose(
        [
            LoadImaged(KEYS, ensure_channel_first=True),
            EnsureTyped(KEYS),
            Orientationd(KEYS, axcodes="RAS", labels=None),
            Spacingd(KEYS, pixdim=(3, 3, 3)),
            ModalityIntensityd(KEYS, modality=["ct", "mr"]),
            RandSpatialCropd(KEYS, roi_size=(edge,) * 3, random_size=False),
        ]
    ).set_random_state(0)
    listed = synthrad_datalist(Path(data_dir) / "SynthRAD_like")[:pairs]
    items = [transform({key: pair[key] for key in KEYS}) for pair in listed]
    ct, mr = (torch.stack([item[key].as_tensor() for item in items]) for key in KEYS)
    return ct, mr


def table(data_dir: str, pairs: int = 8, seeds: int = 3) -> str:
    """The table in Markdown: mean over seeds of the network, in nats."""
    ct, mr = crops(data_dir, pairs)
    cutout = RandInnerCutout().set_random_state(0)
    first, second = (torch.stack([cutout(image)[0] for image in ct]) for _ in range(2))
    inputs = {"one input": (ct, ct), "two cut-outs": (first, second), "CT and MRI": (ct, mr)}
    rows = []
    for dim, seed, (name, views) in itertools.product(("paper", "swinfuse"), range(seeds), inputs.items()):
        torch.manual_seed(seed)
        encoder = SwinFUSEEncoder(1, 12, ct.shape[-1], window_size=4, dim=dim).eval()
        with torch.no_grad():
            streams = encoder.fuse(*(encoder.embed(view) for view in views))[1:]
        for tokens, rule, estimator in itertools.product(("voxels", "planes"), ("paper", "spread"), ("entropy", "kl")):
            points = sample_tokens(*streams, 512, tokens, generator=torch.Generator().manual_seed(seed))
            value = float(DensityDivergenceLoss(rule, estimator=estimator)(*points))
            rows.append((dim, tokens, f"{rule}, {estimator}", name, value))
    found = pd.DataFrame(rows, columns=["module", "tokens", "rule", "inputs", "divergence"])
    means = found.pivot_table(index=["module", "tokens", "inputs"], columns="rule", values="divergence", sort=False)
    lines = [[*index, *(f"{value:.4f}" for value in row)] for index, row in zip(means.index, means.to_numpy())]
    header = ["module", "tokens", "inputs", *means.columns]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *lines])


if __name__ == "__main__":
    fire.Fire(table)
