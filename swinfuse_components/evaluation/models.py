"""Rows of the matrix: fine-tuned networks, and predictions that another program has written."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer
from monai.transforms import Invertd, KeepLargestConnectedComponent

from ..checkpoints import load_weights, sha256
from ..data import item_key, same_patients
from ..data.paths import existing_path, find_volume
from ..data.volumes import too_large
from ..finetuning import (
    AdaptingInferer,
    PrecisionInferer,
    build_network,
    build_preprocessing,
    labels_of_regions,
    read_description,
    regions_of,
)
from ..transforms import VIEWS
from .targets import Case, Source, Target, read_labels


class NetworkSource(Source):
    """A fine-tuned network: what its ``model.json`` describes, with the weights of its checkpoint.

    Args:
        description: see :func:`~swinfuse_components.finetuning.read_description`.
        checkpoint: file with its weights; every weight has to fit.
        name: by default the description's ``model_name``, else SwinFUSE, or Swin UNETR without a module.
        views: what it is shown at test time, of :data:`~swinfuse_components.transforms.VIEWS`.
        native: scale every target as the training modality, not as its own.
        overlap, sw_batch_size: of the sliding windows.
        match_histogram: match images to the histogram of the training images; None: where the description holds one.
        largest_component: labels of which only the largest connected component is kept; None: the description's.
        adapt_rounds: steps of adaptation to each scan, see :class:`~swinfuse_components.finetuning.AdaptingInferer`.
        precision, backend: see :class:`~swinfuse_components.finetuning.PrecisionInferer`.

    Raises:
        ValueError: if a view does not exist, or a histogram is to be matched that is not there.
    """

    keeps_predictions = True

    def __init__(
        self,
        description: Mapping[str, Any],
        checkpoint: str | Path,
        *,
        name: str | None = None,
        views: Sequence[str] = ("image",),
        native: bool = False,
        overlap: float = 0.5,
        sw_batch_size: int = 1,
        match_histogram: bool | None = None,
        largest_component: Sequence[int] | None = None,
        adapt_rounds: int = 0,
        precision: str = "float32",
        backend: str = "torch",
        device: str | torch.device = "cpu",
    ) -> None:
        default = "Swin UNETR" if description["dim"] == "none" else "SwinFUSE"
        self.name = name or str(description.get("model_name") or default)
        if (unknown := [view for view in views if view not in VIEWS]) or not views:
            raise ValueError(f"{self.name}: views {unknown} do not exist, expected some of {sorted(VIEWS)}")
        if match_histogram and not description["histogram"]:
            raise ValueError(f"{self.name}: match_histogram, but model.json has no histogram of the training images")
        rules: dict[str, Any] = {} if largest_component is None else {"largest_component": list(largest_component)}
        rules |= {"histogram": None} if match_histogram is False else {}
        self.description, self.checkpoint, self.views = {**description, **rules}, checkpoint, tuple(views)
        self.trained_on, self.native, self.device = str(description["name"]), native, torch.device(device)
        self.classes = {text: int(value) for value, text in description["labels"].items() if int(value) != 0}
        self.training_patients = frozenset(_patients(description))
        self.network: torch.nn.Module = build_network(description)
        # each item says its own modality
        self.preprocessing = build_preprocessing({**self.description, "modality": None}, load=False)
        roi_size = description["roi_size"]
        windows = SlidingWindowInferer(roi_size, sw_batch_size, overlap, mode="gaussian")
        self.inferer: Inferer = PrecisionInferer(windows, precision, backend)
        if adapt_rounds:
            self.inferer = AdaptingInferer(self.inferer, roi_size, rounds=adapt_rounds)
        self._settings, self._loaded = [overlap, native, adapt_rounds, precision, backend], False

    def load(self) -> None:
        """Load the checkpoint, once, with every weight at its place; else an error of ``load_weights``."""
        if not self._loaded:
            load_weights(self.network, self.checkpoint)
            self.network.to(self.device).eval()
            self._loaded = True

    def fingerprint(self) -> str:
        """Description, settings, and the checkpoint's hash."""
        parts = [self.name, self.description, self._settings, sha256(self.checkpoint)]
        return json.dumps(parts, sort_keys=True, default=str)

    def problems(self, target: Target) -> list[str]:
        """Whether the checkpoint fits, and the channels."""
        found, takes, who = [], len(self.description["channels"]), f"model {self.name} ({self.trained_on})"
        try:
            self.load()
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            found.append(f"{who}: {' '.join(str(error).split())}")
        for view, channel in target.views.items():
            seen = len(target.channels) if channel is None else 1
            if seen != takes:
                shows = f"target {view} shows {seen} of {target.channels}: choose with the target's 'channel'"
                found.append(f"{who} takes {takes} channel(s), {shows}")
        return found

    @torch.no_grad()
    def predict(self, case: Case, view: str = "image") -> np.ndarray:
        """Labels (D, H, W) on the grid of the case: preprocess, infer, bring the probabilities back, decide."""
        modality = self.description["modality"] if self.native else case.modality
        if problem := too_large(case.image.shape[1:], case.affine, self.description["spacing"]):
            raise ValueError(problem)
        item: dict[str, Any] = dict(self.preprocessing({"image": case.image, "modality": modality}))
        shown = torch.as_tensor(VIEWS[view](item["image"]))[None].to(self.device)
        logits = self.inferer(shown, self.network)[0].float().cpu()
        if self.description["sigmoid"]:
            masks = self.restore(item, torch.sigmoid(logits)) > 0.5
            return np.asarray(labels_of_regions(masks, regions_of(self.description))[0]).astype(np.uint8)
        labels = self.restore(item, torch.softmax(logits, 0)).argmax(0, keepdim=True)
        if self.description["largest_component"]:
            labels = KeepLargestConnectedComponent(self.description["largest_component"])(labels)
        return np.asarray(labels[0]).astype(np.uint8)

    def restore(self, item: Mapping[str, Any], prepared: torch.Tensor) -> torch.Tensor:
        """Bring an array (C, D, H, W) on the grid of a prepared item back to the grid of the case."""
        invert = Invertd("pred", self.preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True)
        answer = MetaTensor(torch.as_tensor(prepared), meta=item["image"].meta)
        return torch.as_tensor(invert({**item, "pred": answer})["pred"])


