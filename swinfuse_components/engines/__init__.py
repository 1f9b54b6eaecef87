"""Training runs with MONAI's engines: start, named loss terms, exact resume, guards, logs."""

from .checkpointing import RunCheckpoint
from .configuration import bundle_root, check_configuration, federated
from .data_order import ItemError, ResumableBatchSampler, ResumableDataLoader, SeededDataset, current_iteration
from .errors import explanation, short_errors
from .files import atomic_save, atomic_write
from .guards import EXIT_INTERRUPTED, NonFiniteLossError, RunGuard
from .logs import LossCurves, SaturationWarner, StatsLogger, TrainingProgress, middle_slices, summary_writer
from .model_saver import ModelSaver
from .run import lock_run_dir, start_run, unlock_run_dir
from .trainer import (
    LossTerms,
    PreparePretrainingBatch,
    PretrainingTrainer,
    accumulate,
    loss_term_metrics,
    lower_is_better,
    term_values,
)

__all__ = [
    "EXIT_INTERRUPTED",
    "ItemError",
    "LossCurves",
    "LossTerms",
    "ModelSaver",
    "NonFiniteLossError",
    "PreparePretrainingBatch",
    "PretrainingTrainer",
    "ResumableBatchSampler",
    "ResumableDataLoader",
    "RunCheckpoint",
    "RunGuard",
    "SaturationWarner",
    "SeededDataset",
    "StatsLogger",
    "TrainingProgress",
    "accumulate",
    "atomic_save",
    "atomic_write",
    "bundle_root",
    "check_configuration",
    "current_iteration",
    "explanation",
    "federated",
    "lock_run_dir",
    "loss_term_metrics",
    "lower_is_better",
    "middle_slices",
    "short_errors",
    "start_run",
    "summary_writer",
    "term_values",
    "unlock_run_dir",
]
