"""From folders on disk to data lists, folds and the embedded demo cohort."""

from .brats import BRATS_CHANNELS, BRATS_LABELS, brats_datalist
from .demo import DEMO_LABELS, make_demo_cohort
from .findings import KINDS, DataListError, Finding
from .fold_writer import write_folds
from .folds import assign_folds, load_fold, load_folds, save_folds, select_patients, split_folds, split_patients
from .integrity import check_datalist, find_problems
from .msd import MSDTask, msd_datalist, read_msd_task
from .paths import UnsafePathError, resolve_inside
from .sampling import modality_weights
from .synthrad import images_of_pairs, synthrad_datalist
from .validation import find_datasets, validate_dataset, validate_folder

__all__ = [
    "BRATS_CHANNELS",
    "BRATS_LABELS",
    "DEMO_LABELS",
    "KINDS",
    "DataListError",
    "Finding",
    "MSDTask",
    "UnsafePathError",
    "assign_folds",
    "brats_datalist",
    "check_datalist",
    "find_datasets",
    "find_problems",
    "images_of_pairs",
    "load_fold",
    "load_folds",
    "make_demo_cohort",
    "modality_weights",
    "msd_datalist",
    "read_msd_task",
    "resolve_inside",
    "save_folds",
    "select_patients",
    "split_folds",
    "split_patients",
    "synthrad_datalist",
    "validate_dataset",
    "validate_folder",
    "write_folds",
]
