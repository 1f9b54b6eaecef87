"""The Swin stages of MONAI in less time and memory on a CPU: same parameters, same numbers."""

# ruff: noqa: F401
from .attention import ATTENTION, EfficientWindowAttention
from .stage import SwinStage, use_efficient_stages
