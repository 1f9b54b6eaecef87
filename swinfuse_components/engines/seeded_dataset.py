"""A dataset whose items are read each under a seed of its own, and which says what it was reading when it failed."""

from __future__ import annotations

import os
import random
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.data.utils import set_rnd
from torch.utils.data import Dataset, get_worker_info

from .random_state import get_random_state, set_random_state

_PATH_KEYS_OF_NO_FILE = ("modality", "patient")
_datasets: weakref.WeakSet[SeededDataset] = weakref.WeakSet()


_iteration = 0


def current_iteration() -> int:
    """The iteration of the training for which an item is being made, for transforms that change with it."""
    return _iteration


class Draw(tuple[int, int]):
    """An item's ``(index, seed)``, with the iteration of the training that it is drawn for."""

    iteration: int = 0

    @classmethod
    def of(cls, index: int, seed: int, iteration: int) -> Draw:
        """The draw of one item."""
        draw = cls((index, seed))
        draw.iteration = iteration
        return draw


class ItemError(RuntimeError):
    """An item of the data list cannot be read; names its files."""


class SeededDataset(Dataset):
    """Reads an item under a seed of its own, so that its random transforms depend on nothing else.

    Indexed by ``(index, seed)``. The transforms of the wrapped dataset and the global generators of Python, NumPy and
    PyTorch are seeded, the item is read, and the global generators of the process are put back.

    Attributes:
        reading: process and item (-1 for none) of each worker, in shared memory: what it died of outlives a worker.

    Raises:
        ItemError: the wrapped dataset fails on an item; the message names the item's files.
    """

    def __init__(self, dataset: Dataset, num_workers: int = 0) -> None:
        self.dataset = dataset
        self.reading = torch.full((num_workers, 2), -1).share_memory_()
        _datasets.add(self)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: tuple[int, int]) -> Any:
        global _iteration
        index, seed = key
        _iteration = getattr(key, "iteration", 0)
        worker = get_worker_info()
        try:
            if worker is not None:
                self.reading[worker.id] = torch.tensor([os.getpid(), index])
            with _seeded(seed):
                # the transform alone where there is one: set_rnd would walk through every cached volume
                set_rnd(getattr(self.dataset, "transform", self.dataset), seed)
                return self.dataset[index]
        except Exception as error:
            root = _root_cause(error)
            raise ItemError(
                f"cannot read item {index} of the data list ({describe_item(self.dataset, index)}): "
                f"{type(root).__name__}: {root}"
            ) from error
        finally:
            if worker is not None:
                self.reading[worker.id, 1] = -1


def describe_item(dataset: Any, index: int) -> str:
    """The file names in item ``index`` of a dataset, for messages."""
    data = getattr(dataset, "data", None)
    try:
        item = data[index]  # type: ignore[index]
    except (TypeError, IndexError, KeyError):
        return f"item {index}"
    if not isinstance(item, dict):
        return str(item)[:200]
    names: list[str] = []
    for key, value in item.items():
        if key not in _PATH_KEYS_OF_NO_FILE and isinstance(value, (str, list, tuple)):
            names += [str(v) for v in ([value] if isinstance(value, str) else value) if isinstance(v, str)]
    return ", ".join(names) or f"item {index}"


def name_files(error: RuntimeError) -> RuntimeError:
    """An error of PyTorch's data loader with the files behind it, which PyTorch does not name; others as they are."""
    if isinstance(error, ItemError):  # it comes out of a worker with the worker's traceback in its message
        return ItemError(str(error).rpartition(f"{ItemError.__name__}: ")[2].strip())
    dead = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", str(error))
    if dead is None:
        return error
    processes = {int(number) for number in dead.group(1).split(",")}
    found = [
        f"item {item} ({describe_item(dataset.dataset, item)})"
        for dataset in _datasets
        for process, item in dataset.reading.tolist()
        if process in processes and item >= 0
    ]
    return ItemError(
        f"{str(error).split('. ')[0]} while it read {'; '.join(found) or 'no file'}. A worker that is killed often "
        "means that the memory is full: try fewer workers (num_workers) or a smaller cache"
    )


def _root_cause(error: BaseException) -> BaseException:
    """Where a chain of exceptions started: MONAI wraps each failure in "applying transform ..."."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    state = get_random_state(cuda=False)
    try:
        random.seed(seed)
        np.random.seed(seed)
        torch.random.default_generator.manual_seed(seed)
        yield
    finally:
        set_random_state(state)
