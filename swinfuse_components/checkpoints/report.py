"""What loading did, tensor by tensor."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby

LOADED, ADAPTED, KEPT, MISSING, MISMATCH, LEFT = "loaded", "adapted", "kept", "missing", "mismatch", "left"


@dataclass(frozen=True)
class TensorRecord:
    """One tensor of the network, of the file, or of both.

    Attributes:
        name: common name (that of the network).
        status: ``loaded`` as it is; ``adapted`` to the network's input channels; ``kept`` as the network had it, by
            right; ``missing`` in the file, and ``mismatch`` with it: the network's own values stay, which only
            ``allow_partial`` permits; ``left`` in the file.
        reason: why, where that is not plain.
        file_key: its name in the file, "" if it has none.
        file_shape: its shape in the file, None if it is not there.
        network_shape: its shape in the network, None if it is not there.
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

    Attributes:
        path: the file.
        source: what kind of checkpoint it is.
        part: what was asked for.
        records: every tensor of the network and of the file.
        warnings: what can be wrong although everything fits.
        notes: what is good to know.
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
        return self._heading() + "\n" + _align([_row(record) for record in self.records])

    def __str__(self) -> str:
        """The same with tensors of one module, status and reason folded into one line."""
        rows = []
        for (status, module, reason), group in groupby(self.records, key=lambda r: (r.status, _module(r), r.reason)):
            records = list(group)
            many = [status, module, f"{len(records)} tensors", "", reason]
            rows.append(many if len(records) > 1 else _row(records[0]))
        return self._heading() + "\n" + _align(rows)

    def _heading(self) -> str:
        counts = Counter(record.status for record in self.records)
        said = ", ".join(f"{counts[s]} {s}" for s in (LOADED, ADAPTED, KEPT, MISSING, MISMATCH, LEFT) if counts[s])
        lines = [f"weights from {self.path} ({self.source}), part '{self.part}': {said}"]
        lines += [f"WARNING: {text}" for text in self.warnings] + [f"note: {text}" for text in self.notes]
        return "\n".join(lines)


def _module(record: TensorRecord) -> str:
    parts = record.name.split(".")
    return ".".join(parts[: 2 if parts[0] == "swinViT" else 1]) + ".*"


def _row(record: TensorRecord) -> list[str]:
    shapes = [_shape(record.file_shape), _shape(record.network_shape)]
    differ = record.file_shape is not None and record.network_shape is not None and shapes[0] != shapes[1]
    shape = " -> ".join(shapes) if differ else shapes[0] or shapes[1]
    renamed = record.file_key and record.file_key != record.name
    return [record.status, record.name, shape, f"file: {record.file_key}" if renamed else "", record.reason]


def _shape(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else "(" + ", ".join(map(str, shape)) + ")"


def _align(rows: list[list[str]]) -> str:
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join("  " + line.rstrip() for line in lines)
