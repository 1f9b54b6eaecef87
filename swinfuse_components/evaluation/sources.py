"""Models to test: networks with their checkpoint, and predictions that another program has written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import Compose, Invertd, KeepLargestConnectedComponent

from ..checkpoints import read_weights, sha256
from ..data import same_patients
from ..transforms import VIEWS
from .targets import Case, Target, case_name, read_labels


class Source(Protocol):
    """What the matrix asks of a row: a network, a folder of predictions or a trivial baseline."""

    name: str
    trained_on: str
    views: Sequence[str]
    classes: Mapping[str, int] | None
    training_patients: frozenset[str]
    keeps_predictions: bool

    def fingerprint(self) -> str:
        """A text that changes when the answers would."""

    def problems(self, target: Target) -> list[str]:
        """Reasons why this row cannot be computed for a target; empty if it can."""

    def predict(self, case: Case, view: str = "image") -> np.ndarray:
        """Labels (D, H, W) on the grid of the case."""


def describe(value: Any, depth: int = 4) -> str:
    """Plain settings of an object, nested objects included, as text: equal texts mean equal settings."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{describe(v, depth)}" for k, v in sorted(value.items(), key=str)) + "}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "[" + ",".join(describe(v, depth) for v in value) + "]"
    if isinstance(value, np.ndarray):
        return describe(value.tolist(), depth)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if depth == 0 or isinstance(value, (np.random.RandomState, torch.nn.Module)) or not hasattr(value, "__dict__"):
        return name
    return name + describe({k: v for k, v in vars(value).items() if k not in ("R", "_parameters")}, depth - 1)


def patients_of(entries: Iterable[Any]) -> frozenset[str]:
    """Patients named by a list of identifiers, or by a data list with the key ``patient``."""
    return frozenset(same_patients(entry["patient"] if isinstance(entry, Mapping) else entry for entry in entries))


class NetworkSource:
    """A network with the weights of its checkpoint, its preprocessing and its inferer.

    Args:
        name: the model's name, a part of the cell: ``SwinFUSE``.
        trained_on: the data set it was trained on, the row of the table.
        network: called with (1, C, D, H, W), answers logits (1, classes, D, H, W).
        checkpoint: file with its weights; every weight has to fit. None keeps the network as it is (a random one).
        preprocessing: deterministic dictionary transforms of ``image`` after reading: orientation, spacing,
            intensities. The item's ``modality`` says how to scale.
        inferer: such as MONAI's ``SlidingWindowInferer``.
        modality: of the training images, for ``native``.
        classes: label value by name, background left out.
        in_channels: number of channels the network takes.
        sigmoid: channels are overlapping regions with a sigmoid each, numbered 1, 2, … in order; where regions overlap
            the later one is kept. Otherwise softmax with background first.
        views: what it is shown at test time, of :data:`~swinfuse_components.transforms.VIEWS`.
        native: scale every target as the training modality, not as its own.
        largest_component: label values of which only the largest connected component is kept.
        training_patients: patients trained on, for the check against leaks.
        device: where the network runs.

    Raises:
        ValueError: if a view does not exist.
    """

    keeps_predictions = True

    def __init__(
        self,
        name: str,
        trained_on: str,
        network: torch.nn.Module,
        checkpoint: str | Path | None,
        preprocessing: Compose | Sequence[Callable],
        inferer: Inferer,
        *,
        modality: str = "ct",
        classes: Mapping[str, int] | None = None,
        in_channels: int = 1,
        sigmoid: bool = False,
        views: Sequence[str] = ("image",),
        native: bool = False,
        largest_component: Sequence[int] = (),
        training_patients: Iterable[Any] = (),
        device: str | torch.device = "cpu",
    ) -> None:
        unknown = [view for view in views if view not in VIEWS]
        if unknown or not views:
            raise ValueError(f"{name}: views {unknown} do not exist, expected some of {sorted(VIEWS)}")
        self.name, self.trained_on, self.checkpoint = name, trained_on, checkpoint
        self.network, self.inferer, self.device = network, inferer, torch.device(device)
        self.preprocessing = preprocessing if isinstance(preprocessing, Compose) else Compose(list(preprocessing))
        self.modality, self.native, self.sigmoid, self.views = modality, native, sigmoid, tuple(views)
        self.classes = None if classes is None else {str(k): int(v) for k, v in classes.items()}
        self.in_channels = in_channels
        self.largest_component = tuple(largest_component)
        self.training_patients = patients_of(training_patients)
        self.inverter = Invertd("pred", self.preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True)
        self._loaded = False

    def load(self) -> None:
        """Load the checkpoint, once, with every weight at its place.

        Raises:
            ValueError: if it cannot be read safely, or a weight is missing, left over or of another shape.
        """
        if self._loaded:
            return
        if self.checkpoint is not None:
            weights = read_weights(self.checkpoint)
            own = self.network.state_dict()
            wrong = [f"{key} is missing" for key in own if key not in weights]
            wrong += [f"{key} has no place in the network" for key in weights if key not in own]
            wrong += [
                f"{key} is {tuple(value.shape)}, expected {tuple(own[key].shape)}"
                for key, value in weights.items()
                if key in own and value.shape != own[key].shape
            ]
            if wrong:
                more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
                raise ValueError(f"{self.checkpoint} does not fit the network: {'; '.join(wrong[:3])}{more}")
            self.network.load_state_dict(weights)
        self.network.to(self.device).eval()
        self._loaded = True

    def fingerprint(self) -> str:
        """Checkpoint's hash and all settings."""
        weights = "none" if self.checkpoint is None else sha256(self.checkpoint)
        settings: tuple = (self.preprocessing.transforms, self.inferer, self.modality, self.native, self.sigmoid)
        settings += (self.largest_component,) if self.largest_component else ()
        return f"{self.name} {self.trained_on} {weights} {describe(settings)}"

    def problems(self, target: Target) -> list[str]:
        """Whether the checkpoint fits, and the channels."""
        found = []
        try:
            self.load()
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            found.append(f"model {self.name} ({self.trained_on}): {' '.join(str(error).split())}")
        for view in target.views:
            if target.seen_channels(view) != self.in_channels:
                found.append(
                    f"model {self.name} ({self.trained_on}) takes {self.in_channels} channel(s), target {view} shows "
                    f"{target.seen_channels(view)} of {target.channels}: choose with the target's 'channel'"
                )
        return found

    @torch.no_grad()
    def predict(self, case: Case, view: str = "image") -> np.ndarray:
        """Labels (D, H, W) on the grid of the case: preprocess, infer, bring the probabilities back, decide."""
        item: dict[str, Any] = {"image": case.image, "modality": self.modality if self.native else case.modality}
        item = dict(self.preprocessing(item))
        shown = VIEWS[view](item["image"])
        logits = self.inferer(torch.as_tensor(shown)[None].to(self.device), self.network)[0].float().cpu()
        probabilities = torch.sigmoid(logits) if self.sigmoid else torch.softmax(logits, 0)
        restored = self.restore(item, probabilities)
        if self.sigmoid:
            labels = torch.zeros(restored.shape[1:], dtype=torch.int16)
            for number, channel in enumerate(restored, start=1):
                labels[channel > 0.5] = number
            return labels.numpy().astype(np.uint8)
        chosen = restored.argmax(0, keepdim=True)
        if self.largest_component:
            chosen = KeepLargestConnectedComponent(self.largest_component)(chosen)
        return np.asarray(chosen[0]).astype(np.uint8)

    def restore(self, item: Mapping[str, Any], prepared: torch.Tensor) -> torch.Tensor:
        """Bring an array (C, D, H, W) on the grid of a prepared item back to the grid of the case."""
        restored = self.inverter({**item, "pred": MetaTensor(torch.as_tensor(prepared), meta=item["image"].meta)})
        return torch.as_tensor(restored["pred"])


