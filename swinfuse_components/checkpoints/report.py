"""What loading did, tensor by tensor, and the error where it cannot."""

from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

LOADED, ADAPTED, KEPT, MISSING, MISMATCH, LEFT = "loaded", "adapted", "kept", "missing", "mismatch", "left"


class TensorRecord(NamedTuple):
    """One tensor of the network, of the file, or of both, under its common name.

    ``status`` is ``loaded`` as it is; ``adapted`` to the network's input channels; ``kept`` as the network had it, by
    right; ``missing`` in the file, and ``mismatch`` with it: the network's own values stay, which only
    ``allow_partial`` permits; ``left`` in the file. ``reason`` says why, ``file_key`` is its name in the file.
    """

    name: str
    status: str
    reason: str = ""
    file_key: str = ""
    file_shape: tuple[int, ...] | None = None
    network_shape: tuple[int, ...] | None = None


@dataclass
class LoadReport:
    """The outcome of :func:`load_pretrained`; ``str`` gives a table for the log.

    ``source`` is the kind of checkpoint, ``part`` what was asked for; ``records`` are of every tensor of the network
    and of the file; ``warnings`` say what can be wrong although everything fits.
    """

    path: str
    source: str
    part: str
    records: list[TensorRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def with_status(self, *status: str) -> list[TensorRecord]:
        """The records of these kinds, in the order of the network."""
        return [record for record in self.records if record.status in status]

    @property
    def loaded(self) -> list[str]:
        """Names of the network's tensors that now hold the file's values as they are."""
        return [record.name for record in self.with_status(LOADED)]

    @property
    def adapted(self) -> list[str]:
        """Names of the network's tensors that hold the file's values after a change of input channels."""
        return [record.name for record in self.with_status(ADAPTED)]

    @property
    def unfilled(self) -> list[str]:
        """Names of the wanted tensors that keep their initial values, because the file lacks or contradicts them."""
        return [record.name for record in self.with_status(MISSING, MISMATCH)]

    @property
    def left(self) -> list[str]:
        """Names, as in the file, of the file's tensors that were not used."""
        return [record.file_key for record in self.with_status(LEFT)]

    def table(self) -> str:
        """One line for every tensor: status, name, name in the file, shapes, reason."""
        rows = pd.DataFrame(self.records, columns=TensorRecord._fields).fillna("")
        return self._heading() + "\n" + rows.to_string(index=False, header=False)

    def __str__(self) -> str:
        """The same with tensors of one module, status and reason folded into one line."""
        rows = pd.DataFrame(self.records, columns=TensorRecord._fields)
        module = rows["name"].str.extract(r"^(swinViT\.[^.]+|[^.]+)")[0] + ".*"
        counts = rows.groupby(["status", module, "reason"], sort=False).size().reset_index(name="tensors")
        counts["tensors"] = counts["tensors"].map("{} tensors".format)
        return self._heading() + "\n" + counts[["status", 0, "tensors", "reason"]].to_string(index=False, header=False)

    def _heading(self) -> str:
        counts = pd.Series([record.status for record in self.records]).value_counts()
        said = ", ".join(f"{counts[s]} {s}" for s in (LOADED, ADAPTED, KEPT, MISSING, MISMATCH, LEFT) if s in counts)
        lines = [f"weights from {self.path} ({self.source}), part '{self.part}': {said}"]
        lines += [f"WARNING: {text}" for text in self.warnings] + [f"note: {text}" for text in self.notes]
        return "\n".join(lines)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit the network; the network is then unchanged.

    ``report`` is the :class:`LoadReport` where the file was read but does not fit, else None.
    """

    def __init__(self, message: str, report: LoadReport | None = None) -> None:
        super().__init__(message, report)
        self.report = report

    def __str__(self) -> str:
        return str(self.args[0])
