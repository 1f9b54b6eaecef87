"""SwinFUSE for MONAI: networks, losses, transforms, data lists and engines, put together by the bundles."""

__version__ = "0.1.0"
