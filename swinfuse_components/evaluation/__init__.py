"""Scores, statistics, tables, baselines, and the out-of-distribution matrix of models and data sets."""

from .baselines import EverythingForeground, MeanTrainingMask, OtsuThreshold, mean_masks
from .matrix import OutOfDistributionMatrix
from .models import model_sources, unseen
from .probing import read_volumes, run_probing
from .record import EvaluationRecord, score_label_maps, write_evaluation
from .tables import matrix_cells, write_results
from .targets import read_targets

__all__ = [
    "EvaluationRecord",
    "EverythingForeground",
    "MeanTrainingMask",
    "OtsuThreshold",
    "OutOfDistributionMatrix",
    "matrix_cells",
    "mean_masks",
    "model_sources",
    "read_targets",
    "read_volumes",
    "run_probing",
    "score_label_maps",
    "unseen",
    "write_evaluation",
    "write_results",
]
