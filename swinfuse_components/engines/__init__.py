"""What MONAI's engines lack for the trainings of this project: named loss terms, exact resume, guards, curves."""

from .accumulation import HAS_ACCUMULATION, supervised_trainer
from .configuration import bundle_root, check_configuration, save_configuration, save_patients
from .curves import LossCurves, draw_curves, read_table
from .data_order import ResumableBatchSampler, ResumableDataLoader
from .files import atomic_save, atomic_write
from .guards import EXIT_INTERRUPTED, NonFiniteGuard, NonFiniteLossError, StopOnSignal, lock_run_dir
from .messages import StatsLogger, explanation, short_errors
from .pretraining import (
    LossTerms,
    PreparePretrainingBatch,
    PretrainingTrainer,
    loss_term_metrics,
    lower_is_better,
    term_values,
)
from .progress import TrainingProgress
from .run_checkpoint import BestModelSaver, RunCheckpoint
from .saturation import SaturationWarner
from .seeded_dataset import ItemError, SeededDataset, current_iteration
from .tensorboard import middle_slices, summary_writer

__all__ = [
    "EXIT_INTERRUPTED",
    "HAS_ACCUMULATION",
    "BestModelSaver",
    "ItemError",
    "LossCurves",
    "LossTerms",
    "NonFiniteGuard",
    "NonFiniteLossError",
    "PreparePretrainingBatch",
    "PretrainingTrainer",
    "ResumableBatchSampler",
    "ResumableDataLoader",
    "RunCheckpoint",
    "SaturationWarner",
    "SeededDataset",
    "StatsLogger",
    "StopOnSignal",
    "TrainingProgress",
    "atomic_save",
    "atomic_write",
    "bundle_root",
    "check_configuration",
    "current_iteration",
    "draw_curves",
    "explanation",
    "lock_run_dir",
    "loss_term_metrics",
    "lower_is_better",
    "middle_slices",
    "read_table",
    "save_configuration",
    "save_patients",
    "short_errors",
    "summary_writer",
    "supervised_trainer",
    "term_values",
]
