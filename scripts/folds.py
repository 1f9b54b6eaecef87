"""Write seeded folds by patient as JSON; data sets that share patients (by name) get the same folds.

python scripts/folds.py OUTPUT_DIR DATASET_DIR [DATASET_DIR …] [--num_folds 5] [--seed 0] [--patient_pattern …]
"""

import os
import sys
from pathlib import Path

import fire

from swinfuse_components.data import assign_folds, layout_of, read_task, save_folds, split_folds, synthrad_datalist
from swinfuse_components.engines import short_errors


def main(
    output_dir: str, *dataset_dirs: str, num_folds: int = 5, seed: int = 0, patient_pattern: str | None = None
) -> None:
    """Write `OUTPUT_DIR/<data set>_folds.json` for each data set; its paths are relative to the data set's folder."""
    lists = {}
    for folder in map(str, dataset_dirs):
        name = os.path.basename(os.path.abspath(folder))
        target = Path(str(output_dir)) / f"{name}_folds.json"
        if target.exists() or name in lists:
            sys.exit(f"error: {target} exists already, and is not replaced")
        if layout_of(folder) == "synthrad":
            lists[name] = (target, folder, synthrad_datalist(folder, patient_pattern=patient_pattern))
        else:
            lists[name] = (target, folder, read_task(folder, patient_pattern=patient_pattern)[1])
    patients = [item["patient"] for _, _, items in lists.values() for item in items]
    folds = assign_folds(patients, num_folds, seed)
    for target, folder, items in lists.values():
        print(save_folds(split_folds(items, assignment=folds), target, folder))


if __name__ == "__main__":
    short_errors()
    fire.Fire(main)
