"""nnU-Net on the folds of a task, so that its row stands in the table beside ours.

    python scripts/nnunet_baseline.py /data/Task04_Hippocampus --fold 0 --work_dir runs/nnunet_task04

needs the extra ``nnunet``, best in an environment of its own (``pip install 'swinfuse-components[nnunet]'``). The folds
are those of ``finetune_msd`` with the same ``num_folds`` and ``split_seed``, the metric is the same. The default is
nnU-Net's 1000 epochs of 250 steps; ``--epochs 5 --iterations 20 --device cpu`` is a trial.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fire

from swinfuse_components.data import load_folds, read_task, split_folds
from swinfuse_components.engines import short_errors
from swinfuse_components.evaluation import score_label_maps, write_evaluation
from swinfuse_components.finetuning import patients_of, read_description, regions_of

# nnU-Net's own training program finds a trainer by importing every module that nnU-Net has, among them some that need
# a torchvision which fits torch. This one names its class. nnU-Net reads the arguments of __init__ by their names.
PROGRAM = """import torch
from nnunetv2.run import run_training
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
class {name}(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device('cuda')):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch = {epochs}, {iterations}
        self.num_val_iterations_per_epoch = {validation}
run_training.recursive_find_trainer_class_by_name = lambda _: {name}
if __name__ == '__main__':
    run_training.run_training_entry()
"""


def nnunet_datalist(items: Sequence[Mapping[str, Any]], dataset_dir: str) -> dict[str, Any]:
    """The data list that ``nnUNetV2Runner`` converts: images and labels relative to ``dataset_dir``."""
    relative = [
        {key: os.path.relpath(item[key], dataset_dir) for key in ("image", "label")} | {"fold": item["fold"]}
        for item in items
    ]
    # the runner (MONAI 1.6.1) cannot convert a list without test images; nothing reads this one
    return {"training": relative, "testing": [{"image": relative[0]["image"]}]}


def nnunet_splits(items: Sequence[Mapping[str, Any]]) -> list[dict[str, list[str]]]:
    """``splits_final.json`` of nnU-Net for items with ``fold``; the runner names cases by their place in the list."""
    cases = [(f"case_{number}", item["fold"]) for number, item in enumerate(items)]
    return [
        {"train": [name for name, own in cases if own != fold], "val": [name for name, own in cases if own == fold]}
        for fold in sorted({fold for _, fold in cases})
    ]


def main(
    dataset_dir: str,
    fold: int,
    work_dir: str,
    num_folds: int = 5,
    split_seed: int = 0,
    fold_file: str | None = None,
    regions: dict[str, list[int]] | None = None,
    dataset_id: int = 900,
    configuration: str = "3d_fullres",
    epochs: int = 1000,
    iterations: int = 250,
    device: str = "cuda",
    processes: int = 2,
) -> None:
    """Convert, plan, train one fold, and score its held-out cases.

    Args:
        dataset_dir: folder of the task.
        fold: the fold that is held out.
        work_dir: where nnU-Net keeps its data, plans and models; a second call continues there.
        num_folds: of the split.
        split_seed: of the split.
        fold_file: JSON with the folds, in place of the seeded split.
        regions: ``{name: label values}`` to score; each class by default.
        dataset_id: nnU-Net's number for the data set.
        configuration: nnU-Net's configuration, ``2d`` or ``3d_fullres``.
        epochs: length of the training.
        iterations: steps of an epoch.
        device: ``cuda`` or ``cpu``.
        processes: worker processes of preprocessing.
    """
    try:
        import nnunetv2  # noqa: F401
    except ImportError as error:
        raise ImportError("nnU-Net is not installed: pip install 'swinfuse-components[nnunet]'") from error
    from monai.apps.nnunet import nnUNetV2Runner

    if fold_file is not None:
        items = load_folds(fold_file, root=dataset_dir)
    else:
        items = split_folds(read_task(dataset_dir)[1], num_folds, seed=split_seed)
    task = read_description([dataset_dir])
    task["regions"] = regions or regions_of(task)
    work = Path(work_dir).resolve()
    work.mkdir(parents=True, exist_ok=True)
    trainer, model = "nnUNetTrainer", "nnU-Net"
    if (epochs, iterations) != (1000, 250):
        trainer, model = f"nnUNetTrainer_{epochs}x{iterations}", f"nnU-Net ({epochs}x{iterations})"
    lengths = {"epochs": epochs, "iterations": iterations, "validation": max(1, iterations // 5)}
    (work / "train.py").write_text(PROGRAM.format(name=trainer, **lengths), encoding="utf-8")
    (work / "datalist.json").write_text(json.dumps(nnunet_datalist(items, dataset_dir), indent=1), encoding="utf-8")
    folders = {name: work / f"nnUNet_{name}" for name in ("raw", "preprocessed", "results")}
    settings = {"modality": list(task["channels"]), "datalist": str(work / "datalist.json"), "dataroot": dataset_dir}
    settings |= {"dataset_name_or_id": dataset_id, **{f"nnunet_{name}": str(path) for name, path in folders.items()}}
    options = {"trainer_class_name": trainer, "work_dir": str(work), "export_validation_probabilities": False}
    runner = nnUNetV2Runner(settings, **options)
    runner.convert_dataset()
    raw = next(folders["raw"].glob(f"Dataset{dataset_id:03d}_*"), None)
    converted = len(list(raw.glob("labelsTr/*.nii.gz"))) if raw is not None else 0
    if raw is None or converted != len(items):
        left = f"left {converted} of {len(items)} cases in {folders['raw']}"
        raise RuntimeError(f"nnU-Net's conversion of {dataset_dir} {left}")
    preprocessed = folders["preprocessed"] / raw.name
    if not (preprocessed / "nnUNetPlans.json").is_file():
        runner.plan_and_process(npfp=processes, c=(configuration,), n_proc=(processes,))
    (preprocessed / "splits_final.json").write_text(json.dumps(nnunet_splits(items)), encoding="utf-8")

    results = folders["results"] / raw.name / f"{trainer}__nnUNetPlans__{configuration}"
    validation = results / f"fold_{fold}" / "validation"
    if not list(validation.glob("*.nii.gz")):
        command, environment = runner.train_single_model_command(configuration, fold, 0, {})
        # the runner has no option for the device, nnU-Net has
        command = [sys.executable, str(work / "train.py"), *command[1:], "-device", device]
        subprocess.run(command, env={**environment, "nnUNet_compile": "f"}, check=True)
    cases = []
    for number, item in enumerate(items):
        if item["fold"] == fold:
            prediction = validation / f"case_{number}.nii.gz"
            if not prediction.is_file():
                raise RuntimeError(f"nnU-Net left no prediction {prediction} for {item['image']}")
            scores = score_label_maps(prediction, item["label"], task["regions"])
            cases.append({"patient": patients_of([item])[0], "image": item["image"], **scores})
    training = patients_of(item for item in items if item["fold"] != fold)
    described = {**task, "model_name": model, "training_patients": training}
    path = work / f"fold{fold}" / "evaluation" / "evaluation.json"
    record = write_evaluation(path, described, cases, fold=fold, section="validation")
    print(f"{record['model']}, fold {fold}: {record['mean']}")


if __name__ == "__main__":
    short_errors()
    fire.Fire(main)
