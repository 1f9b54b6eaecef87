"""The one error that reading and loading of weights raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .report import LoadReport


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit the network; the network is then unchanged.

    ``report`` is the :class:`LoadReport` where the file was read but does not fit, else None.
    """

    def __init__(self, message: str, report: LoadReport | None = None) -> None:
        super().__init__(message)
        self.report = report
