"""The few collective operations that handlers need; plain values in a run of one process."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether a process group of ``torch.distributed`` is up."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process; 0 alone writes files."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def gather(value: T) -> list[T]:
    """``value`` of every process, in the order of their ranks."""
    if not is_distributed():
        return [value]
    values: list = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: T) -> T:
    """``value`` of the first process."""
    if not is_distributed():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def any_process(flag: bool, device: torch.device | str = "cpu") -> bool:
    """Whether ``flag`` is true in any process, so that all take the same turn. ``device``: where the backend works."""
    if not is_distributed():
        return flag
    agreed = torch.tensor([float(flag)], device=device)
    dist.all_reduce(agreed, op=dist.ReduceOp.MAX)
    return bool(agreed.item())


def lost_process(error: BaseException) -> str | None:
    """What to say when an exchange between processes failed, which mostly means that another one died; else None.

    Gloo finds out at once, NCCL within the time limit of the process group (10 minutes unless
    ``init_process_group`` is given another); ``torchrun`` ends the other processes of a machine itself.
    """
    current: BaseException | None = error
    while current is not None:
        text = str(current)
        if isinstance(current, RuntimeError) and (
            isinstance(current, dist.DistError) or "gloo" in text or "Connection closed by peer" in text
        ):
            found = text.partition("\n")[0].partition(". ")[0]
            return (
                f"rank {rank()} of {world_size()} lost another process of this run ({found}). "
                "Look for the first error among all ranks; then start all of them again, with '--resume True'"
            )
        current = current.__cause__ or current.__context__
    return None
