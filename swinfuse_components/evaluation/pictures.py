"""Pictures that explain a model, each with its numbers as CSV: attention, features of CT and MRI, segmentations."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from monai.transforms import LoadImage

from ..networks import SwinFUSEEncoder
from ..visualization.plots import curves, scatter
from ..visualization.slices import CasePicture, attention_overlay, side_by_side
from .features import (
    attention_records,
    cka_by_stage,
    density_records,
    gate_volume,
    paired_crops,
    pooled_pairs,
    tsne_table,
)
from .matrix import prediction_path
from .models import NetworkSource, model_source, read_model
from .tables import read_cases, row_name, write_csv
from .targets import Target, read_labels

logger = logging.getLogger(__name__)

#: Hounsfield units shown as black and white
CT_WINDOW = (-160.0, 240.0)


def read_index(output_dir: str | Path) -> dict[str, Any]:
    """``cases.json``: what an evaluation compared (class_mapping, models, targets) and where its volumes lie."""
    file = Path(output_dir) / "cases.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}: expected the output_dir of a finished evaluation")
    return json.loads(file.read_text(encoding="utf-8"))


def choose_cases(rows: pd.DataFrame, count: int) -> list[str]:
    """Cases spread evenly from the worst to the best mean Dice; the median one if only one is wanted."""
    ranked = list(rows.groupby("case", sort=False)["dice"].mean().sort_values(kind="stable").index)
    places = np.linspace(0, len(ranked) - 1, count + 2)[1:-1] if count < len(ranked) else range(len(ranked))
    return list(dict.fromkeys(ranked[round(float(place))] for place in places))


def drawn_classes(index: Mapping[str, Any], target: str) -> dict[str, int]:
    """Classes of a column as its pictures show them: those that were compared, or the union of the foreground."""
    if not index["class_mapping"]:
        return {"foreground": 1}
    return {name: index["targets"][target]["classes"][name] for name in index["class_mapping"].values()}


def _compared(labels: np.ndarray, values: Mapping[int, int]) -> np.ndarray:
    """Label map with values as they were compared: mapped one by one, or 1 for all foreground."""
    result = np.zeros(labels.shape, dtype=np.uint8) if values else (labels > 0).astype(np.uint8)
    for ours, theirs in values.items():
        result[labels == ours] = theirs
    return result


def gallery(
    output_dir: str | Path, target: str, *, cases: Sequence[str] | None = None, count: int = 2, view: str = "image"
) -> list[CasePicture]:
    """Pictures of a column's ``cases``, ``count`` between worst and best by default, with every model's kept answers.

    FileNotFoundError if there is no evaluation, ValueError if the column or a case does not exist.
    """
    folder, index = Path(output_dir), read_index(output_dir)
    if target not in index["targets"]:
        raise ValueError(f"no target {target!r} in {folder}: it has {sorted(index['targets'])}")
    column, mapping = index["targets"][target], index["class_mapping"] or {}
    classes = drawn_classes(index, target)
    rows = read_cases(folder / "cases.csv").query("target == @target and view == @view")
    own = {(model["model"], model["trained_on"]): model["classes"] for model in index["models"]}
    scores: dict[tuple[str, str], dict[str, float]] = {
        (model, trained_on): dict(zip(part["case"], part["dice"]))
        for (model, trained_on), part in rows.groupby(["model", "trained_on"], sort=False)
        if prediction_path(folder, model, trained_on, view, target, "x").parent.is_dir()
    }
    complete = rows[[all(case in dice for dice in scores.values()) for case in rows["case"]]]
    names = list(cases) if cases is not None else choose_cases(complete, count)
    unknown = [name for name in names if name not in column["cases"]]
    if unknown or not names:
        known = sorted(column["cases"])
        raise ValueError(f"no case {unknown or ''} of {target} in {folder}: expected some of {known}")
    load = LoadImage(ensure_channel_first=True)
    several = len({trained_on for _, trained_on in scores}) > 1
    titles = {key: row_name(*key, view) if several else key[0] for key in scores}
    found = []
    for name in names:
        image = load(column["cases"][name]["image"])
        truth = read_labels(column["cases"][name]["label"], image)
        truth = _compared(truth, {value: value for value in classes.values()} if mapping else {})
        predictions = {}
        for key, title in titles.items():
            labels = np.asarray(load(prediction_path(folder, *key, view, target, name))[0])
            predictions[title] = _compared(labels, {own[key][a]: classes[b] for a, b in mapping.items()})
        shown = {titles[key]: dice[name] for key, dice in scores.items() if name in dice and len(classes) == 1}
        grey, limits = np.asarray(image[column["channel"] or 0]), CT_WINDOW if column["modality"] == "ct" else None
        found.append(CasePicture(name, grey, np.asarray(image.affine), truth, predictions, shown, limits))
    return found


def segmentation_figure(
    evaluation: str | Path,
    output_dir: str | Path,
    *,
    target: str | None = None,
    cases: Sequence[str] | None = None,
    count: int = 3,
    view: str = "image",
    plane: str = "axial",
) -> list[Path]:
    """The paper's Fig. 3: segmentations of every model side by side, one figure for each target of an evaluation.

    ``evaluation`` is its ``output_dir``; ``segmentations_<target>.png`` and ``.csv`` are written into this one's. For
    the rest see :func:`gallery` and :func:`~swinfuse_components.visualization.slices.side_by_side`.
    """
    index = read_index(evaluation)
    written = []
    for name in [target] if target is not None else index["targets"]:
        rows = gallery(evaluation, name, cases=cases, count=count, view=view)
        file = Path(output_dir) / f"segmentations_{_plain(name)}.png"
        written.append(side_by_side(rows, file, classes=drawn_classes(index, name), plane=plane))
    return written


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _encoder(source: NetworkSource) -> SwinFUSEEncoder:
    source.load()
    return cast(SwinFUSEEncoder, source.network.swinViT)


def attention_figure(
    model_dir: str | Path,
    targets: Sequence[Target],
    output_dir: str | Path,
    *,
    patient: str | None = None,
    plane: str = "axial",
    overlap: float = 0.5,
) -> Path:
    """The paper's Fig. 1: the module's gate over the image, for one case of every target, CT and MRI.

    ``attention.png`` and ``attention.csv`` are written. The patient is by default the first one that all targets have
    and the model was not trained on. ValueError for a model without a module, or a target without that patient.
    """
    source = model_source(model_dir, overlap=overlap)
    encoder = _encoder(source)
    common = [str(item.get("patient")) for item in targets[0].items]
    shared = [p for p in common if all(p in target.patients for target in targets[1:])] or common
    unseen = [p for p in shared if p not in source.training_patients] or shared
    wanted = patient or unseen[0]
    rows = []
    for target in targets:
        chosen = [i for i in target.items if wanted in (str(i.get("patient")), i["case"])]
        if not chosen and patient is not None:
            raise ValueError(f"no case of patient {patient!r} in {target.name}: it has {sorted(target.patients)}")
        case = target.load((chosen or target.items)[0]).only(next(iter(target.views.values())))
        item = dict(source.preprocessing({"image": case.image, "modality": case.modality}))
        gate = gate_volume(encoder, item["image"], overlap=overlap)[None]
        rows.append(
            CasePicture(
                name=f"{case.name}, {case.modality.upper()}",
                image=np.asarray(source.restore(item, item["image"])[0]),
                affine=case.affine,
                truth=case.truth,
                predictions={"prediction": source.predict(case)},
                limits=(0.0, 1.0),
                gate=np.asarray(source.restore(item, gate)[0]),
            )
        )
    return attention_overlay(rows, Path(output_dir) / "attention.png", plane=plane)


def feature_figures(
    models: Mapping[str, str | Path],
    pairs: Iterable[Mapping[str, Any]],
    output_dir: str | Path,
    *,
    crops: int = 2,
    seed: int = 0,
) -> list[Path]:
    """Compare what encoders make of CT and of MRI at the same places.

    ``cka.png``, ``tsne_<model>.png``, ``attention_difference_<model>.png``, each with its CSV, and ``density.csv`` are
    written. ``models`` are folders of fine-tuned models by name; sub-volumes are cut as the first one needs them, from
    ``pairs`` (see :func:`~swinfuse_components.evaluation.features.paired_crops`) that no model was trained on.
    """
    folder = Path(output_dir)
    description = read_model(next(iter(models.values())))[1]
    grid = {key: description[key] for key in ("roi_size", "spacing")}
    ct_window = description["ct_window"] or (-1000.0, 1000.0)
    places = paired_crops(pairs, **grid, ct_window=ct_window, crops=crops, seed=seed)
    written, cka, densities = [], [], []
    for name, path in models.items():
        encoder = _encoder(model_source(path))
        pooled = pooled_pairs(encoder, places)
        for way, (ct, mr) in pooled.items():
            cka += [{"model": name, "encoder": way, **record} for record in cka_by_stage(ct, mr, seed=seed)]
        densities += [{"model": name, **record} for record in density_records(encoder, places, seed=seed)]
        ct, mr = next(iter(pooled.values()))  # with the module, where there is one
        points, file = tsne_table(ct[-1], mr[-1], places.patients, seed=seed), folder / f"tsne_{_plain(name)}.png"
        write_csv(points, file.with_suffix(".csv"))
        mixing = f"neighbours of the same modality: {points['same_modality'].mean():.0%}"
        written.append(scatter(points, file, title=f"{name}, last stage; lines join a place\n{mixing}"))
        if encoder.domain_invariance is not None:
            records = pd.DataFrame(attention_records(encoder, places))
            file = folder / f"attention_difference_{_plain(name)}.png"
            write_csv(records, file.with_suffix(".csv"))
            titles = {"same_place": "CT and MRI of one place"}
            titles |= {"other_ct": "CT of two places", "other_mr": "MRI of two places"}
            lines = records.groupby(["layer", "between"])["divergence"].mean().unstack()[list(titles)]
            label = {"xlabel": "layer of the module", "ylabel": "divergence of attention, nats"}
            written.append(curves(lines.rename(columns=titles), file, title=name, **label))
    table = pd.DataFrame(cka)
    write_csv(pd.DataFrame(densities), folder / "density.csv")
    write_csv(table, folder / "cka.csv")
    lines = table.set_index(["stage", table["model"] + ", " + table["encoder"]])["cka"].unstack()
    lines["unrelated places, 95th percentile"] = table.groupby("stage")["unrelated_95"].max()
    label = {"xlabel": "stage (0: patch embedding)", "ylabel": "linear CKA of CT and MRI"}
    written.append(curves(lines, folder / "cka.png", title=f"{len(places.patients)} places", **label))
    logger.info("pictures: %s", ", ".join(map(str, written)))
    return written
