"""Transforms that MONAI lacks: views with targets, intensities by modality, random contrast."""

from .contrast import (
    RandContrast,
    RandContrastd,
    RandConvolution,
    RandOneContrast,
    RandSpatialBlend,
    scale_to_unit,
)
from .cutout import RandInnerCutout
from .histogram import MatchHistogram, MatchHistogramd, body_quantiles, mean_quantiles
from .intensity import ForegroundMaskd, ModalityIntensityd
from .mind import MindSSC, MindSSCd
from .regional_contrast import RandCurve, RandLabelCurves, RandRegionContrast
from .repeat import RepeatSamples
from .views import RandTwoViewsd

__all__ = [
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
    "body_quantiles",
    "mean_quantiles",
    "scale_to_unit",
]
