"""Training runs with MONAI's engines: start, named loss terms, exact resume, guards, logs."""

# ruff: noqa: F401, I001
from .checkpointing import RunCheckpoint
from .configuration import bundle_root, check_configuration, federated
from .curves import LossCurves
from .data_order import ItemError, ResumableBatchSampler, ResumableDataLoader, SeededDataset, current_iteration
from .errors import explanation, short_errors
from .files import atomic_save, atomic_write
from .guards import EXIT_INTERRUPTED, NonFiniteLossError, RunGuard
from .logs import SaturationWarner, StatsLogger, TrainingProgress, middle_slices, summary_writer, term_values
from .model_saver import ModelSaver
from .run import lock_run_dir, start_run, unlock_run_dir
from .trainer import LossTerms, PreparePretrainingBatch, PretrainingTrainer, accumulate
from .trainer import loss_term_metrics, lower_is_better
