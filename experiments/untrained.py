"""Density divergence and partner accuracy of networks with random weights on crops of real volumes.

    python experiments/untrained.py density --data_dir "$SWINFUSE_DATA"
    python experiments/untrained.py partners --data_dir "$SWINFUSE_DATA"

print the two tables of docs/method.md. Such networks have learnt nothing, so the figures are those of the architecture.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import fire
import pandas as pd
import torch
from monai.transforms import CenterSpatialCropd, Compose, SpatialPadd

from swinfuse_components.data import synthrad_datalist
from swinfuse_components.losses import (
    DensityDivergenceLoss,
    intensity_histograms,
    partner_accuracy,
    sample_tokens,
)
from swinfuse_components.networks import SwinFUSEEncoder, SwinFUSEPretrainer
from swinfuse_components.transforms import ModalityIntensityd, RandCurve, RandInnerCutout, RandTwoViewsd, load_on_grid

KEYS = ["ct", "mr"]
# what the paper leaves out of the layers of Psi
LITERAL = {"residual": False, "normalize": False}


def crops(data_dir: str, pairs: int, edge: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """The middle of CT and MRI of each of some patients, (pairs, 1, edge, edge, edge) in [0, 1]."""
    transform = Compose(
        [
            *load_on_grid(KEYS, (3, 3, 3)),
            ModalityIntensityd(KEYS, modality=["ct", "mr"]),
            SpatialPadd(KEYS, (edge,) * 3),
            CenterSpatialCropd(KEYS, (edge,) * 3),
        ]
    )
    listed = synthrad_datalist(Path(data_dir) / "SynthRAD_like")[:pairs]
    items = [transform({key: pair[key] for key in KEYS}) for pair in listed]
    ct, mr = (torch.stack([item[key].as_tensor() for item in items]) for key in KEYS)
    return ct, mr


def density(data_dir: str, pairs: int = 8, seeds: int = 3) -> str:
    """Divergence of the module's two streams by rule, estimator and tokens, in nats: mean over seeds of the weights."""
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
    return _markdown(["module", "tokens", "inputs", *means.columns], lines)


def partners(data_dir: str, pairs: int = 8, seeds: int = 3) -> str:
    """How often contrastive embeddings and histograms find the other view of a crop (chance: 1 / (4 pairs - 1))."""
    images = torch.cat(crops(data_dir, pairs))
    shown = {}
    for name, augment in (("as they are", None), ("a curve for each view", RandCurve())):
        make = RandTwoViewsd("image", augment=augment).set_random_state(0)
        views = [make({"image": image}) for image in images]
        shown[name] = [torch.stack([view[f"view_{suffix}"] for view in views]) for suffix in "ij"]
    lines = []
    for name, views in shown.items():
        found = float(partner_accuracy(*map(intensity_histograms, views)))
        lines.append(["histogram of 32 bins", "", name, f"{found:.2f}", ""])
    settings = itertools.product(("product", "sigmoid"), (True, False))
    for (gate, shared), (name, views) in itertools.product(settings, shown.items()):
        accuracies, same = [], []
        for seed in range(seeds):
            torch.manual_seed(seed)
            options = {"gate": gate, "shared": shared} | ({} if gate == "sigmoid" else LITERAL)
            network = SwinFUSEPretrainer(1, 64, 12, window_size=4, dim_options=options).eval()
            with torch.no_grad():
                z = network(*views)["contrastive"]
            accuracies.append(float(partner_accuracy(*z.chunk(2))))
            cosines = torch.nn.functional.normalize(z, dim=1) @ torch.nn.functional.normalize(z, dim=1).T
            nearest = cosines.fill_diagonal_(-2).argmax(1)
            same.append(float(((nearest < len(images)) == (torch.arange(len(z)) < len(images))).float().mean()))
        streams = "one Psi" if shared else "two Psi"
        accuracy, stream = (sum(values) / seeds for values in (accuracies, same))
        lines.append([f"random network, {gate}", streams, name, f"{accuracy:.2f}", f"{stream:.2f}"])
    return _markdown(["embedding", "module", "views", "partner found", "nearest is of the same stream"], lines)


def _markdown(header: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *lines])


if __name__ == "__main__":
    fire.Fire({"density": density, "partners": partners})
