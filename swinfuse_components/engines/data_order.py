"""A data stream that can be entered at any iteration: the same batches, crops and augmentations, bit by bit."""

import atexit
import contextlib
import itertools
import math
import os
import random
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.data import DataLoader
from monai.data.utils import set_rnd
from torch.utils.data import Dataset, Sampler

from .random_state import get_random_state, set_random_state

_NO_FILES = ("modality", "patient")
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\)[^.\n]*")
_iteration = 0


def current_iteration() -> int:
    """The iteration of the training for which an item is being made, for transforms that change with it."""
    return _iteration


class ItemError(RuntimeError):
    """An item of the data list cannot be read; names its files."""


class SeededDataset(Dataset):
    """Reads an item under a seed of its own, so that its random transforms depend on nothing else.

    Indexed by ``(index, seed, iteration)``, of which :func:`current_iteration` tells the last. The global generators of
    the process are put back afterwards. Where an item cannot be read, an :class:`ItemError` names its files.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: tuple[int, int, int]) -> Any:
        global _iteration
        index, seed, _iteration = key
        before = get_random_state(cuda=False)
        try:
            random.seed(seed)
            np.random.seed(seed)
            torch.random.default_generator.manual_seed(seed)
            # the transform alone where there is one: set_rnd would walk through every cached volume
            set_rnd(getattr(self.dataset, "transform", self.dataset), seed)
            return self.dataset[index]
        except Exception as error:
            root: BaseException = error
            while root.__cause__ is not None:  # MONAI wraps each failure in "applying transform ..."
                root = root.__cause__
            raise ItemError(
                f"cannot read item {index} of the data list ({self.describe(index)}): {type(root).__name__}: {root}"
            ) from error
        finally:
            set_random_state(before)

    def describe(self, index: int) -> str:
        """The file names in an item, for messages."""
        return ", ".join(_file_names(self._items()[index])) if index < len(self._items()) else f"item {index}"

    def identities(self) -> list[str]:
        """Each item's files and their sizes in bytes, relative to the folder they share: equal under another path."""
        names = [_file_names(item) for item in self._items()]
        folders = [os.path.dirname(name) for each in names for name in each if os.path.isabs(name)]
        root = os.path.commonpath(folders) if folders else ""

        def identity(name: str) -> str:
            size = os.path.getsize(name) if os.path.isfile(name) else "no file"
            return f"{name.removeprefix(root).lstrip(os.sep)} ({size})"

        return [", ".join(map(identity, each)) for each in names]

    def _items(self) -> Sequence[Any]:
        data = getattr(self.dataset, "data", ())
        return data if isinstance(data, Sequence) else ()


def _file_names(item: Any) -> list[str]:
    if not isinstance(item, Mapping):
        return [str(item)[:200]]
    values = [[value] if isinstance(value, str) else value for key, value in item.items() if key not in _NO_FILES]
    return [name for value in values if isinstance(value, list | tuple) for name in value if isinstance(name, str)]