class PredictionFiles:
    """Predictions written by another program, nnU-Net's for instance: one label map per case, named as the label.

    Args:
        name: the model's name.
        trained_on: the data set it was trained on.
        folder: where the predictions lie: ``<folder>/<target>/<case>.nii.gz``, or ``<folder>/<case>.nii.gz`` if there
            is no folder of the target's name. A case without a file is reported and left out.
        classes: label value by name, background left out.
        training_patients: patients trained on, for the check against leaks.
    """

    views: Sequence[str] = ("image",)
    keeps_predictions = True

    def __init__(
        self,
        name: str,
        trained_on: str,
        folder: str | Path,
        *,
        classes: Mapping[str, int] | None = None,
        training_patients: Iterable[Any] = (),
    ) -> None:
        self.name, self.trained_on, self.folder = name, trained_on, Path(folder)
        self.classes = None if classes is None else {str(k): int(v) for k, v in classes.items()}
        self.training_patients = patients_of(training_patients)

    def fingerprint(self) -> str:
        """Folder, with names, sizes and times of its files."""
        files = sorted(self.folder.rglob("*.nii*")) if self.folder.is_dir() else []
        stats = [(file, file.stat()) for file in files]
        return f"{self.name} {self.trained_on} " + "|".join(f"{f}:{s.st_size}:{s.st_mtime_ns}" for f, s in stats)

    def _file(self, target: str, case: str) -> Path:
        inner = self.folder / target
        return (inner if inner.is_dir() else self.folder) / f"{case}.nii.gz"

    def problems(self, target: Target) -> list[str]:
        """Whether there is at least one of the target's cases, and one column only."""
        files = [self._file(target.name, case_name(item)) for item in target.items]
        if not any(file.is_file() for file in files):
            return [f"model {self.name}: no prediction of target {target.name} is there, such as {files[0]}"]
        if len(target.views) > 1:
            return [f"model {self.name}: predictions as files cannot be told apart by the channels of {target.name}"]
        return []

    def predict(self, case: Case, view: str = "image") -> np.ndarray:
        """Read the label map of the case.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is not on the case's grid, or holds fractions.
        """
        file = self._file(case.target, case.name)
        if not file.is_file():
            raise FileNotFoundError(f"no prediction {file}")
        return read_labels(file, case.image).astype(np.uint8)
