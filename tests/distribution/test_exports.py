"""A network that leaves PyTorch must still say the same, on a real volume."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, EnsureType, LoadImage, ResizeWithPadOrCrop, ScaleIntensityRangePercentiles

from swinfuse_components.distribution import export_network, load_exported
from swinfuse_components.finetuning import PrecisionInferer
from swinfuse_components.networks import SwinFUSE

ROI = (64, 64, 64)
TOLERANCE = 1e-4
# its own kernels, of which the sums are less exact than PyTorch's: 4e-4 at most, 2e-5 in the mean
OPENVINO_TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def network() -> SwinFUSE:
    torch.manual_seed(0)
    # one block a stage: the writers of ONNX and torch.export take their time by the number of operators
    return SwinFUSE(1, 3, roi_size=ROI, feature_size=12, window_size=4, depths=(1, 1, 1, 1)).eval()


@pytest.fixture(scope="module")
def volume(swinfuse_data: Path) -> torch.Tensor:
    """The middle of a real MRI, larger than the region on one axis, so that two windows are needed."""
    image = sorted((swinfuse_data / "MSD_like/Task52_SarcomaMR/imagesTr").glob("*.nii.gz"))[0]
    load = Compose(
        [
            LoadImage(ensure_channel_first=True),
            ScaleIntensityRangePercentiles(0.5, 99.5, 0, 1, clip=True),
            ResizeWithPadOrCrop((80, 64, 64)),
            EnsureType(track_meta=False),
        ]
    )
    return load(image)[None]


@pytest.mark.parametrize(
    ("suffix", "packages"),
    [
        (".ts", ()),
        pytest.param(".xml", ("openvino",), marks=pytest.mark.slow),
        pytest.param(".pt2", (), marks=pytest.mark.slow),
        pytest.param(".onnx", ("onnxscript", "onnxruntime"), marks=pytest.mark.slow),
    ],
)
def test_exports_agree_with_eager(
    network: SwinFUSE, volume: torch.Tensor, suffix: str, packages: tuple[str, ...], tmp_path: Path
) -> None:
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install swinfuse-components[export]")
    path = export_network(network, tmp_path / f"network{suffix}", in_channels=1, roi_size=ROI)
    exported = load_exported(path)
    inferer = SlidingWindowInferer(ROI, sw_batch_size=1, overlap=0.25, mode="gaussian")
    with torch.no_grad():
        expected = inferer(volume, network)
        answer = inferer(volume, exported)
    assert expected.shape == (1, 3, *volume.shape[2:])
    assert expected.std() > 100 * TOLERANCE, "the logits say nothing: any export would agree"
    torch.testing.assert_close(answer, expected, rtol=0, atol=OPENVINO_TOLERANCE if suffix == ".xml" else TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", OPENVINO_TOLERANCE), ("bfloat16", 0.1)])
def test_the_openvino_backend_agrees_with_eager(
    network: SwinFUSE,
    volume: torch.Tensor,
    precision: str,
    tolerance: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed: pip install swinfuse-components[export]")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    windows = SlidingWindowInferer(ROI, sw_batch_size=2, overlap=0.25, mode="gaussian")
    ours = PrecisionInferer(windows, precision, backend="openvino")
    with torch.no_grad():
        expected, answer = windows(volume, network), ours(volume, network)
        torch.testing.assert_close(answer, expected, rtol=0, atol=tolerance)
        kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.xml")}
        again = PrecisionInferer(windows, precision, backend="openvino")(volume, network)
        assert len(kept) == 1 and {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.xml")} == kept
        torch.testing.assert_close(again, answer)
        # weights that change in place are noticed
        changed = copy.deepcopy(network)
        ours(volume, changed)
        next(iter(changed.out.parameters())).mul_(-1)
        torch.testing.assert_close(ours(volume, changed), windows(volume, changed), rtol=0, atol=tolerance)
        assert len(list(tmp_path.rglob("*.xml"))) == 2


SIGNAL = """
import gc, os, signal, torch
from swinfuse_components.distribution import export_network, load_exported
from swinfuse_components.finetuning.backends import OpenVINONetwork
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
network = torch.nn.Conv3d(1, 2, 1)
for _ in range(2):
    ours = OpenVINONetwork(network, torch.float32)
    ours(torch.zeros(1, 1, 8, 8, 8))
    exported = load_exported(export_network(network, "network.xml", in_channels=1, roi_size=(8, 8, 8)))
    del ours
    gc.collect()
    del exported
    gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.slow
def test_a_process_that_has_used_openvino_outlives_a_signal(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed: pip install swinfuse-components[export]")
    environment = {**os.environ, "TORCH_HOME": str(tmp_path), "PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, "-c", SIGNAL], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("heard\n"), done.stderr


def test_unknown_suffix_is_named(network: SwinFUSE, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.tflite', expected one of \.ts"):
        export_network(network, tmp_path / "network.tflite", in_channels=1, roi_size=ROI)
    with pytest.raises(FileNotFoundError, match="missing.ts"):
        load_exported(tmp_path / "missing.ts")
