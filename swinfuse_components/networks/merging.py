"""Patch merging as in MONAI before 1.5, for the checkpoints that were trained with it."""

import torch
import torch.nn.functional as F
from monai.networks.nets.swin_unetr import PatchMergingV2
from torch import Tensor

# The octants (offsets in D, H, W) in the order in which MONAI before 1.5 joined them: (0, 1, 0) and (0, 0, 1) stand
# there twice, (1, 1, 0) and (0, 1, 1) are missing.
LEGACY_OCTANTS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))


class LegacyPatchMerging(PatchMergingV2):
    """MONAI's ``PatchMerging`` before version 1.5, which read two octants twice and never two others.

    Parameter names and shapes are those of today's merging, so a checkpoint trained with this one loads into both
    without a word, and computes something else with the new one. Use it with ``downsample="legacy"`` for such weights.
    Input (B, D, H, W, C), output (B, D/2, H/2, W/2, 2C); odd sizes are padded with zeros.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 5:
            raise ValueError(f"legacy patch merging: found shape {tuple(x.shape)}, expected (B, D, H, W, C)")
        d, h, w = x.shape[1:4]
        if d % 2 or h % 2 or w % 2:
            x = F.pad(x, (0, 0, 0, w % 2, 0, h % 2, 0, d % 2))
        x = torch.cat([x[:, i::2, j::2, k::2, :] for i, j, k in LEGACY_OCTANTS], -1)
        return self.reduction(self.norm(x))
