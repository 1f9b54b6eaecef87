"""The identity of a file's content."""

from __future__ import annotations

import hashlib
import os


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal digits; read in pieces, so that a large file needs no memory of its size."""
    digest = hashlib.sha256()  # hashlib.file_digest is new in Python 3.11
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
