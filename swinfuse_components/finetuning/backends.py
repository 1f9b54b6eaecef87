"""A network's windows computed by OpenVINO, which is quicker on a CPU than PyTorch."""

import functools
import hashlib
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.utils import convert_to_numpy
from torch import Tensor, nn

BACKENDS = ("torch", "openvino")


def to_openvino(network: nn.Module, in_channels: int, roi_size: Sequence[int]) -> Any:
    """The network as an ``openvino.Model`` that takes (1, in_channels, *roi_size), in float32."""
    openvino = require_openvino()
    example = torch.zeros(1, in_channels, *roi_size, device=next(network.parameters()).device)
    with torch.no_grad(), torch.autocast("cpu", enabled=False), warnings.catch_warnings():
        # what depends on sizes becomes constant, as it should: the size of a window does not change
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return openvino.convert_model(network.eval(), example_input=example, input=list(example.shape))


class OpenVINONetwork:
    """A function from windows to logits, computed by OpenVINO on the CPU.

    The network is converted when the first window shows its size, which takes up to half a minute, and the result is
    kept in PyTorch's cache folder (``torch.hub.get_dir()``) under the hash of its weights. ``network`` is on the CPU,
    ``precision`` float32 or bfloat16.
    """

    def __init__(self, network: nn.Module, precision: torch.dtype) -> None:
        require_openvino()
        self.network, self.precision = network, precision
        self._compiled: dict[tuple[int, ...], Any] = {}

    def __call__(self, windows: Tensor) -> Tensor:
        """Logits (B, classes, D, H, W) of windows (B, C, D, H, W); ValueError if they are not on the CPU."""
        if windows.device.type != "cpu":
            raise ValueError(f"backend openvino computes on a CPU: found windows on {windows.device}")
        shape = tuple(windows.shape[1:])
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(shape)
        arrays = convert_to_numpy(windows.detach())
        return torch.cat([torch.from_numpy(self._compiled[shape](each[None])[0].copy()) for each in arrays])

    def _compile(self, shape: tuple[int, ...]) -> Any:
        folder = Path(torch.hub.get_dir()) / "openvino"
        file = folder / f"{self._hash(shape)}.xml"
        if file.is_file() and file.with_suffix(".bin").is_file():
            model = openvino_core().read_model(file)
        else:
            model = to_openvino(self.network, shape[0], shape[1:])
            folder.mkdir(parents=True, exist_ok=True)
            # other processes may convert the same network; the description comes last, as the sign that both are there
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                require_openvino().save_model(model, Path(scratch) / file.name, compress_to_fp16=False)
                for target in (file.with_suffix(".bin"), file):
                    (Path(scratch) / target.name).replace(target)
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == torch.bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "CACHE_DIR": str(folder),
        }
        return openvino_core().compile_model(model, "CPU", options)

    def _hash(self, shape: tuple[int, ...]) -> str:
        digest = hashlib.sha256(f"{shape} {require_openvino().__version__} {self.network}".encode())
        for name, weight in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:24]


@functools.cache
def openvino_core() -> Any:
    """One ``openvino.Core`` for the whole process, which is never given up.

    Each gives the thread a stack for signal handlers and, when it goes, puts back the one that it had found. Where two
    go in the order in which they came, that of the first, which is gone, is put back, and the next signal ends the
    process (seen with OpenVINO 2026.4).
    """
    return require_openvino().Core()


def require_openvino() -> Any:
    """The package, or one sentence that says what to install."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("backend openvino needs the package openvino: pip install openvino") from error
    return openvino
