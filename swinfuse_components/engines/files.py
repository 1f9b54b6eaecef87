"""Atomic file writing: a file is either complete or not there."""

import contextlib
import glob
import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

logger = logging.getLogger(__name__)
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
_FORMULA = r"[=+\-@\t\r]."


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w", *, keep_other: bool = False) -> Iterator[IO[Any]]:
    """Open ``path`` for writing so that a crash at any moment leaves the old file or the new one, never a mix.

    The content goes to a temporary file beside ``path``, is flushed to the disk and renamed when the ``with`` block
    ends without an error. A symbolic link at ``path`` is replaced, not followed. Missing folders are made.

    ``mode`` is ``"w"`` for text (UTF-8, line ends as written) or ``"wb"`` for bytes; ``keep_other`` keeps a file of
    other content that was there, see :func:`keep_aside`.

    Raises:
        OSError: the disk is full, the folder is read-only or the like. The message names the file and the reason;
            the file that was there before is untouched.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with atomic_path(path) as temporary:
        with open(temporary, mode, **text) as file:  # type: ignore[call-overload]
            yield file
        if keep_other and Path(path).is_file() and Path(path).read_bytes() != temporary.read_bytes():
            logger.warning("%s was there already, with other content: kept as %s", path, keep_aside(Path(path)))


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """As :func:`atomic_write`, for writers that take a path: the name of a file that becomes ``path`` in the end.

    What an interrupted call for the same ``path`` left is removed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp*"):
            left.unlink(missing_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_directory(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):  # a folder that is read-only or none refuses that too
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        reason = f"cannot write {path}: {error.strerror}. Nothing that was there is lost"
        raise OSError(error.errno, reason) from error


def atomic_save(content: Any, path: str | Path) -> None:
    """``torch.save``, but atomic, see :func:`atomic_write`."""
    buffer = io.BytesIO()  # in memory first: PyTorch's own writer ends a failed write in a chain of obscure errors
    torch.save(content, buffer)
    with atomic_write(path, "wb") as file:
        file.write(buffer.getbuffer())


def keep_aside(path: Path) -> Path:
    """Rename a file of an earlier run to ``<name>.previous``, ``<name>.previous.2`` and so on; returns that name."""
    aside, number = path.with_name(f"{path.name}.previous"), 2
    while aside.exists():
        aside, number = path.with_name(f"{path.name}.previous.{number}"), number + 1
    return path.replace(aside)


def csv_cell(cell: Any) -> Any:
    """A cell for a CSV file: text that a spreadsheet would take for a formula gets an apostrophe before it."""
    return f"'{cell}" if isinstance(cell, str) and re.match(_FORMULA, cell) else cell


def from_csv_cell(text: str) -> str:
    """The text that :func:`csv_cell` was given."""
    return text[1:] if re.match("'" + _FORMULA, text) else text


def remove_temporary_files(folder: str | Path) -> None:
    """Remove what interrupted calls of :func:`atomic_write` left; nobody else may be writing into the folder."""
    for path in Path(folder).glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _flush_directory(directory: Path) -> None:
    """The rename itself has to reach the disk too; not every system lets a directory be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
