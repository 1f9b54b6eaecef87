"""Evaluation out of distribution: scores, statistics, baselines, the matrix of models and data sets."""

from .baselines import EverythingForeground, MeanTrainingMask, OtsuThreshold
from .folders import mean_masks, model_source, model_sources, read_target, read_targets, unseen
from .matrix import OutOfDistributionMatrix, prediction_path
from .record import EvaluationRecord, score_label_maps, write_evaluation
from .scores import CaseScores, score_case, score_masks
from .sources import NetworkSource, PredictionFiles
from .statistics import holm, paired_test, summarize
from .tables import matrix_cells, write_results
from .targets import Target

__all__ = [
    "CaseScores",
    "EvaluationRecord",
    "EverythingForeground",
    "MeanTrainingMask",
    "NetworkSource",
    "OtsuThreshold",
    "OutOfDistributionMatrix",
    "PredictionFiles",
    "Target",
    "holm",
    "matrix_cells",
    "mean_masks",
    "model_source",
    "model_sources",
    "paired_test",
    "prediction_path",
    "read_target",
    "read_targets",
    "score_case",
    "score_label_maps",
    "score_masks",
    "summarize",
    "unseen",
    "write_evaluation",
    "write_results",
]
