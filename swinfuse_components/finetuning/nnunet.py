"""nnU-Net as a baseline: the same cases, the same folds, the same metric, through MONAI's ``nnUNetV2Runner``."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.record import score_label_maps, write_evaluation
from .description import patients_of

__all__ = ["nnunet_splits", "run_nnunet_fold", "write_nnunet_datalist"]

logger = logging.getLogger(__name__)


def write_nnunet_datalist(items: Sequence[Mapping[str, Any]], dataset_dir: str | os.PathLike[str], path: Path) -> Path:
    """Write the data list that ``nnUNetV2Runner`` converts: images and labels relative to ``dataset_dir``."""
    relative = [
        {key: os.path.relpath(item[key], dataset_dir) for key in ("image", "label")} | {"fold": item["fold"]}
        for item in items
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    # the runner (MONAI 1.6.1) cannot convert a list without test images; nothing reads this one
    content = {"training": relative, "testing": [{"image": relative[0]["image"]}]}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def nnunet_splits(items: Sequence[Mapping[str, Any]]) -> list[dict[str, list[str]]]:
    """``splits_final.json`` of nnU-Net for items with ``fold``; the runner names cases by their place in the list."""
    names = {number: f"case_{number}" for number in range(len(items))}
    return [
        {
            "train": [names[number] for number, item in enumerate(items) if item["fold"] != fold],
            "val": [names[number] for number, item in enumerate(items) if item["fold"] == fold],
        }
        for fold in sorted({item["fold"] for item in items})
    ]


def _write_program(path: Path, epochs: int | None, iterations: int | None) -> str:
    """Write the program that trains: nnU-Net's own with a trainer of the wanted length; the trainer's name.

    ``nnUNetv2_train`` finds a trainer by importing every module that nnU-Net has, among them some that need a
    ``torchvision`` which fits torch. The program names its class instead, and needs none.
    """
    name = "nnUNetTrainer"
    lines = ["from nnunetv2.run import run_training", f"from nnunetv2.training.nnUNetTrainer.{name} import {name}"]
    if epochs is not None or iterations is not None:
        epochs, iterations = epochs or 1000, iterations or 250
        name = f"nnUNetTrainer_{epochs}x{iterations}"
        lines += [
            "import torch",
            f"class {name}(nnUNetTrainer):",
            # nnU-Net reads its arguments by their names
            "    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device('cuda')):",
            "        super().__init__(plans, configuration, fold, dataset_json, device)",
            f"        self.num_epochs = {epochs}",
            f"        self.num_iterations_per_epoch = {iterations}",
            f"        self.num_val_iterations_per_epoch = {max(1, iterations // 5)}",
        ]
    lines += [
        f"run_training.recursive_find_trainer_class_by_name = lambda _: {name}",
        "if __name__ == '__main__':",
        "    run_training.run_training_entry()",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


def run_nnunet_fold(
    items: Sequence[Mapping[str, Any]],
    fold: int,
    description: Mapping[str, Any],
    dataset_dir: str | os.PathLike[str],
    work_dir: str | os.PathLike[str],
    *,
    dataset_id: int = 900,
    configuration: str = "3d_fullres",
    epochs: int | None = None,
    iterations: int | None = None,
    device: str = "cuda",
    processes: int = 2,
) -> dict[str, Any]:
    """Convert, plan, train one fold, and score its held-out cases.

    Args:
        items: the whole data list, each with ``image``, ``label``, ``fold`` (see
            :func:`~swinfuse_components.data.split_folds`).
        fold: the fold that is held out.
        description: of the task (``name``, ``channels``, ``regions``).
        dataset_dir: folder that holds the data.
        work_dir: where nnU-Net keeps its data, plans and models; a second call continues there.
        dataset_id: nnU-Net's number for the data set.
        configuration: nnU-Net's configuration, ``"2d"`` or ``"3d_fullres"``.
        epochs: length of the training; nnU-Net's 1000 by default.
        iterations: steps of an epoch; nnU-Net's 250 by default.
        device: ``"cuda"`` or ``"cpu"``.
        processes: worker processes of preprocessing.

    Returns:
        the record of the evaluation, also written to ``<work_dir>/fold<k>/evaluation/evaluation.json``.

    Raises:
        ImportError: if nnU-Net is not installed; the message says how.
        RuntimeError: if a step left no result.
    """
    try:
        import nnunetv2  # noqa: F401
    except ImportError as error:
        raise ImportError("nnU-Net is not installed: pip install 'swinfuse-components[nnunet]'") from error
    from monai.apps.nnunet import nnUNetV2Runner

    work = Path(work_dir).resolve()
    program = work / "train.py"
    trainer = _write_program(program, epochs, iterations)
    datalist = write_nnunet_datalist(items, dataset_dir, work / "datalist.json")
    folders = {f"nnunet_{name}": str(work / f"nnUNet_{name}") for name in ("raw", "preprocessed", "results")}
    runner = nnUNetV2Runner(
        {
            "modality": list(description["channels"]),
            "datalist": str(datalist),
            "dataroot": str(dataset_dir),
            "dataset_name_or_id": dataset_id,
            **folders,
        },
        trainer_class_name=trainer,
        work_dir=str(work),
        export_validation_probabilities=False,
    )
    runner.convert_dataset()
    raw = next(iter(sorted(Path(folders["nnunet_raw"]).glob(f"Dataset{dataset_id:03d}_*"))), None)
    converted = len(list((raw / "labelsTr").glob("*.nii.gz"))) if raw is not None else 0
    if raw is None or converted != len(items):
        raise RuntimeError(
            f"nnU-Net's conversion of {dataset_dir} left {converted} of {len(items)} cases in {folders['nnunet_raw']}"
        )
    preprocessed = Path(folders["nnunet_preprocessed"]) / raw.name
    if not (preprocessed / "nnUNetPlans.json").is_file():
        runner.plan_and_process(npfp=processes, c=(configuration,), n_proc=(processes,))
    splits = nnunet_splits(items)
    (preprocessed / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")

    results = Path(folders["nnunet_results"]) / raw.name / f"{trainer}__nnUNetPlans__{configuration}"
    validation = results / f"fold_{fold}" / "validation"
    if not list(validation.glob("*.nii.gz")):
        command, environment = runner.train_single_model_command(configuration, fold, 0, {})
        # the runner has no option for the device, nnU-Net has
        subprocess.run(
            [sys.executable, str(program), *command[1:], "-device", device],
            env={**environment, "nnUNet_compile": "f"},
            check=True,
        )
    cases = []
    for name, item in ((f"case_{number}", item) for number, item in enumerate(items) if item["fold"] == fold):
        prediction = validation / f"{name}.nii.gz"
        if not prediction.is_file():
            raise RuntimeError(f"nnU-Net left no prediction {prediction} for {item['image']}")
        scores = score_label_maps(prediction, item["label"], description["regions"])
        cases.append({"patient": patients_of([item])[0], "image": item["image"], **scores})
    training = patients_of(item for item in items if item["fold"] != fold)
    return write_evaluation(
        work / f"fold{fold}" / "evaluation" / "evaluation.json",
        {
            **description,
            "model_name": "nnU-Net" if trainer == "nnUNetTrainer" else f"nnU-Net ({trainer.split('_')[1]})",
            "training_patients": training,
        },
        cases,
        fold=fold,
        section="validation",
    )
