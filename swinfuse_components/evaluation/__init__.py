"""Scores, statistics, tables, baselines, and the out-of-distribution matrix of models and data sets."""

# ruff: noqa: F401
from .baselines import EverythingForeground, MeanTrainingMask, OtsuThreshold, mean_masks
from .matrix import OutOfDistributionMatrix
from .models import model_sources, unseen
from .probing import read_volumes, run_probing
from .record import EvaluationRecord, score_label_maps, write_evaluation
from .tables import matrix_cells, write_results
from .targets import read_targets
