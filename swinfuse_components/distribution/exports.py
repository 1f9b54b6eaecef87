"""A trained network as TorchScript, ONNX, ``torch.export`` program or OpenVINO model, and back as a function.

All hold one region size, the one that the network was built for: the tokens of the domain invariance module tie
its weights to it. Larger volumes go through sliding windows.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.utils import convert_to_numpy
from torch import Tensor, nn

from ..finetuning.backends import openvino_core, require_openvino, to_openvino

FORMATS = {".ts": "TorchScript, traced", ".onnx": "ONNX", ".pt2": "torch.export", ".xml": "OpenVINO"}


def export_network(network: nn.Module, path: str | Path, *, in_channels: int, roi_size: Sequence[int]) -> Path:
    """Write a network in the format that the file's suffix names: ``.ts``, ``.onnx``, ``.pt2`` or ``.xml``.

    It takes (1, in_channels, *roi_size), gives one tensor, and is put into evaluation mode. Returns the path.

    Raises:
        ValueError, ModuleNotFoundError: another suffix; no ``onnx`` and ``onnxscript``, or no ``openvino``.

    Example:
        >>> network = nn.Conv3d(1, 2, 1)
        >>> export_network(network, tmp_path / "network.ts", in_channels=1, roi_size=(8, 8, 8)).name
        'network.ts'
    """
    target = _known(path)
    example = torch.zeros(1, in_channels, *roi_size, device=next(network.eval().parameters()).device)
    with torch.no_grad():
        if target.suffix == ".ts":
            torch.jit.trace(network, example, check_trace=False).save(str(target))
        elif target.suffix == ".onnx":
            names: dict[str, Any] = {"input_names": ["image"], "output_names": ["pred"]}
            torch.onnx.export(network, (example,), str(target), dynamo=True, **names)
        elif target.suffix == ".xml":  # and a .bin beside it, which holds the weights
            require_openvino().save_model(to_openvino(network, in_channels, roi_size), target, compress_to_fp16=False)
        else:
            torch.export.save(torch.export.export(network, (example,)), str(target))
    return target


def load_exported(path: str | Path) -> Callable[[Tensor], Tensor]:
    """Read an exported network as a function from (1, C, D, H, W) to logits, as ``SlidingWindowInferer`` calls it.

    ValueError, FileNotFoundError or ModuleNotFoundError for another suffix, no such file, or no runtime for it.
    """
    source = _known(path)
    if not source.is_file():
        raise FileNotFoundError(f"{source}: found no such file, expected an exported network")
    if source.suffix == ".ts":
        return torch.jit.load(str(source), map_location="cpu").eval()
    if source.suffix == ".pt2":
        return torch.export.load(str(source)).module()
    if source.suffix == ".xml":
        compiled = openvino_core().compile_model(source, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda image: torch.from_numpy(compiled(convert_to_numpy(image))[0].copy()).to(image.device)
    import onnxruntime

    run = onnxruntime.InferenceSession(str(source)).run
    return lambda image: torch.from_numpy(run(["pred"], {"image": convert_to_numpy(image)})[0]).to(image.device)


def _known(path: str | Path) -> Path:
    if Path(path).suffix not in FORMATS:
        known = ", ".join(f"{suffix} ({name})" for suffix, name in FORMATS.items())
        raise ValueError(f"{path}: found the suffix {Path(path).suffix!r}, expected one of {known}")
    return Path(path)
