"""Files that are either complete or not there: written aside, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from swinfuse_components.checkpoints import sha256


def write_atomically(path: str | Path, content: bytes | memoryview) -> None:
    """Write ``content`` to ``path`` so that a crash at any moment leaves the old file or the new one, never a mix.

    Raises:
        OSError: the disk is full, the folder is read-only or the like. The message names the file and the reason;
            the file that was there before is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # a folder that is read-only or none refuses that too
            temporary.unlink(missing_ok=True)
        megabytes = len(content) / 2**20
        raise OSError(
            error.errno, f"cannot write {path} ({megabytes:.1f} MB): {error.strerror}. Nothing that was there is lost"
        ) from error


def save_atomically(content: Any, path: str | Path, checksum: bool = False) -> None:
    """``torch.save``, but atomic; with ``checksum`` also ``<path>.sha256``, which ``sha256sum -c`` understands.

    The checksum is in place before the file is, so that a file under its final name can always be verified.

    Raises:
        OSError: as :func:`write_atomically`.
    """
    path = Path(path)
    buffer = io.BytesIO()  # in memory first: PyTorch's own writer ends a failed write in a chain of obscure errors
    torch.save(content, buffer)
    if checksum:
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
        write_atomically(_checksum_path(path), f"{digest}  {path.name}\n".encode())
    write_atomically(path, buffer.getbuffer())


def verify_checksum(path: str | Path) -> None:
    """Compare a file with its ``.sha256`` neighbour.

    Raises:
        ValueError: file and checksum differ, or there is no checksum.
    """
    path = Path(path)
    neighbour = _checksum_path(path)
    if not neighbour.is_file():
        raise ValueError(f"{path} has no checksum file {neighbour.name}")
    found = sha256(path)
    expected = neighbour.read_text(encoding="utf-8").split()[:1]
    if expected != [found]:
        raise ValueError(f"{path} is damaged: its SHA-256 is {found[:12]}…, expected {''.join(expected)[:12]}…")


def remove_with_checksum(path: str | Path) -> None:
    """Remove a file and its checksum, if they exist."""
    for each in (Path(path), _checksum_path(Path(path))):
        each.unlink(missing_ok=True)


def _checksum_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _flush_directory(directory: Path) -> None:
    """The rename itself has to reach the disk too; not every system lets a directory be opened."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
