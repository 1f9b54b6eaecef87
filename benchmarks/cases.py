"""What is measured: for each case its variants, each a function without arguments that does the work once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.data import Dataset, MetaTensor
from monai.inferers import sliding_window_inference
from monai.transforms import (
    BoundingRect,
    Compose,
    DeleteItemsd,
    RandCoarseDropout,
    RandRotate90,
    RandSpatialCrop,
    RandSpatialCropd,
)
from torch import Tensor

from swinfuse_components.engines import PreparePretrainingBatch, ResumableDataLoader
from swinfuse_components.finetuning import OpenVINONetwork
from swinfuse_components.losses import DensityDivergenceLoss, PretrainingLoss
from swinfuse_components.networks import SwinFUSE, SwinFUSEPretrainer
from swinfuse_components.transforms import RandTwoViewsd

from . import reference

Work = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the work and the device it runs on."""

    roi_size: int = 96
    feature_size: int = 48
    window_size: int = 7
    batch_size: int = 1
    device: str = "cpu"


def _volume(settings: Settings, channels: int = 1, size: tuple[int, ...] | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = size or (settings.roi_size,) * 3
    return torch.rand(settings.batch_size, channels, *shape, generator=generator).to(settings.device)


def _precision(settings: Settings, variant: str) -> torch.autocast:
    """Set what the ending of a variant's name says, ``bf16`` or ``tf32``; without one all is float32."""
    torch.set_float32_matmul_precision("high" if variant.endswith("tf32") else "highest")
    torch.backends.cudnn.allow_tf32 = variant.endswith("tf32")
    return torch.autocast(settings.device.split(":")[0], dtype=torch.bfloat16, enabled=variant.endswith("bf16"))


def pretraining(settings: Settings, variant: str) -> Work:
    """One step, two views of one sub-volume: forward, losses, backward, optimizer.

    Variants: ``reference``; ``none``, ``paper``, ``swinfuse``, ``released`` (which DIM); ``checkpoint`` (``none``
    with recomputation of the Swin blocks); ``bf16``, ``tf32``, ``compile_bf16`` (``none`` under these);
    ``reference_bf16``, ``reference_tf32``.
    """
    images = torch.cat([_volume(settings)] * 2)
    views = (images[: settings.batch_size], images[settings.batch_size :].flip(2))
    rotations = torch.arange(2 * settings.batch_size, device=settings.device) % 4
    torch.manual_seed(0)
    autocast = _precision(settings, variant)
    if variant.startswith("reference"):
        net = reference.ReferencePretrainer(settings.feature_size, settings.window_size).to(settings.device)
        optimizer = torch.optim.AdamW(net.parameters(), lr=4e-4, weight_decay=1e-5)
        loss_function = reference.ReferenceLoss()

        def reference_step() -> float:
            with autocast:
                return reference.reference_step(net, loss_function, views, images, rotations, optimizer)

        return reference_step

    dim = variant if variant in ("paper", "swinfuse", "released") else "none"
    ours = SwinFUSEPretrainer(
        roi_size=settings.roi_size,
        feature_size=settings.feature_size,
        window_size=settings.window_size,
        dim=dim,
        use_checkpoint=variant == "checkpoint",
    ).to(settings.device)
    # Without a DIM there is nothing to hold apart: the density term is then only logged.
    loss = PretrainingLoss(density_weight=0.0 if dim == "none" else 1.0)
    fused = torch.optim.AdamW(ours.parameters(), lr=4e-4, weight_decay=1e-5, fused=True)
    forward: Callable[..., Any] = torch.compile(ours) if variant.startswith("compile") else ours
    target = {"reconstruction": images, "rotation": rotations}

    def step() -> float:
        with autocast:
            prediction = forward(*views)
        total = loss(prediction, target)["loss"]
        fused.zero_grad(set_to_none=True)
        total.backward()
        fused.step()
        return float(total.detach())

    return step


def finetuning(settings: Settings, variant: str) -> Work:
    """One segmentation step on one sub-volume.

    Variants: ``reference``; ``none``, ``paper``, ``swinfuse`` (which DIM); ``checkpoint``, ``bf16``, ``tf32``,
    ``compile_bf16``, ``reference_bf16``, ``reference_tf32`` as in :func:`pretraining`.
    """
    image = _volume(settings)
    label = (image[:, 0] > 0.5).long()
    torch.manual_seed(0)
    autocast = _precision(settings, variant)
    sizes = {"feature_size": settings.feature_size, "window_size": settings.window_size}
    is_reference = variant.startswith("reference")
    if is_reference:
        net: torch.nn.Module = reference.reference_segmentation(1, 2, **sizes)
    else:
        dim = variant if variant in ("paper", "swinfuse") else "none"
        net = SwinFUSE(1, 2, settings.roi_size, dim=dim, use_checkpoint=variant == "checkpoint", **sizes)
    net = net.to(settings.device)
    optimizer = torch.optim.AdamW(net.parameters(), fused=not is_reference)
    forward: Callable[..., Any] = torch.compile(net) if variant.startswith("compile") else net

    def step() -> float:
        with autocast:
            loss = torch.nn.functional.cross_entropy(forward(image), label)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


# Size of the volume and of the foreground in it: a brain in BraTS's 240 x 240 x 155, a liver CT without its air.
VOLUMES = {
    "brats": (4, (240, 240, 155), (134, 170, 134)),
    "msd": (1, (256, 256, 160), (192, 160, 150)),
    "window": (4, (96, 96, 96), (96, 96, 96)),
}


def inference(settings: Settings, variant: str, volume: str = "brats") -> Work:
    """Logits of a whole volume by sliding windows with half overlap.

    Variants: ``reference`` (MONAI's Swin UNETR on the whole volume), ``crop`` (ours without DIM, on the foreground,
    put back into the whole), ``swinfuse`` (ours with DIM, on the foreground); ``openvino`` (``crop``, its windows by
    OpenVINO, on a CPU); ``reference_bf16``, ``crop_bf16``, ``openvino_bf16``.
    """
    channels, size, foreground = VOLUMES[volume]
    scale = settings.roi_size / 96
    size, foreground = (tuple(round(s * scale) for s in sizes) for sizes in (size, foreground))
    image = torch.zeros(1, channels, *size, device=settings.device)
    inner = tuple(slice((s - f) // 2, (s - f) // 2 + f) for s, f in zip(size, foreground))
    image[(..., *inner)] = _volume(settings, channels, foreground)[:1] + 0.1
    torch.manual_seed(0)
    sizes = {"feature_size": settings.feature_size, "window_size": settings.window_size}
    autocast = _precision(settings, variant)
    openvino, half = variant.startswith("openvino"), variant.endswith("_bf16")
    variant = "crop" if openvino else variant.removesuffix("_bf16")
    if variant == "reference":
        net: torch.nn.Module = reference.reference_segmentation(channels, 3, **sizes)
    else:
        net = SwinFUSE(channels, 3, settings.roi_size, dim="none" if variant == "crop" else variant, **sizes)
    net = net.to(settings.device).eval()
    predictor = OpenVINONetwork(net, torch.bfloat16 if half else torch.float32) if openvino else net
    windows = functools.partial(
        sliding_window_inference, roi_size=(settings.roi_size,) * 3, sw_batch_size=1, predictor=predictor, overlap=0.5
    )

    @torch.no_grad()
    def run() -> Tensor:
        with autocast:
            if variant == "reference":
                return windows(image)
            box = BoundingRect()(image[0].amax(0, keepdim=True))[0]
            cut = tuple(slice(int(a), int(b)) for a, b in zip(box[::2], box[1::2]))
            logits = image.new_full((1, 3, *size), -20.0)
            logits[(..., *cut)] = windows(image[(..., *cut)]).float()
            return logits

    return run


def density(settings: Settings, variant: str) -> Work:
    """The density loss with its gradient, in 48 dimensions; the variant is the number of points of each sample."""
    points = int(variant)
    x, y = (torch.randn(points, 48, device=settings.device, requires_grad=True) for _ in range(2))
    loss = DensityDivergenceLoss()
    return lambda: loss(x, y).backward()


def augmentation(settings: Settings, variant: str) -> Work:
    """From a loaded volume to two augmented views.

    Variants: ``reference`` (a MetaTensor through MONAI's crop, rotation and coarse dropout, once a view), ``plain``
    (the transforms of our pre-training on a bare tensor).
    """
    volume = _volume(settings, size=(160, 160, 160))[0]
    size = (settings.roi_size,) * 3
    if variant == "reference":
        cut = RandCoarseDropout(holes=6, spatial_size=settings.roi_size // 4, fill_value=0, prob=1.0)
        views = [Compose([RandRotate90(prob=0.75, max_k=3), cut]) for _ in range(2)]
        whole, crop = MetaTensor(volume), RandSpatialCrop(size, random_size=False)

        def twice() -> list[Any]:
            patch = crop(whole)
            return [view(patch) for view in views]

        return twice
    transform = Compose([RandSpatialCropd(keys="image", roi_size=size, random_size=False), RandTwoViewsd(keys="image")])
    return lambda: transform({"image": volume})


def fed(settings: Settings, variant: str) -> Work:
    """Ten pre-training steps without DIM, fed by the data loader from volumes in memory, crops and views included.

    The variant is the number of its worker processes; with ``shares`` the table says how busy the GPU was.
    """
    volumes = [{"image": _volume(settings, size=(160, 160, 160))[0].cpu()} for _ in range(2)]
    crop = RandSpatialCropd(keys="image", roi_size=(settings.roi_size,) * 3, random_size=False)
    transform = Compose([crop, RandTwoViewsd(keys="image"), DeleteItemsd(keys="image")])
    workers, cuda = int(variant), settings.device.startswith("cuda")
    options = {"persistent_workers": workers > 0, "pin_memory": cuda, "num_workers": workers}
    loader = iter(ResumableDataLoader(Dataset(volumes, transform), settings.batch_size, **options))
    prepare = PreparePretrainingBatch()
    torch.manual_seed(0)
    net = SwinFUSEPretrainer(
        roi_size=settings.roi_size, feature_size=settings.feature_size, window_size=settings.window_size, dim="none"
    ).to(settings.device)
    loss = PretrainingLoss(density_weight=0.0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-4, fused=True)

    def steps() -> None:
        for _ in range(10):
            view_i, target, others, _ = prepare(next(loader), settings.device, non_blocking=True)
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=cuda):
                prediction = net(view_i, *others)
            optimizer.zero_grad(set_to_none=True)
            loss(prediction, target)["loss"].backward()
            optimizer.step()

    return steps


CASES: Mapping[str, tuple[Callable[..., Work], tuple[str, ...], str]] = {
    "pretraining": (pretraining, ("reference", "none", "checkpoint", "swinfuse", "paper"), "reference"),
    "finetuning": (finetuning, ("reference", "none", "swinfuse"), "reference"),
    "inference_brats": (inference, ("reference", "crop", "swinfuse"), "reference"),
    "inference_msd": (functools.partial(inference, volume="msd"), ("reference", "crop", "swinfuse"), "reference"),
    "window": (
        functools.partial(inference, volume="window"),
        ("reference", "crop", "swinfuse", "crop_bf16", "openvino", "openvino_bf16"),
        "reference",
    ),
    "augmentation": (augmentation, ("reference", "plain"), "reference"),
    "density": (density, ("512", "1024", "4608"), "512"),
    "fed": (fed, ("0", "2"), "0"),
}
# What is measured besides on a GPU.
GPU_VARIANTS: Mapping[str, tuple[str, ...]] = {
    "pretraining": ("reference_tf32", "tf32", "reference_bf16", "bf16", "compile_bf16"),
    "finetuning": ("reference_tf32", "tf32", "reference_bf16", "bf16", "compile_bf16"),
    "inference_brats": ("reference_bf16", "crop_bf16"),
    "inference_msd": ("reference_bf16", "crop_bf16"),
    "fed": ("4", "8"),
}
