"""The pre-trainings of docs/invariance.md, several at a time on one GPU (or in turn on a CPU), and their probes.

    python experiments/invariance/arms.py prepare DATA SMALL --spacing 4
    python experiments/invariance/arms.py train SMALL OUT --seconds 300 --device cuda
    python experiments/invariance/arms.py probe SMALL OUT --device cuda
    python experiments/invariance/arms.py measure SMALL OUT

`prepare` writes volumes on a coarse grid, small enough to carry. `train` runs each arm and seed by the bundle's command
until the time is over, then stops it as a scheduler would; the same command goes on where it stopped. OUT/<arm>_<seed>
keeps its run. `probe` probes all of them, as the command of `ood_eval` does; `measure` gives the influence of the
partner, CKA and neighbours on pairs of held-out patients.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np
import pandas as pd
import torch
from monai.transforms import Compose

from swinfuse_components.checkpoints.reading import read_weights
from swinfuse_components.data import load_fold, read_task, split_folds, synthetic_volumes, synthrad_datalist
from swinfuse_components.engines.run_folder import checkpoints_of
from swinfuse_components.evaluation.features import linear_cka, paired_crops, pooled_features, same_modality
from swinfuse_components.evaluation.probing import build_encoder, read_volumes, recorded_settings, run_probing
from swinfuse_components.evaluation.tables import write_csv
from swinfuse_components.networks import SwinFUSEEncoder
from swinfuse_components.transforms import load_on_grid

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = "bundles/pretrain/configs/"
CT, MRI = "MSD_like/Task63_AbdomenCT", "MSD_like/Task64_AbdomenMR"
SARCOMA = ["MSD_like/Task51_SarcomaCT", "MSD_like/Task52_SarcomaMR", "MSD_like/Task53_SarcomaPET"]
PAIRS = "SynthRAD_like"
PRETRAIN_ON: list[dict] = [
    {"path": PAIRS, "weight": 1},
    {"path": CT, "weight": 1},
    {"path": "MSD_like/Task50_HeadNeckCT", "weight": 0.5},
]
CT_WINDOW = [-125.0, 275.0]
NO_MODULE = {"dim": "none", "dim_options": None}
# overlays of each arm, settings on top of them, the data sets where they are others, and the number of seeds (1)
ARMS: dict[str, dict] = {
    "paper": {"files": ["paper.yaml"], "seeds": 3},
    "swinfuse": {"files": ["pretext_tasks.yaml"], "seeds": 3},
    "no_dim": {"files": ["pretext_tasks.yaml"], "settings": {"dim": "none"}, "seeds": 3},
    "two_contrasts": {"files": ["pretext_tasks.yaml", "random_contrast.yaml"], "seeds": 3},
    "dense": {"seeds": 3},
    "dense_no_dim": {"settings": {"dim": "none"}},
    "dense_pairs": {"files": ["dense_pairs.yaml"], "seeds": 3},
    "dense_mind": {"files": ["mind.yaml"]},
    # each view with its partner, one arm for each module
    "dense_cross": {"settings": {"mode": "cross"}, "seeds": 3},
    "dense_product": {"files": ["gate_product.yaml"], "settings": {"mode": "cross"}},
    "dense_cosine": {"files": ["dim_cosine.yaml"], "settings": {"mode": "cross"}},
    "dense_patches": {"files": ["dim_patches.yaml"], "settings": {"mode": "cross"}},
    "dense_windows": {"files": ["dim_windows_sharp.yaml"], "settings": {"mode": "cross"}},
    "dense_paper": {"files": ["dim_paper.yaml"], "settings": {"mode": "cross"}},
    "synthetic": {"files": ["dense_pairs.yaml"], "datasets": ["synthetic"], "seeds": 3},
    "mixed": {"files": ["dense_pairs.yaml"], "datasets": [*PRETRAIN_ON, {"path": "synthetic", "weight": 2}]},
}


def prepare(data: str, out: str, spacing: float = 4.0) -> None:
    """Write the volumes of the arms and the probe on a grid of ``spacing`` mm, in the layout that they have."""
    source, target = Path(data), Path(out)
    for folder in (PAIRS, *(str(entry["path"]) for entry in PRETRAIN_ON[1:]), MRI, *SARCOMA):
        for file in sorted((source / folder).rglob("*.nii.gz")):
            if "imagesTs" in file.parts:
                continue
            is_label = file.name == "mask.nii.gz" or "labelsTr" in file.parts
            keys: dict = {"labels": ["x"]} if is_label else {}
            item = Compose(load_on_grid([] if is_label else "x", [spacing] * 3, **keys))({"x": str(file)})
            # as in the source: whole numbers, and for PET a factor
            slope = nib.load(file).dataobj.slope
            values = np.rint(np.asarray(item["x"][0]) / slope).astype(np.uint8 if is_label else np.int16)
            image = nib.Nifti1Image(values, np.asarray(item["x"].affine))
            image.header.set_slope_inter(slope, 0)
            path = target / file.relative_to(source)
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(image, path)
        if (source / folder / "dataset.json").is_file():
            shutil.copy(source / folder / "dataset.json", target / folder / "dataset.json")


def held_out(data: Path) -> list[str]:
    """Patients of the abdominal CT that probes and fine-tunings are tested on."""
    return [item["patient"] for item in load_fold(split_folds(read_task(data / CT)[1], 5, seed=0), 0, "validation")]


def _command(bundle: str, run: str, files: Sequence[str], settings: dict) -> list[str]:
    command = [sys.executable, "-m", "monai.bundle", "run", run, "--bundle_root", f"bundles/{bundle}"]
    command += ["--meta_file", f"bundles/{bundle}/configs/metadata.json"]
    command += ["--logging_file", f"bundles/{bundle}/configs/logging.conf", "--config_file", repr(list(files))]
    for key, value in settings.items():
        command += [f"--{key}", value if isinstance(value, str) else repr(value)]
    return command


def run_bundle(
    bundle: str, run: str, files: Sequence[str], settings: dict, log: Path, deadline: float = float("inf")
) -> None:
    """Run a bundle's command; at the deadline it is asked to stop and save."""
    with log.open("a") as stream:
        command = _command(bundle, run, files, settings)
        process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)
        try:
            process.wait(None if deadline == float("inf") else max(deadline - time.time(), 1))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait()
    print(f"{log.stem}: exit code {process.returncode}", flush=True)


