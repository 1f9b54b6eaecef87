"""Dictionary transforms that MONAI lacks."""

from .convolution import RandConvolution, RandConvolutiond
from .cutout import RandInnerCutout
from .intensity import ModalityIntensityd
from .repeat import RepeatSamples
from .views import RandTwoViewsd

__all__ = [
    "ModalityIntensityd",
    "RandConvolution",
    "RandConvolutiond",
    "RandInnerCutout",
    "RandTwoViewsd",
    "RepeatSamples",
]
