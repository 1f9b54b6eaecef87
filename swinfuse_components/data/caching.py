"""Preprocessed volumes on disk, for data sets that memory does not hold."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.data import PersistentDataset
from monai.utils import ensure_tuple

from .modalities import REGISTRY

logger = logging.getLogger(__name__)


class DiskCacheDataset(PersistentDataset):
    """MONAI's ``PersistentDataset`` with keys that notice every change, and files that hold tensors and text alone.

    Whatever comes before the first random transform is done once for each item and kept in ``cache_dir``. The key is
    made of the item, size and time of its files, and the settings of the transforms. Nothing is unpickled from a file
    but tensors and plain values (``weights_only``), so that no file put into ``cache_dir`` can run code; one that
    cannot be read (a run was killed while it wrote) is made anew.

    ``transform`` is a ``Compose`` of deterministic and then random transforms; tensors lose their metadata on the disk.
    Several runs and processes may share ``cache_dir``.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable, cache_dir: str | os.PathLike) -> None:
        super().__init__(data, transform, cache_dir, hash_func=item_key, hash_transform=transform_key)

    def _cachecheck(self, item_transformed: Mapping[str, Any]) -> Any:
        try:
            return super()._cachecheck(item_transformed)
        except (RuntimeError, EOFError, OSError) as error:
            file = self.cache_dir / f"{item_key(item_transformed).decode()}{self.transform_hash}.pt"
            if not file.is_file():
                raise
            logger.warning("%s cannot be read, made anew: %s", file, str(error).splitlines()[:1])
            file.unlink(missing_ok=True)
            return super()._cachecheck(item_transformed)


def item_key(item: Mapping[str, Any], *further: str) -> bytes:
    """Key of an item: its entries, size and time of the files that they name, the rule of its modality, ``further``."""
    paths = [path for value in item.values() for path in ensure_tuple(value)]
    files = [_state(path) for path in paths if isinstance(path, str) and os.path.exists(path)]
    return _digest([item, files, REGISTRY.get(str(item.get("modality"))), *further])


def _state(path: str) -> list[list[int]]:
    """Size and time of a file, or of the files of a DICOM folder."""
    parts = sorted(os.scandir(path), key=lambda entry: entry.name) if os.path.isdir(path) else [Path(path)]
    return [[part.stat().st_size, part.stat().st_mtime_ns] for part in parts]


def transform_key(transforms: Any) -> bytes:
    """Key of transforms: class and settings of each, at any depth. MONAI's ``json_hashing`` takes their names alone."""
    return _digest([monai.__version__, transforms])


def _digest(value: Any) -> bytes:
    text = json.dumps(value, default=_plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32].encode()


def _plain(value: Any) -> Any:
    """What JSON can write of a value: settings of an object, the code of a function."""
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if hasattr(value, "__code__"):
        code, cells = value.__code__, [cell.cell_contents for cell in value.__closure__ or ()]
        constants = [re.sub(r" at 0x[0-9a-f]+", "", repr(constant)) for constant in code.co_consts]
        return [name, value.__qualname__, code.co_code.hex(), repr(code.co_names), constants, value.__defaults__, cells]
    if hasattr(value, "__dict__") and not isinstance(value, type):
        return [name, {str(key): part for key, part in vars(value).items()}]
    return [name, re.sub(r" at 0x[0-9a-f]+", "", repr(value))]
