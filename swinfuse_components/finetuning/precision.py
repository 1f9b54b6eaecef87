"""The number type in which a network computes, on a CPU as on a GPU."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import torch
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from .backends import BACKENDS, OpenVINONetwork, require_openvino


def arithmetic(precision: str, device: str | torch.device) -> torch.dtype:
    """The number type that ``precision`` means on ``device``, where the network is.

    It is ``float32``, ``bfloat16``, ``float16`` (of a GPU), or ``auto``: bfloat16 where the processor computes in it
    (AMX or AVX512-BF16; a GPU since Ampere), else float32. Another name, or float16 on a CPU, is a ValueError.
    """
    kind = torch.device(device).type
    if precision == "auto":
        cpu = (
            getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
            or getattr(torch.cpu, "_is_amx_tile_supported", bool)()
        )
        return torch.bfloat16 if (torch.cuda.is_bf16_supported() if kind == "cuda" else cpu) else torch.float32
    names = ["float32", "bfloat16"] + ["float16"] * (kind != "cpu")
    if precision not in names:
        raise ValueError(
            f"precision is {precision!r}: expected auto or, on this device ({kind}), one of {', '.join(names)}"
        )
    return getattr(torch, precision)


class _FullPrecisionWhereWrong(TorchFunctionMode):
    """float32 for the convolutions of which oneDNN makes a wrong weight gradient in bfloat16.

    Where the kernel is longer than the first axis, as on the last maps of a small region (2 voxels, kernel 3), it reads
    memory that was never written: errors of the gradient's own size, or NaN (PyTorch 2.13, AVX512-BF16).
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Call ``func``, without autocast if it is such a convolution."""
        if func is cast(Any, torch.conv3d) and args[0].device.type == "cpu" and args[0].shape[2] < args[1].shape[2]:
            with torch.autocast("cpu", enabled=False):
                return func(*(each.float() if isinstance(each, Tensor) else each for each in args), **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class PrecisionInferer(Inferer):
    """Compute in a number type that is quicker than float32; the answer comes back in float32.

    MONAI's own ``amp`` works on a GPU alone. ``inferer`` calls the network: a sliding window, or MONAI's
    ``SimpleInferer`` in training. For ``precision`` see :func:`arithmetic`; ``backend`` is what computes the network:
    ``torch``, or ``openvino`` (inference on a CPU). An unknown one, or OpenVINO where it is not installed, is an error.
    """

    def __init__(self, inferer: Inferer, precision: str = "float32", backend: str = "torch") -> None:
        super().__init__()
        arithmetic("auto" if precision == "float16" else precision, "cpu")
        if backend not in BACKENDS:
            raise ValueError(f"backend is {backend!r}: expected one of {', '.join(BACKENDS)}")
        if backend == "openvino":
            require_openvino()
        self.inferer, self.precision, self.backend = inferer, precision, backend
        self._converted: tuple[Any, OpenVINONetwork] | None = None

    def __call__(self, inputs: Tensor, network: Callable[..., Any] | nn.Module, *args: Any, **kwargs: Any) -> Any:
        """What the inferer answers to ``inputs`` (B, C, *spatial): a tensor, or tuples or dictionaries of them."""
        dtype = arithmetic(self.precision, inputs.device)
        if self.backend == "openvino":
            if not isinstance(network, nn.Module):
                raise ValueError(f"backend openvino needs a module to convert: found {type(network).__name__}")
            # a server may load other weights in place
            state = network, [weight._version for weight in network.parameters()]
            if self._converted is None or self._converted[0] != state:
                self._converted = state, OpenVINONetwork(network, dtype)
            return self.inferer(inputs, self._converted[1], *args, **kwargs)
        exact = _FullPrecisionWhereWrong() if dtype == torch.bfloat16 and torch.is_grad_enabled() else nullcontext()
        # off is said too: an outer autocast of an engine would hold otherwise
        with torch.autocast(inputs.device.type, dtype, enabled=dtype != torch.float32), exact:
            return tree_map(Tensor.float, self.inferer(inputs, network, *args, **kwargs))