class ResumableBatchSampler(Sampler[list[tuple[int, int, int]]]):
    """Batches of ``(index, seed, iteration)`` as a pure function of the seed and the iteration.

    The stream is an endless chain of permutations of the data set (or of weighted draws with replacement). Iteration
    t of a run on W processes takes the next ``W * batch_size`` entries, process r the r-th part of them: no item is
    lost or doubled, all batches are full, and one process with the joined batch size draws the very same items.

    Args:
        num_items: length of the data set; ``batch_size``: items a process takes each iteration.
        seed: of order and augmentation.
        shuffle: whether to permute; without it the items come in order, over and over.
        weights: relative frequency of each item; None for each once a round.
        endless: False ends after one round, in which the last batch may be smaller (for validation).
        rank, world_size: of this process and of all; those of the process group if None.

    The next ``iter()`` starts at ``start_iteration``.
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        seed: int = 0,
        *,
        shuffle: bool = True,
        weights: Sequence[float] | None = None,
        endless: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if num_items < 1 and endless:
            raise ValueError("the data list is empty: nothing to draw from")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if weights is not None and len(weights) != num_items:
            raise ValueError(f"{len(weights)} weights for {num_items} items: there must be one for each")
        self.num_items, self.batch_size, self.seed = num_items, batch_size, int(seed)
        self.shuffle, self.endless = shuffle, endless
        self.weights = None if weights is None else torch.as_tensor(weights, dtype=torch.float64)
        self.rank = idist.get_rank() if rank is None else rank
        self.world_size = idist.get_world_size() if world_size is None else world_size
        if 0 < num_items < self.world_size and not endless:
            raise ValueError(f"{num_items} items for {self.world_size} processes: one of them would have nothing to do")
        self.start_iteration = 0
        self._round: tuple[int, list[int]] | None = None

    def __len__(self) -> int:
        """Iterations in which all processes together go through the data set once."""
        if self.endless:
            return math.ceil(self.num_items / (self.batch_size * self.world_size))
        return math.ceil(len(range(self.rank, self.num_items, self.world_size)) / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        if not self.endless:
            mine = range(self.rank, self.num_items, self.world_size)
            for first in range(0, len(mine), self.batch_size):
                yield [(*self._draw(position), 0) for position in mine[first : first + self.batch_size]]
            return
        yield from map(self.batch, itertools.count(self.start_iteration))

    def batch(self, iteration: int) -> list[tuple[int, int, int]]:
        """What iteration ``iteration`` (from 0) of the endless stream draws in this process."""
        first = (iteration * self.world_size + self.rank) * self.batch_size
        return [(*self._draw(position), iteration) for position in range(first, first + self.batch_size)]

    def _draw(self, position: int) -> tuple[int, int]:
        """Index and seed of the item at a position of the stream."""
        number, offset = divmod(position, self.num_items)
        if self._round is None or self._round[0] != number:
            generator = torch.Generator().manual_seed(_mix(self.seed, 1, number))
            if self.weights is not None:
                order = torch.multinomial(self.weights, self.num_items, replacement=True, generator=generator)
            elif self.shuffle:
                order = torch.randperm(self.num_items, generator=generator)
            else:
                order = torch.arange(self.num_items)
            self._round = (number, order.tolist())
        return self._round[1][offset], _mix(self.seed, 2, position)


class ResumableDataLoader(DataLoader):
    """MONAI's ``DataLoader`` over an endless stream that can be entered at any iteration.

    Order, random crops and augmentations are a function of ``seed`` and the iteration alone: not of the number of
    workers, not of what was drawn before, and not of how the global batch is divided among processes. A resumed run
    therefore needs no state of samplers or workers. Nothing is drawn from the global random generators.

    Workers do not react to SIGINT, SIGTERM and SIGHUP, which a terminal or a scheduler sends to every process of a
    job: the main process alone decides when to end, and ends them.

    ``dataset`` is any MONAI dataset over a list of items, ``kwargs`` are further arguments of MONAI's loader; for the
    rest and for ``len()`` see :class:`ResumableBatchSampler`. A ``world_size`` of 1 is for processes that each have a
    data set of their own. For validation, ``endless=False, shuffle=False`` gives each item once, with the same random
    crops every time.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        seed: int = 0,
        *,
        shuffle: bool = True,
        weights: Sequence[float] | None = None,
        endless: bool = True,
        world_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        options: dict[str, Any] = {"shuffle": shuffle, "weights": weights, "endless": endless, "world_size": world_size}
        rank = 0 if world_size == 1 else None
        count = len(dataset)  # type: ignore[arg-type]
        self.order = ResumableBatchSampler(count, batch_size, seed, rank=rank, **options)
        _allow_open_files(int(kwargs.get("num_workers", 0)))
        kwargs.setdefault("generator", torch.Generator().manual_seed(_mix(seed, 3, 0)))
        super().__init__(SeededDataset(dataset), batch_sampler=self.order, **kwargs)

    def __iter__(self) -> Iterator[Any]:
        """As PyTorch's, with workers that outlive signals and errors that name the file."""
        with _signals_blocked():  # workers inherit this
            batches = super().__iter__()

        # workers that do not react to SIGTERM have to be told of the end of the process before PyTorch sends it
        def stop() -> None:
            try:
                getattr(batches, "_shutdown_workers", lambda: None)()
            finally:
                for worker in getattr(batches, "_workers", ()):
                    worker.kill()  # nothing, unless it did not hear

        atexit.register(stop)
        try:
            yield from batches
        except RuntimeError as error:
            raise explain_worker(error) from error
        finally:
            if not self.persistent_workers:
                atexit.unregister(stop)
                stop()

    def describe_batch(self, iteration: int) -> list[str]:
        """The files behind each item of ``iteration``, counted from 0."""
        return [self.dataset.describe(index) for index, *_ in self.order.batch(iteration)]


def explain_worker(error: RuntimeError) -> RuntimeError:
    """What a data worker failed of, without the worker's traceback; other errors as they are."""
    if isinstance(error, ItemError):
        return ItemError(str(error).rpartition(f"{ItemError.__name__}: ")[2].strip())
    dead = _DEAD_WORKER.search(str(error))
    if dead is None:
        return error
    return ItemError(
        f"{dead[0]}. A worker that is killed often means that the memory is full: try fewer workers (num_workers) or "
        "a smaller cache"
    )


def _allow_open_files(workers: int) -> None:
    """Workers hand over every tensor as an open file, and hang where the system allows too few."""
    if not workers or not hasattr(signal, "SIGHUP"):  # Windows
        return
    import resource

    needed = 64 + 32 * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < needed:
        raise ValueError(f"num_workers {workers} needs {needed} open files, this user may have {hard} (ulimit -n)")
    if 0 <= soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _mix(*numbers: int) -> int:
    """One well-spread 32-bit seed from several numbers (NumPy's seed sequence)."""
    return int(np.random.SeedSequence([n % 2**64 for n in numbers]).generate_state(1)[0])
