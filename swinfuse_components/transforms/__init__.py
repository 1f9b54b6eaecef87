"""Transforms that MONAI lacks: views with targets, intensities by modality, random contrast."""

# ruff: noqa: F401
from .ablation import VIEWS, blank, inverted, silhouette
from .contrast import RandContrast, RandContrastd, RandConvolution, RandOneContrast, RandSpatialBlend, scale_to_unit
from .cutout import RandInnerCutout
from .grid import load_on_grid
from .intensity import ForegroundMaskd, ModalityIntensityd
from .mind import MindSSC, MindSSCd
from .regional_contrast import RandCurve, RandLabelCurves, RandRegionContrast
from .repeat import RepeatSamples
from .test_time import MatchHistogramd, body_quantiles, measure_for_test_time
from .views import RandTwoViewsd
