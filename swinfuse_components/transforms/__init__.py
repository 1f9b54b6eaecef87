"""Dictionary transforms that MONAI lacks."""

from .convolution import RandConvolution, RandConvolutiond
from .cutout import RandInnerCutout
from .intensity import ForegroundMaskd, ModalityIntensityd
from .repeat import RepeatSamples
from .views import RandTwoViewsd

__all__ = [
    "ForegroundMaskd",
    "ModalityIntensityd",
    "RandConvolution",
    "RandConvolutiond",
    "RandInnerCutout",
    "RandTwoViewsd",
    "RepeatSamples",
]
