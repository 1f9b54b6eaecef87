"""Write seeded folds by patient as JSON; data sets that share patients (by name) get the same folds.

python scripts/folds.py OUTPUT_DIR DATASET_DIR [DATASET_DIR …] [--layout msd|brats|synthrad] [--num_folds 5] [--seed 0]
"""

import fire

from swinfuse_components.data import write_folds

if __name__ == "__main__":
    fire.Fire(write_folds)
