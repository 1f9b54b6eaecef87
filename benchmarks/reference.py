"""The reference: the Swin UNETR self-supervised recipe on MONAI's own modules, as users have it today.

Two forward passes (one a view), a Swin encoder that builds its masks at every forward, attention as MONAI computes it,
the inpainting decoder with its 1x1 convolution at full resolution after the last upsampling, rotation and contrastive
heads that read single tokens of the last stage, MetaTensors through the network, plain AdamW.
"""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from monai.losses import ContrastiveLoss
from monai.networks.nets import SwinUNETR
from monai.networks.nets.swin_unetr import SwinTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from swinfuse_components.losses import PretrainingLoss
from swinfuse_components.networks import SwinFUSEPretrainer


class ReferencePretrainer(nn.Module):
    """Encoder and heads of the recipe.

    Args:
        feature_size: channels of the patch embedding.
        window_size: attention window.
        pooled_heads: rotation and contrastive heads read the mean over the last feature map, as ours do, and not
            tokens 0 and 1. For the comparison of the two networks' losses; it changes nothing of the work.
        use_checkpoint: MONAI's gradient checkpointing.
    """

    def __init__(
        self, feature_size: int = 48, window_size: int = 7, pooled_heads: bool = False, use_checkpoint: bool = False
    ) -> None:
        super().__init__()
        self.pooled_heads = pooled_heads
        self.swinViT = SwinTransformer(
            in_chans=1,
            embed_dim=feature_size,
            window_size=(window_size,) * 3,
            patch_size=(2, 2, 2),
            depths=(2, 2, 2, 2),
            num_heads=(3, 6, 12, 24),
            use_checkpoint=use_checkpoint,
        )
        channels = 16 * feature_size
        self.rotation_head = nn.Linear(channels, 4)
        self.contrastive_head = nn.Linear(channels, 512)
        layers: list[nn.Module] = []
        for out in (channels // 2, channels // 4, channels // 8, channels // 16, channels // 16):
            layers += [nn.Conv3d(channels, out, 3, padding=1), nn.InstanceNorm3d(out), nn.LeakyReLU()]
            layers += [nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)]
            channels = out
        self.decoder = nn.Sequential(*layers, nn.Conv3d(channels, 1, 1))

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One view (B, 1, D, H, W) to rotation logits (B, 4), contrastive vector (B, 512) and reconstruction."""
        features = self.swinViT(view)[-1]
        tokens = features.flatten(2).transpose(1, 2)
        first, second = (tokens.mean(1), tokens.mean(1)) if self.pooled_heads else (tokens[:, 0], tokens[:, 1])
        return self.rotation_head(first), self.contrastive_head(second), self.decoder(features)


class ReferenceLoss(nn.Module):
    """L1 of the reconstruction, cross-entropy of the rotation, contrastive loss at temperature 0.5, weights 1."""

    def __init__(self) -> None:
        super().__init__()
        self.contrastive = ContrastiveLoss(temperature=0.5)

    def forward(self, outputs: list[tuple[Tensor, Tensor, Tensor]], images: Tensor, rotations: Tensor) -> Tensor:
        """Two outputs of the network, the images (2B, 1, D, H, W) and the rotations (2B,), view by view."""
        logits, vectors, volumes = (list(parts) for parts in zip(*outputs))
        contrastive = self.contrastive(*vectors)
        return F.l1_loss(torch.cat(volumes), images) + F.cross_entropy(torch.cat(logits), rotations) + contrastive


def reference_step(
    network: ReferencePretrainer,
    loss_function: ReferenceLoss,
    views: tuple[Tensor, Tensor],
    images: Tensor,
    rotations: Tensor,
    optimizer: torch.optim.Optimizer | None,
) -> float:
    """One training step as the recipe has it; without an optimizer, forward and loss only."""
    outputs = [network(MetaTensor(view)) for view in views]
    loss = loss_function(outputs, MetaTensor(images), rotations)
    if optimizer is not None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def reference_segmentation(in_channels: int, out_channels: int, feature_size: int, window_size: int) -> SwinUNETR:
    """MONAI's Swin UNETR as it comes."""
    return SwinUNETR(in_channels, out_channels, feature_size=feature_size, window_size=window_size)


def copy_weights(ours: SwinFUSEPretrainer, reference: ReferencePretrainer) -> None:
    """Our weights into the reference, every one of them."""
    reference.swinViT.load_state_dict(ours.swinViT.state_dict())
    for name in ("rotation_head", "contrastive_head"):
        getattr(reference, name).load_state_dict(getattr(ours, name)[-1].state_dict())
    theirs = [m for m in reference.decoder if isinstance(m, nn.Conv3d)]
    for mine, other in zip([m for m in ours.decoder.modules() if isinstance(m, nn.Conv3d)], theirs, strict=True):
        other.load_state_dict(mine.state_dict())


def check_same_work(
    ours: SwinFUSEPretrainer,
    reference: ReferencePretrainer,
    views: tuple[Tensor, Tensor],
    tolerance: float = 1e-4,
    losses: tuple[nn.Module, ReferenceLoss] | None = None,
) -> None:
    """Compare the two networks' parameters, output shapes, outputs and losses for the same weights.

    Args:
        ours: our network, without the domain invariance module.
        reference: gets our weights.
        views: one batch, (B, 1, D, H, W) each.
        tolerance: relative.
        losses: ours and the reference's; those that the benchmark times by default.

    Raises:
        ValueError: they do not do the same work; says what differs.
    """
    counts = [sum(p.numel() for p in net.parameters()) for net in (ours, reference)]
    if counts[0] != counts[1]:
        raise ValueError(f"parameters differ: ours {counts[0]}, reference {counts[1]}")
    copy_weights(ours, reference)
    was, reference.pooled_heads = reference.pooled_heads, True
    with torch.no_grad():
        prediction = ours(*views)
        outputs = [reference(view) for view in views]
    reference.pooled_heads = was
    names = ("rotation", "contrastive", "reconstruction")
    for name, parts in zip(names, zip(*outputs), strict=True):
        theirs = torch.cat(parts)
        if prediction[name].shape != theirs.shape:
            raise ValueError(f"{name}: shapes differ: ours {prediction[name].shape}, reference {theirs.shape}")
        difference = float((prediction[name] - theirs).abs().max() / theirs.abs().max())
        if not difference <= tolerance:
            raise ValueError(f"{name}: values differ by {difference:.1e} of the largest, {tolerance:.1e} allowed")
    our_loss, reference_loss = losses or (PretrainingLoss(density_weight=0.0), ReferenceLoss())
    images, rotations = torch.cat(views), torch.arange(2 * len(views[0])) % 4
    own = float(our_loss(prediction, {"reconstruction": images, "rotation": rotations})["loss"])
    other = float(reference_loss(outputs, images, rotations))
    if not abs(own - other) <= tolerance * abs(other):
        raise ValueError(f"losses differ: ours {own:.6g}, reference {other:.6g}")