class PredictionFiles(Source):
    """Predictions written by another program, nnU-Net's for instance: one label map per case, named as the label.

    They are ``<folder>/<target>/<case>.nii.gz``, or ``<folder>/<case>.nii.gz`` without a folder of the target's name. A
    case without a file is reported and left out. ``classes`` are label values by name, background left out.
    """

    keeps_predictions = True

    def __init__(
        self,
        name: str,
        trained_on: str,
        folder: str | Path,
        *,
        classes: Mapping[str, int] | None = None,
        training_patients: Iterable[str] = (),
    ) -> None:
        self.name, self.trained_on, self.folder = name, trained_on, Path(folder)
        self.classes = None if classes is None else {str(k): int(v) for k, v in classes.items()}
        self.training_patients = frozenset(same_patients(training_patients))

    def fingerprint(self) -> str:
        """Names, sizes and times of the files."""
        files = sorted(map(str, self.folder.rglob("*.nii*")))
        return item_key({"files": files}, self.name, self.trained_on).decode()

    def _file(self, target: str, case: str) -> Path:
        folder = self.folder / target if (self.folder / target).is_dir() else self.folder
        return find_volume(folder, case) or folder / f"{case}.nii.gz"

    def problems(self, target: Target) -> list[str]:
        """Whether there is at least one of the target's cases, and one column only."""
        files = [self._file(target.name, item["case"]) for item in target.items]
        if not any(file.is_file() for file in files):
            return [f"model {self.name}: no prediction of target {target.name} is there, such as {files[0]}"]
        if len(target.views) > 1:
            return [f"model {self.name}: predictions as files cannot be told apart by the channels of {target.name}"]
        return []

    def predict(self, case: Case, view: str = "image") -> np.ndarray:
        """The label map of the case; an error if there is none, or it is not on the case's grid."""
        file = self._file(case.target, case.name)
        if not file.is_file():
            raise FileNotFoundError(f"no prediction {file}")
        return read_labels(file, case.image).astype(np.uint8)


def _patients(description: Mapping[str, Any]) -> set[str]:
    return same_patients([*description["training_patients"], *description["pretraining_patients"]])


def read_model(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """Checkpoint and description of a fine-tuned model: of a run's folder, or of a checkpoint beside ``model.json``.

    FileNotFoundError if one of the two is missing, ValueError if the description is not JSON or lacks a key.
    """
    path = existing_path(folder, "model", kind="")
    checkpoint = path / "model.pt" if path.is_dir() else path
    description = checkpoint.parent / "model.json"
    for file, what in ((checkpoint, "checkpoint"), (description, "description of the model")):
        if not file.is_file():
            raise FileNotFoundError(f"no {what} {file}: expected a folder with model.pt and model.json")
    return checkpoint, read_description([description])


def model_source(folder: str | Path, **options: Any) -> NetworkSource:
    """A row from the folder of a fine-tuned model, see :func:`read_model`.

    ``options`` are those of :class:`NetworkSource`; keys of the description (``spacing``, …) replace its values.
    """
    checkpoint, description = read_model(folder)
    rules = ("largest_component", "name")  # keys of both: what the evaluation says, not the description
    changes = {key: options.pop(key) for key in list(options) if key in description and key not in rules}
    return NetworkSource({**description, **changes}, checkpoint, **options)


def model_sources(
    models: str | Path | Sequence[str | Path] | Mapping[str, Any], **options: Any
) -> list[NetworkSource | PredictionFiles]:
    """Rows from a folder, several, or ``{name: folder or folders}``, with ``options`` as of :func:`model_source`.

    Instead of a folder a dictionary may stand: ``{"predictions": folder, "trained_on": name, "classes": {name:
    value}}`` for label maps that another program has written, or ``{"folder": folder, …}`` with options of its own.
    """
    sources: list[NetworkSource | PredictionFiles] = []
    named: Mapping[Any, Any] = models if isinstance(models, Mapping) else {None: models}
    for name, entries in named.items():
        for entry in entries if isinstance(entries, (list, tuple)) else [entries]:
            own = dict(entry) if isinstance(entry, Mapping) else {"folder": entry}
            if "predictions" in own:
                sources.append(PredictionFiles(name or "predictions", folder=own.pop("predictions"), **own))
            else:
                sources.append(model_source(own.pop("folder"), **{**options, "name": name, **own}))
    return sources


def unseen(items: Iterable[Mapping[str, Any]], models: Mapping[str, str | Path]) -> list[Mapping[str, Any]]:
    """Items of patients that none of the models was trained or pre-trained on; ValueError if there are none."""
    seen = set().union(*(_patients(read_model(folder)[1]) for folder in models.values()))
    left = [item for item in items if not same_patients([item["patient"]]) & seen]
    if not left:
        raise ValueError(f"every patient of the data set was trained on by one of {sorted(models)}")
    return left
