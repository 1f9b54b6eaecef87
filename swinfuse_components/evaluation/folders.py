"""Rows and columns of the matrix from folders: fine-tuned models, Decathlon tasks, BraTS patients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.inferers import Inferer, SlidingWindowInferer

from ..data import load_fold, load_folds, read_task, same_patients, split_folds
from ..finetuning import AdaptingInferer, build_network, build_preprocessing, read_description
from .baselines import MeanTrainingMask
from .sources import NetworkSource, PredictionFiles
from .targets import Target


def read_model(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """Checkpoint and description of a fine-tuned model.

    Args:
        folder: the run's folder with ``model.pt`` and ``model.json``, or a checkpoint with ``model.json`` beside it.

    Raises:
        FileNotFoundError: if one of the two is missing.
        ValueError: if the description is not JSON or lacks a key.
    """
    path = Path(folder).expanduser()
    checkpoint = path / "model.pt" if path.is_dir() else path
    description = checkpoint.parent / "model.json"
    for file, what in ((checkpoint, "checkpoint"), (description, "description of the model")):
        if not file.is_file():
            raise FileNotFoundError(f"no {what} {file}: expected a folder with model.pt and model.json")
    return checkpoint, read_description([description])


def model_source(
    folder: str | Path,
    *,
    name: str | None = None,
    overlap: float = 0.5,
    sw_batch_size: int = 1,
    random_weights: bool = False,
    match_histogram: bool | None = None,
    largest_component: Sequence[int] | None = None,
    adapt_rounds: int = 0,
    **options: Any,
) -> NetworkSource:
    """A row from the folder of a fine-tuned model.

    Args:
        folder: see :func:`read_model`.
        name: the model's name in the table; by default its description's ``model_name``, else SwinFUSE, or Swin UNETR
            where the description has ``dim: none``.
        overlap: of the sliding windows.
        sw_batch_size: windows to run at once.
        random_weights: leave out the checkpoint, for a control.
        match_histogram: match every image to the histogram of the training images, which the description holds; None:
            where it holds one.
        largest_component: label values of which only the largest connected component is kept; None: those of the
            description.
        adapt_rounds: steps of adaptation to each scan, see :class:`~swinfuse_components.finetuning.AdaptingInferer`.
        options: ``views``, ``native``, ``device`` of :class:`~swinfuse_components.evaluation.sources.NetworkSource`;
            anything else replaces a key of the description (``spacing``, ``ct_window``, …).

    Raises:
        FileNotFoundError, ValueError: see :func:`read_model`; also if a histogram is to be matched that is not there.
    """
    checkpoint, description = read_model(folder)
    source_options = {k: options.pop(k) for k in ("views", "native", "device") if k in options}
    description |= options
    classes = {text: int(value) for value, text in description["labels"].items() if int(value) != 0}
    if match_histogram and not description["histogram"]:
        raise ValueError(f"{folder}: match_histogram, but its model.json has no histogram of the training images")
    if match_histogram is False:
        description["histogram"] = None
    if largest_component is None:
        largest_component = [] if description["sigmoid"] else description["largest_component"]
    inferer: Inferer = SlidingWindowInferer(description["roi_size"], sw_batch_size, overlap, mode="gaussian")
    if adapt_rounds:
        inferer = AdaptingInferer(inferer, description["roi_size"], rounds=adapt_rounds)
    return NetworkSource(
        name or description.get("model_name") or ("Swin UNETR" if description["dim"] == "none" else "SwinFUSE"),
        str(description["name"]),
        build_network(description),
        None if random_weights else checkpoint,
        build_preprocessing({**description, "modality": None}, load=False),
        inferer,
        modality=description["modality"],
        classes=classes,
        in_channels=len(description["channels"]),
        sigmoid=description["sigmoid"],
        largest_component=largest_component,
        training_patients=[*description["training_patients"], *description["pretraining_patients"]],
        **source_options,
    )


def model_sources(
    models: str | Path | Sequence[str | Path] | Mapping[str, Any], **options: Any
) -> list[NetworkSource | PredictionFiles]:
    """Rows from folders.

    Args:
        models: a folder, several, or ``{name: folder or folders}``. Instead of a folder a dictionary may stand:
            ``{"predictions": folder, "trained_on": name, "classes": {name: value}}`` for label maps that another
            program has written, or ``{"folder": folder, …}`` with options of its own.
        options: see :func:`model_source`.
    """
    named: list[tuple[str | None, Any]] = []
    if isinstance(models, Mapping):
        for key, entry in models.items():
            entries = entry if isinstance(entry, (list, tuple)) else [entry]
            named += [(str(key), e) for e in entries]
    else:
        named = [(None, e) for e in ([models] if isinstance(models, (str, Path)) else models)]
    sources: list[NetworkSource | PredictionFiles] = []
    for name, entry in named:
        if isinstance(entry, Mapping) and "predictions" in entry:
            rest = {k: v for k, v in entry.items() if k != "predictions"}
            sources.append(PredictionFiles(name or "predictions", folder=entry["predictions"], **rest))
        elif isinstance(entry, Mapping):
            rest = {k: v for k, v in entry.items() if k != "folder"}
            sources.append(model_source(entry["folder"], name=name, **{**options, **rest}))
        else:
            sources.append(model_source(entry, name=name, **options))
    return sources


def read_target(
    dataset_dir: str | Path,
    *,
    name: str | None = None,
    channel: str | int | None = None,
    modality: str | None = None,
    patient_pattern: str | None = None,
    fold: int | None = None,
    num_folds: int = 5,
    split_seed: int = 0,
    fold_file: str | None = None,
    limit: int | None = None,
) -> Target:
    """A column from a folder in any labelled layout, see :func:`~swinfuse_components.data.read_task`.

    Args:
        dataset_dir: the folder.
        name: of the column; by default the task's name.
        channel: what a model with one channel is shown of several, see
            :class:`~swinfuse_components.evaluation.targets.Target`. One of one needs no choice.
        modality: where the data set does not tell.
        patient_pattern: see :func:`~swinfuse_components.data.patient_of`.
        fold: test on this fold alone, split as the fine-tuning bundles split; None takes every case.
        num_folds: of the split.
        split_seed: of the split.
        fold_file: JSON with the folds, in place of the seeded split.
        limit: at most so many cases, evenly spaced in the list.
    """
    task, items = read_task(Path(dataset_dir).expanduser(), modality=modality, patient_pattern=patient_pattern)
    classes = {text: value for value, text in task.labels.items() if value != 0}
    if fold_file is not None:
        items = load_folds(fold_file, root=task.dataset_dir, channels=task.channels)
    if fold is not None:
        items = load_fold(items if fold_file else split_folds(items, num_folds, seed=split_seed), fold, "validation")
    if limit is not None and limit < len(items):
        items = [items[round(i * (len(items) - 1) / max(limit - 1, 1))] for i in range(limit)]
    shown = None if task.in_channels == 1 else channel
    name = name or task.name
    return Target(name, items, modality=task.modality, classes=classes, channels=task.channels, channel=shown)


def read_targets(
    datasets: str | Path | Mapping[str, Any] | Iterable[str | Path | Mapping[str, Any]], **options: Any
) -> list[Target]:
    """Columns from folders: a folder, several, or dictionaries ``{"dataset_dir": folder, "channel": "T2", …}``."""
    entries = [datasets] if isinstance(datasets, (str, Path, Mapping)) else list(datasets)
    return [
        read_target(**{**options, **entry}) if isinstance(entry, Mapping) else read_target(entry, **options)
        for entry in entries
    ]


def mean_masks(
    datasets: Iterable[str | Path], *, fold: int | None = None, num_folds: int = 5, split_seed: int = 0
) -> list[MeanTrainingMask]:
    """The baseline of the average training mask for each of several Decathlon tasks.

    Args:
        datasets: folders of the tasks whose training masks are averaged.
        fold: the fold that is held out, as in fine-tuning; None means the first, as there.
        num_folds: of the split.
        split_seed: of the split.
    """
    return [
        MeanTrainingMask(
            load_fold(split_folds(items, num_folds, seed=split_seed), fold or 0, "training"),
            name=f"mean training mask of {task.name}",
        )
        for task, items in map(read_task, datasets)
    ]


def unseen(items: Iterable[Mapping[str, Any]], models: Mapping[str, str | Path]) -> list[Mapping[str, Any]]:
    """Items of patients that none of the models was trained on.

    Raises:
        ValueError: if there are none.
    """
    described = [read_model(folder)[1] for folder in models.values()]
    seen = same_patients(p for d in described for p in (*d["training_patients"], *d["pretraining_patients"]))
    left = [item for item in items if not same_patients([item["patient"]]) & seen]
    if not left:
        raise ValueError(f"every patient of the data set was trained on by one of {sorted(models)}")
    return left
