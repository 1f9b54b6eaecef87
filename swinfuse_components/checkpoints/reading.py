"""Read a checkpoint file: never running code from it, and with an error that names the file and what is wrong."""

import hashlib
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .report import CheckpointError

# where the training codes of Swin UNETR, MONAI, Lightning-style scripts and this project put the network's weights
STATE_DICT_KEYS = ("model", "state_dict", "model_state_dict", "network", "net")
# NumPy scalars are data, and older training codes store their best metric as one.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
    # its module was renamed in NumPy 2
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]
# how the restricted reader names what it refuses; a name that is none comes from a damaged file
_FOREIGN = re.compile(r"(?:GLOBAL|unrecognized function|but got) (?:<\w+ ')?([A-Za-z_][\w.]*\.\w+)")


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal digits (``hashlib.file_digest`` is new in Python 3.11)."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The network's weights in a checkpoint file, on the CPU: :func:`read_checkpoint`, then :func:`find_state_dict`."""
    return find_state_dict(read_checkpoint(path), path)


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """What a checkpoint file holds, on the CPU: tensors and plain Python values.

    The file is unpickled by PyTorch's restricted reader, which builds tensors, numbers, strings and containers, and
    never calls code that a file names.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is empty, truncated, damaged, not a PyTorch file, a TorchScript archive, or holds
            objects other than tensors and plain values; the message says which.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file" + (" (it is a folder)" if path.is_dir() else ""))
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty: the file was never completely written")
    what = f"{path} ({size / 2**20:.1f} MiB)"
    _check_archive(path, what)
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if foreign := _FOREIGN.search(str(error)):
            raise CheckpointError(
                f"{path} is refused: besides tensors it holds an object made by {foreign.group(1)}; to rebuild such "
                "objects a file may run any code on this machine. If you trust where it comes from, open it where "
                "it was written and save its weights alone: torch.save(network.state_dict(), 'weights.pt')"
            ) from error
        # PyTorch's own words advise to read the file with weights_only=False, which is the last thing to do with it
        words = re.search(r"WeightsUnpickler error: *([^\n]+)|^((?!.*weights_only)[^\n]+)", str(error))
        reason = f"{type(error).__name__}: {words[1] or words[2]}" if words else type(error).__name__
        raise CheckpointError(f"{what} is truncated, damaged or not a PyTorch checkpoint: {reason}") from error


def find_state_dict(content: Any, path: str | os.PathLike[str] = "checkpoint") -> dict[str, Tensor]:
    """The network's weights in what :func:`read_checkpoint` returned: bare, or under one of the usual keys.

    CheckpointError if no dictionary of tensors is there; names what was found.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dictionary of tensors")
    for candidate in [content, *(content[key] for key in STATE_DICT_KEYS if key in content)]:
        if isinstance(candidate, Mapping):
            tensors = {k: v for k, v in candidate.items() if isinstance(k, str) and isinstance(v, Tensor)}
            if tensors:
                return tensors
    found = ", ".join(map(repr, list(content)[:8])) or "nothing"
    raise CheckpointError(
        f"{path} holds no weights: found the keys {found}, expected tensors, or one of {', '.join(STATE_DICT_KEYS)}"
    )


def _check_archive(path: Path, what: str) -> None:
    """PyTorch's reader does not compare the checksums that its zip archives carry, so a flipped bit would pass."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            names, damaged = archive.namelist(), archive.testzip()
    except Exception as error:
        raise CheckpointError(f"{what} is truncated or damaged: {error}") from error
    if damaged is not None:
        raise CheckpointError(f"{what} is damaged: the checksum of its part {damaged!r} is wrong")
    if any(name.endswith("/constants.pkl") for name in names):
        expected = "expected a checkpoint of weights (torch.save of a state_dict)"
        raise CheckpointError(f"{path} is a TorchScript archive, which is a program: {expected}")
