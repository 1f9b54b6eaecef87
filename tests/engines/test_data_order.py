import multiprocessing
import os
import signal
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import CacheDataset, Dataset
from monai.transforms import Compose, RandomizableTransform

from swinfuse_components.engines import ItemError, ResumableBatchSampler, ResumableDataLoader, StatsLogger, explanation


class Draw(RandomizableTransform):
    """Adds what its own generator and the three global ones give."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        import random

        drawn = [self.R.random(), np.random.random(), random.random(), float(torch.rand(()))]
        return {**item, "drawn": np.array(drawn)}


def items(count: int) -> list[dict[str, Any]]:
    return [{"index": n, "image": f"{n}.nii.gz"} for n in range(count)]


def take(loader: ResumableDataLoader, count: int) -> list[tuple[list[int], list[list[float]]]]:
    return [(batch["index"].tolist(), batch["drawn"].tolist()) for batch in islice(iter(loader), count)]


@pytest.mark.parametrize("kind", [Dataset, CacheDataset])
def test_stream_does_not_depend_on_workers_or_start(kind: type) -> None:
    def loader(**options: Any) -> ResumableDataLoader:
        return ResumableDataLoader(kind(items(7), Compose([Draw()])), 3, seed=1, **options)

    whole = take(loader(), 6)
    assert take(loader(num_workers=2), 6) == whole
    late = loader(num_workers=1)
    late.order.start_iteration = 4
    assert take(late, 2) == whole[4:]
    other = ResumableDataLoader(kind(items(7), Compose([Draw()])), 3, seed=2)
    assert take(other, 6) != whole
    drawn = [value for _, values in whole for value in values]
    assert len({tuple(value) for value in drawn}) == len(drawn)  # nothing is drawn twice


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    expected = (torch.rand(3), np.random.random(3))
    torch.manual_seed(5)
    np.random.seed(5)
    loader = ResumableDataLoader(Dataset(items(4), Draw()), 2)
    take(loader, 2)
    take(ResumableDataLoader(Dataset(items(4), Draw()), 2, num_workers=1), 2)
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.random(3), expected[1])


@pytest.mark.parametrize("count", [5, 8, 13])
def test_every_item_once_a_round_over_all_processes(count: int) -> None:
    world, batch = 2, 3
    ranks = [ResumableBatchSampler(count, batch, seed=4, rank=rank, world_size=world) for rank in range(world)]
    drawn = [
        index for step in range(count) for sampler in ranks for index, *_ in sampler.batch(step)
    ]  # count * world * batch draws: every item world * batch times
    assert Counter(drawn) == dict.fromkeys(range(count), world * batch)
    joined = ResumableBatchSampler(count, world * batch, seed=4)
    assert [joined.batch(step) for step in range(4)] == [
        ranks[0].batch(step) + ranks[1].batch(step) for step in range(4)
    ]


def test_rounds_differ_in_order() -> None:
    sampler = ResumableBatchSampler(50, 50, seed=0)
    first, second = ([index for index, *_ in sampler.batch(step)] for step in range(2))
    assert first != second != sorted(second)


def test_validation_takes_every_item_once() -> None:
    for world in (1, 2):
        seen: list[int] = []
        for rank in range(world):
            sampler = ResumableBatchSampler(7, 2, shuffle=False, endless=False, rank=rank, world_size=world)
            batches = list(sampler)
            assert len(batches) == len(sampler)
            assert batches == list(sampler)  # the same random crops every time
            seen += [index for batch in batches for index, *_ in batch]
        assert sorted(seen) == list(range(7))


def test_weights_set_the_frequencies() -> None:
    sampler = ResumableBatchSampler(4, 1000, weights=[3.0, 1.0, 0.0, 0.0], seed=0)
    counts = Counter(index for index, *_ in sampler.batch(0))
    assert set(counts) == {0, 1}
    assert counts[0] / 1000 == pytest.approx(0.75, abs=0.05)


def test_file_that_fails_is_named_alone() -> None:
    def fail(item: dict[str, Any]) -> dict[str, Any]:
        if item["index"] == 2:
            raise OSError("cannot identify image file")
        return item

    for workers in (0, 1):
        loader = ResumableDataLoader(Dataset(items(4), fail), 2, shuffle=False, num_workers=workers)
        with pytest.raises(ItemError) as error:
            take_all = list(islice(iter(loader), 2))
            assert take_all
        # no traceback of the worker in the message
        message = "cannot read item 2 of the data list (2.nii.gz): OSError: cannot identify image file"
        assert str(error.value) == message == explanation(error.value)


def die(item: dict[str, Any]) -> dict[str, Any]:
    """What the system does to a worker when the memory is full."""
    if item["index"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_a_killed_worker_is_one_sentence(seconds: float, tmp_path: Path) -> None:
    """PyTorch tells of the death while it waits for data, or by a signal in the middle of something else."""

    def child() -> None:
        step = Engine(lambda engine, batch: time.sleep(seconds))
        StatsLogger(iteration_log=False, epoch_log=False).attach(step)
        try:
            step.run(ResumableDataLoader(Dataset(items(6), die), 1, shuffle=False, num_workers=2))
        except ItemError as error:
            (tmp_path / "message").write_text(explanation(error) or "", encoding="utf-8")
        os._exit(0)  # PyTorch's signal handler would tell of it over and over

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    message = (tmp_path / "message").read_text(encoding="utf-8")
    assert message.startswith("DataLoader worker (pid") and "is full: try fewer workers" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_items": 0, "batch_size": 1}, "empty"),
        ({"num_items": 3, "batch_size": 0}, "at least 1"),
        ({"num_items": 3, "batch_size": 1, "weights": [1.0]}, "1 weights for 3 items"),
        ({"num_items": 1, "batch_size": 1, "endless": False, "rank": 0, "world_size": 2}, "1 items for 2 processes"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResumableBatchSampler(**arguments)
