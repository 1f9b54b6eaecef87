"""Pictures that explain a model, each with its numbers as CSV: attention, features of CT and MRI, segmentations."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor

from ..networks import SwinFUSEEncoder
from ..visualization.attention import AttentionPicture, attention_overlay
from ..visualization.curves import curves
from ..visualization.scatter import scatter
from ..visualization.segmentations import side_by_side
from .crops import paired_crops
from .features import (
    attention_records,
    cka_by_stage,
    density_records,
    gate_volume,
    pooled_pairs,
    tsne_records,
)
from .folders import model_source, read_model
from .gallery import drawn_classes, gallery, read_index
from .records import write_csv
from .sources import NetworkSource
from .targets import Target, case_name

logger = logging.getLogger(__name__)


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

    Args:
        model_dir: folder of a fine-tuned model with a domain invariance module.
        targets: data sets; one row each.
        output_dir: ``attention.png`` and ``attention.csv`` are written there.
        patient: patient to show; by default the first one of the first target that the others have too and the model
            was not trained on.
        plane: of the slice.
        overlap: of the windows.

    Raises:
        ValueError: if the model has no module, or a target has no case of the patient.
    """
    source = model_source(model_dir, overlap=overlap)
    encoder = _encoder(source)
    common = [str(item.get("patient")) for item in targets[0].items]
    shared = [p for p in common if all(p in target.patients for target in targets[1:])] or common
    unseen = [p for p in shared if p not in source.training_patients] or shared
    wanted = patient or unseen[0]
    rows = []
    for target in targets:
        chosen = [i for i in target.items if wanted in (str(i.get("patient")), case_name(i))]
        if not chosen and patient is not None:
            raise ValueError(f"no case of patient {patient!r} in {target.name}: it has {sorted(target.patients)}")
        case = target.load((chosen or target.items)[0]).only(next(iter(target.views.values())))
        item = dict(source.preprocessing({"image": case.image, "modality": case.modality}))
        prepared = item["image"]
        item["pred"] = MetaTensor(gate_volume(encoder, prepared, overlap=overlap)[None], meta=prepared.meta)
        gate = source.inverter(item)["pred"][0]
        item["pred"] = MetaTensor(torch.as_tensor(prepared), meta=prepared.meta)
        grey = source.inverter(item)["pred"][0]
        rows.append(
            AttentionPicture(
                name=f"{case.name}, {case.modality.upper()}",
                image=np.asarray(grey),
                gate=np.asarray(gate),
                affine=np.asarray(cast(MetaTensor, case.image).affine),
                truth=case.truth,
                prediction=source.predict(case),
            )
        )
    return attention_overlay(rows, Path(output_dir) / "attention.png", plane=plane)


def segmentation_figure(
    evaluation: str | Path,
    output_dir: str | Path,
    *,
    target: str | None = None,
    cases: Sequence[str] | None = None,
    count: int = 3,
    view: str = "image",
    plane: str = "axial",
    margin: float | None = None,
) -> list[Path]:
    """The paper's Fig. 3: segmentations of every model side by side, one figure for each target of an evaluation.

    Args:
        evaluation: ``output_dir`` of a finished evaluation that kept its predictions.
        output_dir: ``segmentations_<target>.png`` and ``.csv`` are written there.
        target: one column alone.
        cases: names of cases; by default ``count`` between the worst and the best.
        count: see ``cases``.
        view: what the models were shown.
        plane: of the slice.
        margin: show only the labelled part and so many millimetres around it.
    """
    index = read_index(evaluation)
    written = []
    for name in [target] if target is not None else list(index["targets"]):
        rows = gallery(evaluation, name, cases=cases, count=count, view=view)
        plain = "".join(c if c.isalnum() else "_" for c in name)
        file = Path(output_dir) / f"segmentations_{plain}.png"
        written.append(side_by_side(rows, file, classes=drawn_classes(index, name), plane=plane, margin=margin))
    return written


