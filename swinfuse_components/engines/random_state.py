"""The states of all random generators of a process, as tensors and builtins that a safe load accepts."""

import random
from typing import Any

import numpy as np
import torch


def get_random_state(cuda: bool = True) -> dict[str, Any]:
    """States of Python's, NumPy's and PyTorch's global generators, CUDA's on every device if ``cuda``."""
    kind, keys, *others = np.random.get_state(legacy=True)
    numpy_state = kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *others
    state: dict[str, Any] = {"python": random.getstate(), "numpy": numpy_state, "torch": torch.get_rng_state()}
    if cuda and torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what :func:`get_random_state` returned; CUDA states only as far as there are devices for them."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *others = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *others))
    torch.set_rng_state(state["torch"].cpu())
    for device, cuda_state in enumerate(state.get("cuda", [])[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda_state.cpu(), device)
