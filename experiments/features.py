"""What the pre-trained encoders make of CT and of MRI at the same places of patients they never saw (table 3).

    python experiments/features.py --volumes DIR --work_dir DIR

reads the pre-trainings that `run.py` left in the work folder, beside encoders with random weights, and writes
`features.csv`, `pretraining.csv` (the loss terms over training) and, for the first fold, t-SNE pictures
into docs/images.
"""

from __future__ import annotations

import functools
from pathlib import Path

import fire
import numpy as np
import pandas as pd
import torch
import yaml
from run import HERE, TERMS, held_out, read_matrix

from swinfuse_components.checkpoints import load_pretrained
from swinfuse_components.data import select_patients, synthrad_datalist
from swinfuse_components.evaluation.features import (
    PairedCrops,
    attention_records,
    cka_by_stage,
    density_records,
    paired_crops,
    pooled_features,
    same_modality,
    tsne_table,
)
from swinfuse_components.networks import SwinFUSE, SwinFUSEEncoder
from swinfuse_components.visualization.plots import scatter

IMAGES = HERE.parent / "docs" / "images"
#: Names of the rows, the network's `dim`, and the pre-training of `matrix.yaml` (None: random weights).
ENCODERS = {
    "Swin UNETR, random": ("none", None),
    "Swin UNETR, pre-trained": ("none", "swin_unetr"),
    "SwinFUSE, random": ("swinfuse", None),
    "SwinFUSE, pre-trained": ("swinfuse", "swinfuse"),
    "SwinFUSE, pre-trained without density loss": ("swinfuse", "density_zero"),
    "to the paper's letter, pre-trained": ("paper", "paper"),
}
PICTURED = ("Swin UNETR, pre-trained", "SwinFUSE, pre-trained")
COLUMNS = ["encoder", "fold", "measure", "value"]
#: Steps of pre-training that one row of `pretraining.csv` is the mean of.
STEPS = 10


@functools.cache
def small() -> dict:
    """The settings of the small fine-tuning, which every arm shares."""
    return yaml.safe_load((HERE / "configs" / "small_finetune.yaml").read_text(encoding="utf-8"))


def encoder_of(dim: str, checkpoint: Path | None, seed: int) -> SwinFUSEEncoder:
    """An encoder in evaluation mode, its weights from a pre-training or random."""
    settings = small()
    torch.manual_seed(seed)
    network = SwinFUSE(
        1, 2, settings["roi_size"], settings["feature_size"], dim=dim, window_size=settings["window_size"]
    )
    if checkpoint is not None:
        load_pretrained(network, checkpoint, part="encoder")
    return network.swinViT.eval()


def measure(encoder: SwinFUSEEncoder, crops: PairedCrops, seed: int) -> dict[str, float]:
    """One number a measure: CKA by stage, mixing of the modalities, density divergence, attention."""
    found = {}
    ct, mr = pooled_features(encoder, crops.ct), pooled_features(encoder, crops.mr)
    for record in cka_by_stage(ct, mr, seed=seed):
        found[f"CKA, stage {record['stage']}"] = record["cka"]
        found[f"CKA of unrelated places, stage {record['stage']}"] = record["unrelated"]
    found["neighbours of the same modality"] = float(np.mean(same_modality(ct[-1], mr[-1])))
    kind = "embedding" if encoder.domain_invariance is None else "streams"
    for record in density_records(encoder, crops, seed=seed):
        if (record["between"], record["bandwidth"]) == (kind, "spread"):
            found["density divergence (at most 0.69)"] = record["divergence"]
    if encoder.domain_invariance is not None:
        maps = [r["divergence"] for r in attention_records(encoder, crops) if r["between"] == "same_place"]
        found["attention, CT against MRI"] = float(np.mean(maps))
    return found


def draw(name: str, encoder: SwinFUSEEncoder, crops: PairedCrops) -> None:
    """t-SNE of the last stage, a line between CT and MRI of one place."""
    points = tsne_table(*(pooled_features(encoder, images)[-1] for images in (crops.ct, crops.mr)), crops.patients)
    plain = "".join(c if c.isalnum() else "_" for c in name.lower())
    scatter(points, IMAGES / f"tsne_{plain}.png", title=name)


def losses_over_training(work_dir: Path) -> pd.DataFrame:
    """The loss terms of every finished pre-training, averaged over a few steps."""
    tables = []
    for path in sorted(work_dir.glob("pretraining/*/fold*/losses.csv")):
        if (path.parent / "done").is_file():
            losses = pd.read_csv(path)[list(TERMS)]
            some = losses.groupby(losses.index // STEPS)
            place = {"pretraining": path.parent.parent.name, "fold": int(path.parent.name.removeprefix("fold"))}
            tables.append(some.mean().assign(**place, step=some.size().cumsum()))
    return pd.concat(tables, ignore_index=True)[["pretraining", "fold", "step", *TERMS]]


def write(volumes: str, work_dir: str, crops: int = 8) -> None:
    """Measure every encoder on the held-out patients of every fold.

    Args:
        volumes: the folder that `volumes.py` has written.
        work_dir: of `run.py`; pre-trainings that are not there are left out.
        crops: places of each patient.
    """
    pairs, rows = synthrad_datalist(Path(volumes) / "SynthRAD_like"), []
    settings = small()
    for fold in read_matrix()["folds"]:
        places = paired_crops(
            select_patients(pairs, include=held_out(fold)),
            roi_size=settings["roi_size"],
            spacing=settings["spacing"],
            ct_window=settings["ct_window"],
            crops=crops,
            seed=fold,
        )
        for name, (dim, pretraining) in ENCODERS.items():
            checkpoint = Path(work_dir) / "pretraining" / str(pretraining) / f"fold{fold}" / "model.pt"
            if pretraining is not None and not checkpoint.is_file():
                continue
            encoder = encoder_of(dim, None if pretraining is None else checkpoint, seed=fold)
            rows += [(name, fold, key, value) for key, value in measure(encoder, places, fold).items()]
            if fold == read_matrix()["folds"][0] and name in PICTURED:
                draw(name, encoder, places)
    tables = {"features": pd.DataFrame(rows, columns=COLUMNS), "pretraining": losses_over_training(Path(work_dir))}
    for name, table in tables.items():
        table.to_csv(HERE / f"{name}.csv", index=False, lineterminator="\n", float_format="%.6g")


if __name__ == "__main__":
    fire.Fire(write)