def feature_figures(
    models: Mapping[str, str | Path],
    pairs: Iterable[Mapping[str, Any]],
    output_dir: str | Path,
    *,
    crops: int = 2,
    seed: int = 0,
) -> list[Path]:
    """Compare what encoders make of CT and of MRI at the same places.

    Args:
        models: folders of fine-tuned models by name; the sub-volumes are cut as the first one needs them.
        pairs: registered CT and MRI, see :func:`~swinfuse_components.evaluation.crops.paired_crops`. Give patients
            that no model was trained on.
        output_dir: ``cka.png``, ``tsne_<model>.png``, ``attention_difference_<model>.png``, each with its CSV, and
            ``density.csv`` are written there.
        crops: sub-volumes of each patient.
        seed: of their places, and of t-SNE.
    """
    folder = Path(output_dir)
    description = read_model(next(iter(models.values())))[1]
    places = paired_crops(
        list(pairs),
        roi_size=description["roi_size"],
        spacing=description["spacing"],
        ct_window=description.get("ct_window") or (-1000.0, 1000.0),
        crops=crops,
        seed=seed,
    )
    written, cka, densities = [], [], []
    for name, path in models.items():
        encoder = _encoder(model_source(path))
        pooled = pooled_pairs(encoder, places)
        for way, (ct, mr) in pooled.items():
            cka += [{"model": name, "encoder": way, **record} for record in cka_by_stage(ct, mr, seed=seed)]
        densities += [{"model": name, **record} for record in density_records(encoder, places, seed=seed)]
        plain = "".join(c if c.isalnum() else "_" for c in name)
        ct, mr = next(iter(pooled.values()))  # with the module, where there is one
        points = tsne_records(ct[-1], mr[-1], places.patients, seed=seed)
        write_csv(folder / f"tsne_{plain}.csv", points)
        half = len(points) // 2
        mixing = np.mean([p["same_modality"] for p in points])
        written.append(
            scatter(
                {m.upper(): [(p["x"], p["y"]) for p in points if p["modality"] == m] for m in ("ct", "mr")},
                folder / f"tsne_{plain}.png",
                title=f"{name}, last stage; lines join a place\nneighbours of the same modality: {mixing:.0%}",
                links=[((a["x"], a["y"]), (b["x"], b["y"])) for a, b in zip(points[:half], points[half:])],
            )
        )
        if encoder.domain_invariance is not None:
            records = attention_records(encoder, places)
            write_csv(folder / f"attention_difference_{plain}.csv", records)
            written.append(_attention_difference(name, records, folder / f"attention_difference_{plain}.png"))
    write_csv(folder / "density.csv", densities)
    write_csv(folder / "cka.csv", cka)
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for record in cka:
        x, y = lines.setdefault(f"{record['model']}, {record['encoder']}", ([], []))
        x.append(record["stage"])
        y.append(record["cka"])
    chance: dict[int, list[float]] = defaultdict(list)
    for record in cka:
        chance[record["stage"]].append(record["unrelated_95"])
    lines["unrelated places, 95th percentile"] = (list(chance), [max(values) for values in chance.values()])
    title, ylabel = f"{len(places.patients)} places", "linear CKA of CT and MRI"
    cka_file = folder / "cka.png"
    written.append(curves(lines, cka_file, title=title, xlabel="stage (0: patch embedding)", ylabel=ylabel))
    logger.info("pictures: %s", ", ".join(str(path) for path in written))
    return written


def _attention_difference(name: str, records: Sequence[Mapping[str, Any]], path: Path) -> Path:
    titles = {
        "same_place": "CT and MRI of one place",
        "other_ct": "CT of two places",
        "other_mr": "MRI of two places",
    }
    lines = {}
    layers = sorted({record["layer"] for record in records})
    for kind, title in titles.items():
        means = [
            float(np.mean([r["divergence"] for r in records if (r["layer"], r["between"]) == (layer, kind)]))
            for layer in layers
        ]
        lines[title] = ([float(layer) for layer in layers], means)
    ylabel = "divergence of attention, nats"
    return curves(lines, path, title=name, xlabel="layer of the module", ylabel=ylabel)
