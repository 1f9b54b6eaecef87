"""SwinFUSE, the segmentation network: MONAI's Swin UNETR on the encoder with the domain invariance module."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.nets import SwinUNETR
from torch import Tensor, nn

from .encoder import SwinFUSEEncoder, check_norm, check_roi_size
from .merging import LegacyPatchMerging


class FixedSizeModule(nn.Module):
    """A network of one image (B, channels, D, H, W) as traced for ``roi_size``, which ``torch.jit.script`` accepts."""

    def __init__(self, network: nn.Module, in_channels: int, roi_size: Sequence[int]) -> None:
        super().__init__()
        parameter = next(network.parameters())
        example = torch.zeros(1, in_channels, *roi_size, device=parameter.device, dtype=parameter.dtype)
        with torch.no_grad():
            self.traced = torch.jit.trace(network, example, check_trace=False)

    def forward(self, x: Tensor) -> Tensor:
        """One image of the traced size."""
        return self.traced(x)


class SwinFUSE(SwinUNETR):
    """MONAI's ``SwinUNETR`` whose encoder carries a domain invariance module (section 2.4: fine-tuning keeps it).

    One input is paired with itself, so that the encoder sees the average of Eq. 1. All parameters keep MONAI's names;
    those of the module stand under ``swinViT.domain_invariance``. With ``dim="none"`` names and numbers are MONAI's.
    With plane tokens every input must have exactly ``roi_size``: use MONAI's ``SlidingWindowInferer`` with that size,
    which pads smaller volumes.

    Args:
        in_channels, out_channels: channels of the input, and of the output (logits).
        roi_size: size of the input in voxels, one number or (D, H, W), multiples of 32.
        feature_size: channels of the patch embedding (the paper: 48), a multiple of 12.
        dim: variant of the domain invariance module: ``"swinfuse"``, ``"paper"``, ``"released"`` or ``"none"``.
        dim_options: further arguments of the module.
        downsample: patch merging, MONAI's choices or ``"legacy"`` for weights trained with MONAI before 1.5.
        attention: how the window attention is computed, see :class:`SwinFUSEEncoder`.
        shared: the arguments that MONAI's ``SwinUNETR`` has in common with its encoder: ``depths``, ``num_heads``,
            ``window_size``, ``patch_size``, ``qkv_bias``, ``mlp_ratio``, ``drop_rate``, ``attn_drop_rate``,
            ``use_checkpoint``, ``use_v2``.

    Raises:
        ValueError: sizes or channels that do not fit, with what was found and expected.

    Example:
        >>> import torch
        >>> from swinfuse_components.networks import SwinFUSE
        >>> net = SwinFUSE(in_channels=1, out_channels=3, roi_size=64, feature_size=12)
        >>> net(torch.rand(1, 1, 64, 64, 64)).shape
        torch.Size([1, 3, 64, 64, 64])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        roi_size: Sequence[int] | int = 96,
        feature_size: int = 48,
        *,
        dim: str = "swinfuse",
        dim_options: Mapping[str, Any] | None = None,
        downsample: str = "merging",
        dropout_path_rate: float = 0.0,
        normalize: bool = True,
        norm_name: tuple | str = "instance",
        spatial_dims: int = 3,
        attention: str = "auto",
        **shared: Any,
    ) -> None:
        if spatial_dims != 3:
            raise ValueError(f"spatial_dims: found {spatial_dims}, expected 3")
        check_roi_size(roi_size, shared.get("patch_size", 2), shared.get("window_size", 7))
        shared["downsample"] = LegacyPatchMerging if downsample == "legacy" else downsample
        super().__init__(
            in_channels,
            out_channels,
            feature_size=feature_size,
            dropout_path_rate=dropout_path_rate,
            normalize=normalize,
            norm_name=norm_name,
            **shared,
        )
        encoder = SwinFUSEEncoder(
            in_channels,
            feature_size,
            roi_size,
            drop_path_rate=dropout_path_rate,
            dim=dim,
            dim_options=dim_options,
            attention=attention,
            **shared,
        )
        check_norm(norm_name, encoder.roi_size)
        # MONAI's own draw of the weights, so that one seed gives one network with and without the module.
        drawn: nn.Module = self.swinViT
        missing, unexpected = encoder.load_state_dict(drawn.state_dict(), strict=False)
        assert not unexpected and all(key.startswith("domain_invariance.") for key in missing)
        self.swinViT: SwinFUSEEncoder = encoder
        self.in_channels = in_channels
        self.roi_size = encoder.roi_size

    def __prepare_scriptable__(self) -> nn.Module:
        """``torch.jit.script`` gets the trace at ``roi_size``, since MONAI's ``SwinUNETR`` cannot be scripted."""
        return FixedSizeModule(self, self.in_channels, self.roi_size)
