"""Transforms that MONAI lacks: views with targets, intensities by modality, random contrast."""

from .ablation import VIEWS, blank, inverted, silhouette
from .contrast import (
    RandContrast,
    RandContrastd,
    RandConvolution,
    RandOneContrast,
    RandSpatialBlend,
    scale_to_unit,
)
from .cutout import RandInnerCutout
from .grid import load_on_grid
from .intensity import ForegroundMaskd, ModalityIntensityd
from .mind import MindSSC, MindSSCd
from .regional_contrast import RandCurve, RandLabelCurves, RandRegionContrast
from .repeat import RepeatSamples
from .test_time import MatchHistogram, MatchHistogramd, body_quantiles, measure_for_test_time
from .views import RandTwoViewsd

__all__ = [
    "VIEWS",
    "ForegroundMaskd",
    "MatchHistogram",
    "MatchHistogramd",
    "MindSSC",
    "MindSSCd",
    "ModalityIntensityd",
    "RandContrast",
    "RandContrastd",
    "RandConvolution",
    "RandCurve",
    "RandInnerCutout",
    "RandLabelCurves",
    "RandOneContrast",
    "RandRegionContrast",
    "RandSpatialBlend",
    "RandTwoViewsd",
    "RepeatSamples",
    "blank",
    "body_quantiles",
    "inverted",
    "load_on_grid",
    "scale_to_unit",
    "silhouette",
    "measure_for_test_time",
]
