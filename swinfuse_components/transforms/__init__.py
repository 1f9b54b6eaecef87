"""Dictionary transforms that MONAI lacks."""

from .cutout import RandInnerCutout
from .intensity import ModalityIntensityd
from .views import RandTwoViewsd

__all__ = ["ModalityIntensityd", "RandInnerCutout", "RandTwoViewsd"]
