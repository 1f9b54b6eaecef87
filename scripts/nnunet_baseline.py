"""nnU-Net on the folds of a task, so that its row stands in the table beside ours.

    python scripts/nnunet_baseline.py /data/Task04_Hippocampus --fold 0 --work_dir runs/nnunet_task04

needs the extra ``nnunet``, best in an environment of its own (``pip install 'swinfuse-components[nnunet]'``). The folds
are those of ``finetune_msd`` with the same ``num_folds`` and ``split_seed``. The default is nnU-Net's 1000
epochs of 250 steps; ``--epochs 5 --iterations 20 --device cpu`` is a trial.
"""

from __future__ import annotations

from typing import Any

import fire

from swinfuse_components.data import load_folds, read_task, split_folds
from swinfuse_components.engines import short_errors
from swinfuse_components.finetuning import read_description, regions_of
from swinfuse_components.finetuning.nnunet import run_nnunet_fold


def main(
    dataset_dir: str,
    fold: int,
    work_dir: str,
    num_folds: int = 5,
    split_seed: int = 0,
    fold_file: str | None = None,
    regions: dict[str, list[int]] | None = None,
    **options: Any,
) -> None:
    """Train and score nnU-Net on one fold; see ``run_nnunet_fold`` for the options."""
    if fold_file is not None:
        items = load_folds(fold_file, root=dataset_dir)
    else:
        items = split_folds(read_task(dataset_dir)[1], num_folds, seed=split_seed)
    task = read_description([dataset_dir])
    task["regions"] = regions or regions_of(task)
    record = run_nnunet_fold(items, fold, task, dataset_dir, work_dir, **options)
    print(f"{record['model']}, fold {fold}: {record['mean']}")


if __name__ == "__main__":
    short_errors()
    fire.Fire(main)
