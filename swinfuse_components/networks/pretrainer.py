"""The network of the pre-training: encoder, domain invariance module and the three heads (section 2.2, Fig. 2)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .domain_invariance import DomainInvarianceOutput
from .encoder import SwinFUSEEncoder, check_norm
from .heads import DenseHead, InpaintingDecoder, PooledHead
from .segmentation import FixedSizeModule

MODES = ("cross", "self")


class SwinFUSEPretrainer(nn.Module):
    """Two views in, the predictions of the three pretext tasks for both out.

    Every head needs one representation a view, while Eq. 1 gives one average for both. ``mode="cross"``: each view's
    own term of Eq. 1 goes through the encoder. ``mode="self"``: each view is paired with itself and averaged, as in
    the authors' code and at fine-tuning. Either way the two are stacked on the batch axis and encoded in one pass.

    Args:
        roi_size: size of the views in voxels, one number or (D, H, W), multiples of 32.
        feature_size: channels of the patch embedding (the paper: 48), a multiple of 12.
        mode: ``"cross"`` or ``"self"``.
        contrastive_size, dense_size: lengths of the projections; 0 for the dense contrastive loss builds none.
        target_channels: channels of what the inpainting decoder restores; those of the image by default.
        norm_name: normalisation of the inpainting decoder.
        encoder: further arguments of :class:`SwinFUSEEncoder`: ``dim``, ``dim_options``, ``window_size``,
            ``downsample``, ``use_checkpoint``, ….

    Raises:
        ValueError: unknown mode; sizes or channels that do not fit, with what was found and expected.

    Example:
        >>> import torch
        >>> from swinfuse_components.networks import SwinFUSEPretrainer
        >>> net = SwinFUSEPretrainer(roi_size=64, feature_size=12, window_size=4)
        >>> out = net(torch.rand(1, 1, 64, 64, 64), torch.rand(1, 1, 64, 64, 64))
        >>> out["reconstruction"].shape, out["rotation"].shape, out["contrastive"].shape
        (torch.Size([2, 1, 64, 64, 64]), torch.Size([2, 4]), torch.Size([2, 512]))
    """

    def __init__(
        self,
        in_channels: int = 1,
        roi_size: Sequence[int] | int = 96,
        feature_size: int = 48,
        *,
        mode: str = "cross",
        contrastive_size: int = 512,
        dense_size: int = 0,
        target_channels: int | None = None,
        norm_name: tuple | str = "instance",
        **encoder: Any,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode: found {mode!r}, expected one of {MODES}")
        if feature_size % 12:
            raise ValueError(f"feature_size: found {feature_size}, expected a multiple of 12")
        self.mode = mode
        self.swinViT = SwinFUSEEncoder(in_channels, feature_size, roi_size, **encoder)
        self.roi_size = self.swinViT.roi_size
        check_norm(norm_name, self.roi_size)
        channels = 16 * feature_size
        self.rotation_head = PooledHead(channels, 4)  # four rotations by multiples of 90 degrees
        self.contrastive_head = PooledHead(channels, contrastive_size)
        self.decoder = InpaintingDecoder(channels, target_channels or in_channels, norm_name)
        # the four stages, each with its patch merging behind it
        self.dense_head = DenseHead([feature_size * 2**k for k in (1, 2, 3, 4)], dense_size) if dense_size else None

    def forward(self, view_i: Tensor, view_j: Tensor | None = None) -> dict[str, Any] | Tensor:
        """Predictions for two views, each (B, in_channels, D, H, W); all view_i come first, then all view_j.

        Returns:
            ``reconstruction`` (2B, in_channels, D, H, W), ``rotation`` (2B, 4) logits, ``contrastive``
            (2B, contrastive_size), and ``stream_i``, ``stream_j`` (B, feature_size, D/2, H/2, W/2), what of each view
            goes to the encoder; with a ``dense_size``, ``dense``, a list of one map (2B, dense_size, D/4, H/4, W/4) to
            (…, D/32, H/32, W/32) for each stage. With one view alone, its reconstruction (B, in_channels, D, H, W).
        """
        if view_j is None:
            p = self.swinViT.embed(view_i)
            return self.decoder(self.swinViT.encode_deepest(self.swinViT.fuse(p, p).fused))
        output = self.streams(view_i, view_j)
        streams, dense = torch.cat([output.stream_i, output.stream_j]), {}
        if self.dense_head is None:
            features = self.swinViT.encode_deepest(streams)
        else:
            *maps, features = self.swinViT.encode(streams)
            dense["dense"] = self.dense_head([*maps[1:], features])
        return {
            "reconstruction": self.decoder(features),
            "rotation": self.rotation_head(features),
            "contrastive": self.contrastive_head(features),
            "stream_i": output.stream_i,
            "stream_j": output.stream_j,
            **dense,
        }

    def streams(self, view_i: Tensor, view_j: Tensor) -> DomainInvarianceOutput:
        """What of each view goes to the encoder, and the mean of the two; (B, feature_size, D/2, H/2, W/2) each."""
        p_i, p_j = self.swinViT.embed(torch.cat([view_i, view_j])).chunk(2)
        if self.mode == "cross":
            return self.swinViT.fuse(p_i, p_j)
        stream_i, stream_j = self.swinViT.fuse(p_i, p_i).fused, self.swinViT.fuse(p_j, p_j).fused
        return DomainInvarianceOutput((stream_i + stream_j) / 2, stream_i, stream_j)

    def __prepare_scriptable__(self) -> nn.Module:
        """``torch.jit.script`` gets the trace for one view, since MONAI's ``SwinTransformer`` cannot be scripted."""
        return FixedSizeModule(self, self.swinViT.in_channels, self.roi_size)
