"""Data sets in any layout to checked data lists, folds and mixtures for pre-training."""

from .checks import DataListError, Finding, Kind, check_datalist, find_problems
from .folds import (
    assign_folds,
    load_fold,
    load_folds,
    sampling_weights,
    save_folds,
    select_patients,
    split_folds,
    split_patients,
)
from .inputs import OutputNames, check_inputs, list_images, list_sequences
from .layouts import BRATS_CHANNELS, BRATS_LABELS, brats_datalist, synthrad_datalist
from .mixture import images_of_pairs, layout_of, pairs_of, pretraining_items, read_source, read_task
from .modalities import Modality, get_modality, register_modality
from .paths import UnsafePathError, resolve_inside
from .patients import patient_of, same_patients
from .tasks import Task, msd_datalist, read_msd_task

__all__ = [
    "BRATS_CHANNELS",
    "BRATS_LABELS",
    "DataListError",
    "Finding",
    "Kind",
    "Modality",
    "OutputNames",
    "Task",
    "UnsafePathError",
    "assign_folds",
    "brats_datalist",
    "check_datalist",
    "check_inputs",
    "find_problems",
    "get_modality",
    "images_of_pairs",
    "layout_of",
    "list_images",
    "list_sequences",
    "load_fold",
    "load_folds",
    "msd_datalist",
    "pairs_of",
    "patient_of",
    "pretraining_items",
    "read_msd_task",
    "read_source",
    "read_task",
    "register_modality",
    "resolve_inside",
    "same_patients",
    "sampling_weights",
    "save_folds",
    "select_patients",
    "split_folds",
    "split_patients",
    "synthrad_datalist",
]