def train(
    data: str,
    out: str,
    seconds: float = 300,
    only: Sequence[str] = (),
    at_once: int = 16,
    steps: int = 100_000,
    feature_size: int = 24,
    roi_size: int = 64,
    spacing: float = 4.0,
    batch_size: int = 4,
    learning_rate: float = 1e-4,
    num_workers: int = 1,
    device: str = "cuda",
    extend: bool = False,
) -> None:
    """Pre-train the arms, ``at_once`` at the same time, for ``seconds`` in all or ``steps`` each.

    Args:
        data: folder that ``prepare`` wrote.
        out: folder of the runs; runs that are there go on.
        seconds: after which every arm is stopped.
        only: names of arms, all if empty.
        at_once: number of processes.
        steps: most steps of an arm.
        feature_size: of the networks.
        roi_size: edge of the regions, in voxels.
        spacing: of the grid, in mm.
        batch_size: sub-volumes of a step.
        learning_rate: after the warm-up.
        num_workers: processes that load data, for each arm.
        device: ``cuda`` or ``cpu``.
        extend: runs that have ended go on to ``steps``.
    """
    folder, source = Path(out).resolve(), Path(data).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.time() + seconds
    excluded = held_out(source)

    def work(job: tuple[str, int]) -> None:
        name, seed = job
        run = folder / f"{name}_{seed}"
        if time.time() > deadline or (not extend and (run / "model_final.pt").is_file()):
            return
        arm, epoch = ARMS[name], min(50, steps)
        entries = [{"path": entry} if isinstance(entry, str) else entry for entry in arm.get("datasets", PRETRAIN_ON)]
        paths = [entry["path"] for entry in entries]
        if "synthetic" in paths:
            synthetic_volumes(source / "synthetic", 64, size=72, spacing=[spacing] * 3, ct_window=CT_WINDOW)
        settings = {
            "datasets": [{**entry, "path": str(source / entry["path"])} for entry in entries],
            "exclude_patients": excluded if CT in paths else [],
            "run_dir": str(run),
            "seed": seed,
            "device": f"$torch.device('{device}')",
            "amp": device != "cpu",
            "extend": extend,
            "resume": bool(checkpoints_of(run)) if run.is_dir() else False,
            "ct_window": CT_WINDOW,
            "feature_size": feature_size,
            "roi_size": roi_size,
            "window_size": 4,
            "spacing": [spacing] * 3,
            "batch_size": batch_size,
            "num_workers": num_workers,
            "epoch_length": epoch,
            "max_epochs": max(steps // epoch, 1),
            "val_interval": max(min(4, steps // epoch), 1),
            "learning_rate": learning_rate,
            "check_contents": False,
            **({"network_def::norm_name": ["group", {"num_groups": 4}]} if roi_size < 64 else {}),
            **arm.get("settings", {}),
        }
        files = [CONFIGS + "train.json", *(CONFIGS + file for file in arm.get("files", []))]
        files.append("experiments/invariance/budget.yaml")
        run_bundle("pretrain", "training", files, settings, folder / f"{run.name}.log", deadline)

    jobs = [(name, seed) for name in only or ARMS for seed in range(ARMS[name].get("seeds", 1))]
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(work, jobs))


def runs_of(out: str) -> dict[str, list[Path]]:
    """The newest checkpoint of every run whose weights are finite, seed by seed, by the name of its arm."""
    found: dict[str, list[Path]] = {}
    for run in sorted(path for path in Path(out).resolve().iterdir() if path.is_dir()):
        name = run.name.rpartition("_")[0]
        if name not in ARMS or not checkpoints_of(run):
            continue
        newest = checkpoints_of(run)[-1]
        if all(torch.isfinite(x).all() for x in read_weights(newest).values() if x.is_floating_point()):
            found.setdefault(name, []).append(newest)
        else:
            print(f"{newest} is left out: its weights are not finite", flush=True)
    return {name: found[name] for name in ARMS if name in found}


def learned_from(runs: Mapping[str, Sequence[Path]]) -> set[str]:
    """Patients that any of the pre-trainings learned from."""
    lists = [path.with_name("patients.json") for paths in runs.values() for path in paths]
    return {patient for file in lists for patient in json.loads(file.read_text())["training"]}


def probe(
    data: str,
    out: str,
    spacing: float = 4.0,
    device: str = "cuda",
    only: Sequence[str] = (),
    learn_from: int = 0,
    held_out: int = 0,
    **options: Any,
) -> None:
    """Probe every run, and three networks with random weights, into OUT/probing; what is there is not done again.

    Args:
        data: folder that ``prepare`` wrote.
        out: folder of the runs.
        spacing: of the working grid, in mm.
        device: ``cuda`` or ``cpu``.
        only: names of arms, all if empty; random weights are always there.
        learn_from: CT that the probes learn from, 0 for all of the fold.
        held_out: CT that they are scored on, 0 for all of the fold; MRI are all of them.
        options: ``overlap``, ``neighbours``, ``places``, ``stages``, ``seed``.
    """
    runs, source = runs_of(out), Path(data).resolve()
    like = {**recorded_settings(next(iter(runs.values()))[0]), **NO_MODULE}
    encoders: dict = {"random": [{**like, "seed": seed} for seed in range(3)]}
    encoders |= {name: [str(path) for path in paths] for name, paths in runs.items() if not only or name in only}
    classes, training, test = read_volumes(
        str(source / CT), [str(source / MRI)], spacing=[spacing] * 3, ct_window=CT_WINDOW
    )
    own = [volume for volume in test if volume.dataset == training[0].dataset]
    others = [volume for volume in test if volume.dataset != training[0].dataset]
    volumes = classes, training[: learn_from or None], own[: held_out or None] + others
    run_probing(encoders, volumes, Path(out) / "probing", device=device, **options)


@torch.no_grad()
def measure(data: str, out: str, spacing: float = 4.0, crops: int = 4, device: str = "cpu") -> None:
    """Influence of the partner before and after, CKA and neighbours, on registered pairs that no run was trained on."""
    runs, records = runs_of(out), []
    seen = learned_from(runs)
    unseen = [item for item in synthrad_datalist(Path(data) / PAIRS) if item["patient"] not in seen]
    like = recorded_settings(next(iter(runs.values()))[0])
    places = paired_crops(
        unseen, roi_size=[like["roi_size"]] * 3, spacing=[spacing] * 3, ct_window=CT_WINDOW, crops=crops
    )
    ct, mr = places.ct.to(device), places.mr.to(device)
    encoders = [("random", seed, build_encoder(None, seed, **{**like, **NO_MODULE})) for seed in range(3)]
    encoders += [(name, seed, build_encoder(path)) for name, paths in runs.items() for seed, path in enumerate(paths)]
    untrained = {name: build_encoder(None, 0, **recorded_settings(paths[0])) for name, paths in runs.items()}
    for name, seed, encoder in encoders:
        record: dict = {"arm": name, "seed": seed, "places": len(ct)}
        for state, each in (("before", untrained.get(name)), ("after", encoder)):
            if each is not None and each.domain_invariance is not None:
                record[f"influence_{state}"] = _influence(each.to(device), ct, mr, crops)
        features = [[stage.cpu() for stage in pooled_features(encoder.to(device), images)] for images in (ct, mr)]
        for stage in (3, 4):
            x, y = (side[stage] for side in features)
            record[f"cka_{stage}"] = linear_cka(x, y)
            record[f"same_modality_{stage}"] = float(same_modality(x, y).mean())
        records.append(record)
    table = pd.DataFrame(records).round(4)
    write_csv(table, Path(out) / "measures.csv")
    print(table.to_string())


def _influence(encoder: SwinFUSEEncoder, ct: torch.Tensor, mr: torch.Tensor, crops: int) -> float:
    """Relative change of what goes to the encoder of a CT if its MRI is exchanged for that of another patient."""
    changed = norm = 0.0
    for one, own, other in zip(ct.split(4), mr.split(4), mr.roll(crops, 0).split(4)):
        embedding = encoder.embed(one)
        streams = [encoder.fuse(embedding, encoder.embed(partner)).stream_i for partner in (own, other)]
        changed += float((streams[1] - streams[0]).square().sum())
        norm += float(streams[0].square().sum())
    return (changed / norm) ** 0.5


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    fire.Fire({"prepare": prepare, "train": train, "probe": probe, "measure": measure})
