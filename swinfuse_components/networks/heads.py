"""The heads of the pretext tasks: rotation, contrastive coding and inpainting (section 2.3; Swin UNETR's tasks)."""

from collections.abc import Sequence

from monai.networks.layers.factories import Conv
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import Tensor, nn


class PooledHead(nn.Sequential):
    """Global average pooling over the last feature map, then one linear layer: rotation and contrastive heads.

    Input (B, ``in_channels``, d, h, w), output (B, ``out_features``). Swin UNETR's pre-training code reads single
    corner tokens of the last stage instead; the mean sees the whole volume and does not depend on its size.
    """

    def __init__(self, in_channels: int, out_features: int) -> None:
        super().__init__(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(in_channels, out_features))


class DenseHead(nn.Module):
    """Projections for the dense contrastive loss: a small network over the channels of every place, one for each map.

    ``in_channels`` are those of each map, ``size`` is the length of the projections.
    """

    def __init__(self, in_channels: Sequence[int], size: int) -> None:
        super().__init__()
        conv = Conv["conv", 3]
        self.projections = nn.ModuleList(
            nn.Sequential(conv(channels, channels, 1), nn.GELU(), conv(channels, size, 1)) for channels in in_channels
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, ``in_channels[k]``, d, h, w) to maps (B, ``size``, d, h, w)."""
        return [project(x) for project, x in zip(self.projections, maps, strict=True)]


class InpaintingDecoder(nn.Module):
    """Rebuild the volume from the last feature map, by convolutions and trilinear upsampling.

    Five times: 3x3x3 convolution that halves the channels (the last keeps them), normalisation, leaky ReLU, doubling of
    the size; then a 1x1x1 convolution to the image's channels. That convolution stands before the last upsampling
    instead of after it: both are linear and the interpolation weights sum to one, so the result is the same (6e-7 in
    float32) at an eighth of its voxels.

    Args:
        in_channels: channels of the last feature map, 16 times the feature size; must divide by 16.
        out_channels: channels of the image.
        norm_name: normalisation by MONAI's names; ``"instance"`` needs a region of 64 on one axis at least, since it
            fails on a last feature map of one voxel.
    """

    def __init__(self, in_channels: int, out_channels: int, norm_name: tuple | str = "instance") -> None:
        super().__init__()
        if in_channels % 16:
            raise ValueError(f"in_channels: found {in_channels}, expected a multiple of 16")
        self.blocks = nn.ModuleList()
        channels = in_channels
        for number in range(5):
            out = channels // 2 if number < 4 else channels
            self.blocks.append(
                nn.Sequential(
                    Conv["conv", 3](channels, out, kernel_size=3, padding=1),
                    get_norm_layer(norm_name, spatial_dims=3, channels=out),
                    get_act_layer("leakyrelu"),
                )
            )
            channels = out
        self.upsample = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)
        self.out = Conv["conv", 3](channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, d, h, w) to (B, out_channels, 32 d, 32 h, 32 w)."""
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            x = block(x)
            x = self.upsample(self.out(x) if number == last else x)
        return x
