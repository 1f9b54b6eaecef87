"""Evaluation out of distribution: scores, statistics, baselines, the matrix of models and data sets."""
