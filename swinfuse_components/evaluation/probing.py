"""What a frozen encoder knows: voxels classified from its features, trained on one data set and scored on others."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, DivisiblePadd
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints import load_pretrained
from ..data import Task, load_fold, read_task, same_patients, split_folds
from ..data.paths import read_json
from ..networks import SwinFUSEEncoder
from ..transforms import ModalityIntensityd, load_on_grid
from .probes import Places, coarse_labels, draw_places, linear_probe, neighbour_votes
from .statistics import paired_test, summarize
from .tables import interval, markdown, write_csv

logger = logging.getLogger(__name__)

#: Settings of an encoder that are read from the record beside its checkpoint, and their values where there is none.
SETTINGS = {"feature_size": 48, "roi_size": 96, "window_size": 7, "dim": "none", "dim_options": None}
SETTINGS |= {"downsample": "merging"}
#: Places that vote as neighbours, drawn from those that the linear probe learns from.
MOST_NEIGHBOURS = 2000
UNIT = ["encoder", "probe", "stage", "dataset"]


class LabelledVolume(NamedTuple):
    """One case on the working grid: image (1, D, H, W) in [0, 1], label (D, H, W), sides multiples of 4."""

    dataset: str
    name: str
    image: Tensor
    label: Tensor


def recorded_settings(checkpoint: str | Path | None) -> dict[str, Any]:
    """Settings of the encoder that ``configuration.json`` or ``model.json`` beside a checkpoint records."""
    chosen = dict(SETTINGS)
    for name in ("configuration.json", "model.json") if checkpoint is not None else ():
        if (record := Path(str(checkpoint)).with_name(name)).is_file():
            content = read_json(record)
            recorded = {**content, **content.get("network_options", {})}
            chosen |= {key: recorded[key] for key in SETTINGS if key in recorded}
    return chosen


def build_encoder(checkpoint: str | Path | None, seed: int = 0, **settings: Any) -> SwinFUSEEncoder:
    """An encoder from any file that ``load_pretrained`` reads, or a random one; by default of the recorded settings."""
    chosen = {**recorded_settings(checkpoint), **settings}
    torch.manual_seed(seed)
    encoder = SwinFUSEEncoder(1, chosen.pop("feature_size"), chosen.pop("roi_size"), **chosen)
    if checkpoint is not None:
        load_pretrained(encoder, checkpoint, part="swin" if encoder.domain_invariance is None else "encoder")
    return encoder.eval()


def read_volumes(
    dataset_dir: str,
    others: Sequence[str],
    *,
    spacing: Sequence[float],
    ct_window: Sequence[float],
    fold: int = 0,
    num_folds: int = 5,
    split_seed: int = 0,
) -> tuple[dict[str, int], list[LabelledVolume], list[LabelledVolume]]:
    """Class values by name, the cases to train on, and those to test on.

    Of ``dataset_dir`` all but ``fold`` is trained on and ``fold`` tested on; ``others`` are tested on, but for patients
    that are trained on. The working grid's ``spacing`` is in mm, ``ct_window`` in Hounsfield units. ValueError if
    another data set lacks a class of the first one.
    """
    task, items = read_task(dataset_dir)
    classes = {text: value for value, text in task.labels.items() if value != 0}
    folds = split_folds(items, num_folds, seed=split_seed)
    training = load_fold(folds, fold, "training")
    seen = same_patients(item["patient"] for item in training)
    pad = DivisiblePadd(["image", "label"], k=4)  # a window puts the same even margin on both sides
    scale = ModalityIntensityd("image", ct_window=ct_window)
    prepare = Compose([*load_on_grid("image", spacing, labels=["label"]), scale, pad])

    def load(task: Task, listed: Sequence[Mapping[str, Any]]) -> list[LabelledVolume]:
        theirs, found = {text: value for value, text in task.labels.items()}, []
        if missing := sorted(set(classes) - set(theirs)):
            raise ValueError(f"{task.dataset_dir} has no class {missing}: it has {sorted(theirs)}")
        for item in listed:
            case = prepare({"image": item["image"], "label": item["label"], "modality": task.modality})
            given = torch.as_tensor(case["label"])[0].round()
            label = torch.as_tensor(sum(value * (given == theirs[text]) for text, value in classes.items()))
            found.append(LabelledVolume(task.name, str(item["patient"]), torch.as_tensor(case["image"]), label))
        return found

    test = load(task, load_fold(folds, fold, "validation"))
    for other, listed in map(read_task, others):
        test += load(other, [item for item in listed if not same_patients([item["patient"]]) & seen])
    return classes, load(task, training), test


@torch.no_grad()
def stage_features(encoder: SwinFUSEEncoder, image: Tensor, *, overlap: float = 0.25) -> list[Tensor]:
    """Features of the patch embedding and of each stage, on the grid of the embedding: (C_k, D/2, H/2, W/2) each.

    Deeper stages are interpolated to that grid (trilinear) inside sliding windows. The image (1, D, H, W) has even
    sides and is on the encoder's device.
    """

    def together(windows: Tensor) -> Tensor:
        first, *deeper = encoder(windows)
        size = first.shape[2:]
        return torch.cat([first, *(F.interpolate(x, size=size, mode="trilinear") for x in deeper)], dim=1)

    inferer = SlidingWindowInferer(encoder.roi_size, sw_batch_size=2, overlap=overlap, mode="gaussian")
    found = torch.as_tensor(inferer(image[None], together))[0]
    channels = encoder.num_features // 2 ** (encoder.num_layers - 1)
    return list(found.split([channels * 2**k for k in range(encoder.num_layers + 1)]))


def probe(
    encoder: SwinFUSEEncoder,
    classes: Mapping[str, int],
    training: Sequence[LabelledVolume],
    test: Sequence[LabelledVolume],
    *,
    places: int = 200,
    overlap: float = 0.25,
    neighbours: int = 20,
    stages: Sequence[str] = (),
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Iterator[dict[str, Any]]:
    """Dice of every test case, class, stage and probe; see :func:`run_probing` for the arguments."""
    encoder, generator, count = encoder.to(device), torch.Generator().manual_seed(seed), max(classes.values())

    def maps(volume: LabelledVolume) -> dict[str, Tensor]:
        found = [x.flatten(1).T for x in stage_features(encoder, volume.image.to(device), overlap=overlap)]
        named = {**{str(k): x for k, x in enumerate(found)}, "all": torch.cat(found, 1)}
        return {name: named[name] for name in stages or named}

    samples: dict[str, list[Places]] = {}
    for volume in training:
        labels = coarse_labels(volume.label, count)
        chosen, weights = draw_places(labels, places, generator)
        for stage, x in maps(volume).items():
            drawn = Places(x[chosen.to(device)], labels.flatten()[chosen].to(device), weights.to(device))
            samples.setdefault(stage, []).append(drawn)
    probes: dict[str, tuple[Tensor, Tensor, nn.Linear, Places]] = {}
    for stage, parts in samples.items():
        features, known, stand_for = (torch.cat(values) for values in zip(*parts))
        mean, std = features.mean(0), features.std(0).clamp_min(1e-6)
        joined = Places((features - mean) / std, known, stand_for)
        kept = torch.randperm(len(known), generator=generator)[:MOST_NEIGHBOURS].to(device)
        probes[stage] = mean, std, linear_probe(joined, count), Places(*(values[kept] for values in joined))
    for volume in test:
        size, truth = volume.label.shape, volume.label.to(device)
        for stage, x in maps(volume).items():
            mean, std, layer, voters = probes[stage]
            x = (x - mean) / std
            scores = {"linear": layer(x)}
            if neighbours:
                scores["neighbours"] = neighbour_votes(x, voters, count, neighbours)
            for kind, values in scores.items():
                coarse = values.T.reshape(1, count + 1, *(side // 2 for side in size))
                answer = F.interpolate(coarse, size=size, mode="trilinear")[0].argmax(0)
                where = {"probe": kind, "stage": stage, "dataset": volume.dataset, "case": volume.name}
                for name, value in classes.items():
                    ours, theirs = answer == value, truth == value
                    dice = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
                    yield {**where, "class": name, "dice": float(dice) if theirs.any() else float("nan")}


def run_probing(
    encoders: Mapping[str, Any],
    volumes: tuple[dict[str, int], list[LabelledVolume], list[LabelledVolume]],
    output_dir: str | Path,
    **options: Any,
) -> pd.DataFrame:
    """Probe several encoders; write ``probing.csv`` (all scores, which are returned), ``summary.csv``, ``probing.md``.

    Args:
        encoders: by name: a checkpoint, null for random weights, a dictionary of ``checkpoint`` and settings of
            :func:`build_encoder`, or a list of these, for as many seeds. The first one is what others are compared to.
        volumes: see :func:`read_volumes`.
        output_dir: an encoder whose scores are in its ``probing.csv`` is not probed again.
        options: ``places`` of each class and case to learn from, ``overlap`` of the windows, ``neighbours`` (0: no such
            probe), ``stages`` ("0" is the embedding, "all"; all if empty), ``seed`` of the places, ``device``.
    """
    file = Path(output_dir) / "probing.csv"
    done = [pd.read_csv(file, dtype={"stage": str, "case": str})] if file.is_file() else []
    known = {(name, seed) for table in done for name, seed in zip(table["encoder"], table["seed"])}
    for name, entries in encoders.items():
        for seed, entry in enumerate(entries if isinstance(entries, (list, tuple)) else [entries]):
            if (name, seed) in known:
                continue
            settings = dict(entry) if isinstance(entry, Mapping) else {"checkpoint": entry}
            encoder = build_encoder(**{"checkpoint": None, "seed": seed, **settings})
            rows = [{"encoder": name, "seed": seed, **row} for row in probe(encoder, *volumes, **options)]
            done.append(pd.DataFrame(rows))
            write_csv(pd.concat(done), file)
            logger.info("%s, seed %d: %d scores", name, seed, len(rows))
    table = pd.concat(done)
    summary = summarize_probing(table, next(iter(encoders)))
    write_csv(summary, Path(output_dir) / "summary.csv")
    (Path(output_dir) / "probing.md").write_text(_markdown(summary), encoding="utf-8")
    return table


def summarize_probing(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Mean Dice over classes and seeds, its interval over cases, and the difference to the ``reference`` encoder."""
    cases = table.groupby([*UNIT, "case"], sort=False)["dice"].mean().reset_index()
    seeds = table.groupby([*UNIT, "seed"], sort=False)["dice"].mean().groupby(UNIT, sort=False)
    spread = seeds.agg(seeds="size", lowest_seed="min", highest_seed="max").to_dict("index")
    records = []
    for key, part in cases.groupby(UNIT, sort=False):
        mean, low, high, *_ = summarize(part["dice"])
        record = {**dict(zip(UNIT, key)), "cases": len(part), "dice": mean, "low": low, "high": high, **spread[key]}
        same = (cases[UNIT[1:]] == list(key[1:])).all(axis=1) & (cases["encoder"] == reference)
        both = part.merge(cases[same], on="case", suffixes=("", "_reference"))
        if key[0] != reference and len(both):
            test = paired_test(both["dice"], both["dice_reference"])
            record |= {"difference": test.difference, "difference_low": test.low, "difference_high": test.high}
        records.append(record)
    return pd.DataFrame(records)


def _markdown(summary: pd.DataFrame) -> str:
    header = ["encoder", "probe", "stage", "data set", "Dice", "seeds", "difference to the first encoder"]
    lines = []
    for r in summary.to_dict("records"):
        mean, low, high = (r.get(f"difference{end}") for end in ("", "_low", "_high"))
        difference = "" if pd.isna(mean) else interval(mean, low, high, 3)
        seeds = f"{r['lowest_seed']:.3f} to {r['highest_seed']:.3f}" if r["seeds"] > 1 else ""
        lines.append([*(r[name] for name in UNIT), interval(r["dice"], r["low"], r["high"], 3), seeds, difference])
    return markdown(header, lines)
