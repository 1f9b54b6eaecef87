"""A data stream that can be entered at any iteration: the same batches, crops and augmentations, bit by bit."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from monai.data import DataLoader
from torch.utils.data import Dataset, Sampler, get_worker_info

from .seeded_dataset import Draw, SeededDataset, describe_item, name_files


class ResumableBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of ``(index, seed)`` as a pure function of the seed and the iteration.

    The stream is an endless chain of permutations of the data set (or of weighted draws with replacement). Iteration
    t of a run on W processes takes the next ``W * batch_size`` entries, process r the r-th part of them: no item is
    lost or doubled, all batches are full, and one process with the joined batch size draws the very same items.

    Args:
        num_items: length of the data set.
        batch_size: items a process takes each iteration.
        seed: of order and augmentation.
        shuffle: whether to permute; without it the items come in order, over and over.
        weights: relative frequency of each item; None for each once a round.
        endless: False ends after one round, in which the last batch may be smaller (for validation).
        rank: of this process; taken from ``torch.distributed`` if None. Likewise ``world_size``.

    Attributes:
        start_iteration: iteration the next ``iter()`` starts at.
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
        distributed = dist.is_available() and dist.is_initialized()
        self.num_items = num_items
        self.batch_size = batch_size
        self.seed = int(seed)
        self.shuffle = shuffle
        self.weights = None if weights is None else torch.as_tensor(weights, dtype=torch.float64)
        self.endless = endless
        self.rank = (dist.get_rank() if distributed else 0) if rank is None else rank
        self.world_size = (dist.get_world_size() if distributed else 1) if world_size is None else world_size
        if 0 < num_items < self.world_size and not endless:
            raise ValueError(f"{num_items} items for {self.world_size} processes: one of them would have nothing to do")
        self.start_iteration = 0
        self._round: tuple[int, list[int]] | None = None

    def __len__(self) -> int:
        """Iterations in which all processes together go through the data set once."""
        if self.endless:
            return math.ceil(self.num_items / (self.batch_size * self.world_size))
        return math.ceil(len(range(self.rank, self.num_items, self.world_size)) / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        if not self.endless:
            mine = range(self.rank, self.num_items, self.world_size)
            for first in range(0, len(mine), self.batch_size):
                yield [(self._item(p), self._item_seed(p)) for p in mine[first : first + self.batch_size]]
            return
        iteration = self.start_iteration
        while True:
            yield self.batch(iteration)
            iteration += 1

    def batch(self, iteration: int) -> list[tuple[int, int]]:
        """What iteration ``iteration`` (from 0) of the endless stream draws in this process."""
        first = (iteration * self.world_size + self.rank) * self.batch_size
        places = range(first, first + self.batch_size)
        return [Draw.of(self._item(p), self._item_seed(p), iteration) for p in places]

    def _item(self, position: int) -> int:
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
        return self._round[1][offset]

    def _item_seed(self, position: int) -> int:
        return _mix(self.seed, 2, position)


class ResumableDataLoader(DataLoader):
    """MONAI's ``DataLoader`` over an endless stream that can be entered at any iteration.

    Order, random crops and augmentations are a function of ``seed`` and the iteration alone: not of the number of
    workers, not of what was drawn before, and not of how the global batch is divided among processes. A resumed run
    therefore needs no state of samplers or workers. Nothing is drawn from the global random generators.

    Args:
        dataset: any MONAI dataset over a list of items.
        batch_size: items of one process in one iteration.
        seed, shuffle, weights, endless, world_size: see :class:`ResumableBatchSampler`; a ``world_size`` of 1 is for
            processes that each have a data set of their own.
        num_workers: as usual.
        kwargs: further arguments of ``monai.data.DataLoader``.

    ``len()`` is the number of iterations that show every item once, the natural length of an epoch. For validation,
    ``endless=False, shuffle=False`` gives each item once, with the same random crops every time.
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
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        order = ResumableBatchSampler(
            len(dataset),  # type: ignore[arg-type]
            batch_size,
            seed,
            shuffle=shuffle,
            weights=weights,
            endless=endless,
            rank=0 if world_size == 1 else None,
            world_size=world_size,
        )
        self.order = order
        kwargs.setdefault("worker_init_fn", _outlive_signals)
        kwargs.setdefault("generator", torch.Generator().manual_seed(_mix(seed, 3, 0)))
        super().__init__(SeededDataset(dataset, num_workers), num_workers=num_workers, batch_sampler=order, **kwargs)

    def __iter__(self) -> Iterator[Any]:
        """As PyTorch's, whose errors of workers do not say which file it was."""
        try:
            yield from super().__iter__()
        except RuntimeError as error:
            raise name_files(error) from error

    def describe_batch(self, iteration: int) -> list[str]:
        """The files (or the item's fields) behind each item of ``iteration``, counted from 0."""
        source = self.dataset.dataset
        return [describe_item(source, index) for index, _ in self.order.batch(iteration)]


def _mix(*numbers: int) -> int:
    """One well-spread 32-bit seed from several numbers (NumPy's seed sequence)."""
    return int(np.random.SeedSequence([n % 2**64 for n in numbers]).generate_state(1)[0])


def _outlive_signals(worker_id: int) -> None:
    """Workers outlive Ctrl-C and a scheduler's SIGTERM, so that the main process can finish its step and save.

    A SIGTERM of the main process itself still ends them: it is how a data loader gets rid of a worker that hangs.
    """
    if get_worker_info() is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS, Windows
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def obey_parent() -> None:
        while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=obey_parent, daemon=True).start()
