"""Data sets in any layout to checked data lists, folds and mixtures for pre-training."""

# ruff: noqa: F401, I001
from .caching import DiskCacheDataset, item_key, transform_key
from .checks import check_datalist, check_resampling, find_problems
from .dicom_seg import SaveDicomSegmentationd
from .findings import WARNINGS, DataListError, Finding, Kind
from .folds import assign_folds, load_fold, load_folds, sampling_weights, save_folds
from .folds import select_patients, split_folds, split_patients
from .inputs import check_inputs, list_images, refuse_left_out
from .layouts import BRATS_CHANNELS, BRATS_LABELS, brats_datalist, synthrad_datalist
from .mixture import describe_task, images_of_pairs, joint_datalist, layout_of, pairs_of, pretraining_items
from .mixture import read_source, read_task, two_images
from .modalities import Modality, get_modality, register_modality
from .paths import UnsafePathError, resolve_inside
from .patients import patient_of, patients_record, same_patients
from .saving import AtomicSaveImaged, OutputNames
from .synthetic import synthetic_volumes
from .tasks import Task, msd_datalist, read_msd_task
