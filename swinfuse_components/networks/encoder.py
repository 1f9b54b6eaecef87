"""The Swin encoder with the domain invariance module behind its patch embedding (section 2.2, Fig. 2)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.networks.nets.swin_unetr import SwinTransformer
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from .domain_invariance import DomainInvarianceOutput
from .fast import use_efficient_stages
from .merging import LegacyPatchMerging
from .variants import build_domain_invariance


def check_roi_size(
    roi_size: Sequence[int] | int, patch_size: int = 2, window_size: Sequence[int] | int = 1
) -> tuple[int, ...]:
    """The region of interest as three numbers; raises ValueError unless each divides by ``patch_size ** 5``."""
    size = ensure_tuple_rep(roi_size, 3)
    step = patch_size**5
    if any(s <= 0 or s % step for s in size):
        raise ValueError(f"roi_size: found {size}, expected positive multiples of {step} on every axis")
    if any(not 1 <= w <= s // patch_size for w, s in zip(ensure_tuple_rep(window_size, 3), size)):
        tokens = [s // patch_size for s in size]
        raise ValueError(f"window_size: found {window_size}, expected 1 to the {tokens} tokens of the region {size}")
    return size


def check_norm(norm_name: tuple | str, roi_size: Sequence[int]) -> None:
    """Refuse instance normalisation where the last feature map has one voxel, on which it fails."""
    norm = norm_name if isinstance(norm_name, str) else norm_name[0]
    if norm.lower() == "instance" and max(roi_size) < 64:
        raise ValueError(
            f"roi_size: found {tuple(roi_size)}, expected 64 or more on one axis, since instance normalisation fails "
            "on a last feature map of one voxel (or choose another norm_name, e.g. ('group', {'num_groups': 4}))"
        )


class SwinFUSEEncoder(SwinTransformer):
    """MONAI's 3D ``SwinTransformer`` with a domain invariance module between patch embedding and first stage.

    The names of all parameters are MONAI's; those of the module stand under ``domain_invariance``. With
    ``dim="none"`` the encoder is MONAI's in names and numbers.

    Args:
        in_chans: input channels.
        embed_dim: channels C of the patch embedding (the paper: 48).
        roi_size: size of the input in voxels (D, H, W), or one number for a cube. Plane tokens tie the weights to it.
        window_size, patch_size, depths, num_heads: as MONAI's; a window may be one number or three.
        dim, dim_options: variant of the domain invariance module: ``"swinfuse"``, ``"paper"``, ``"released"`` or
            ``"none"``, and further arguments of the module.
        downsample: patch merging, MONAI's choices or ``"legacy"`` for weights trained with MONAI before 1.5.
        attention: how the window attention is computed, the same numbers every way: ``"auto"`` chooses by device,
            ``"plain"`` is MONAI's, see :class:`EfficientWindowAttention`.
        kwargs: the other arguments of MONAI's ``SwinTransformer``.

    Raises:
        ValueError: sizes or channels that do not fit, at construction or at call, with what was found and expected.
    """

    def __init__(
        self,
        in_chans: int,
        embed_dim: int = 48,
        roi_size: Sequence[int] | int = 96,
        window_size: Sequence[int] | int = 7,
        patch_size: int = 2,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        *,
        dim: str = "swinfuse",
        dim_options: Mapping[str, Any] | None = None,
        downsample: str | type[nn.Module] = "merging",
        attention: str = "auto",
        **kwargs: Any,
    ) -> None:
        size = check_roi_size(roi_size, patch_size, window_size)
        super().__init__(
            in_chans=in_chans,
            embed_dim=embed_dim,
            window_size=ensure_tuple_rep(window_size, 3),
            patch_size=ensure_tuple_rep(patch_size, 3),
            depths=depths,
            num_heads=num_heads,
            downsample=LegacyPatchMerging if downsample == "legacy" else downsample,
            **kwargs,
        )
        use_efficient_stages(self, attention)
        self.in_channels = in_chans
        self.roi_size = size
        embedding_size = tuple(s // patch_size for s in self.roi_size)
        self.domain_invariance = build_domain_invariance(dim, embed_dim, embedding_size, dim_options)

    def embed(self, x: Tensor) -> Tensor:
        """Patch embedding: (B, in_chans, D, H, W) to (B, C, D/2, H/2, W/2)."""
        if not torch.jit.is_tracing():  # sizes are traced values there, not numbers to compare
            if x.dim() != 5 or x.shape[1] != self.in_channels:
                raise ValueError(f"image of shape {tuple(x.shape)} found, (B, {self.in_channels}, D, H, W) expected")
            module, size = self.domain_invariance, tuple(x.shape[2:])
            if module is not None and getattr(module, "tokens", "planes") == "planes" and size != self.roi_size:
                raise ValueError(
                    f"image of size {size} found, roi_size {self.roi_size} expected: the weights of the domain "
                    "invariance module belong to one region size (run a sliding window of this size, or use "
                    "tokens='windows')"
                )
        # A plain tensor from here on: MONAI's MetaTensor would carry its metadata through every operation. Other
        # subclasses stay: the tensors of torch.export are such.
        return self.pos_drop(self.patch_embed(x.as_tensor() if isinstance(x, MetaTensor) else x))

    def fuse(self, p_i: Tensor, p_j: Tensor) -> DomainInvarianceOutput:
        """The domain invariance module on two embeddings; without one, each stream is its embedding."""
        if self.domain_invariance is None:
            return DomainInvarianceOutput(p_i if p_i is p_j else (p_i + p_j) / 2, p_i, p_j)
        return self.domain_invariance(p_i, p_j)

    def encode(self, embedding: Tensor, normalize: bool = True) -> list[Tensor]:
        """The four Swin stages on an embedding (B, C, d, h, w).

        Returns five maps: the embedding and the output of each stage, (B, C * 2^k, d / 2^k, ...) for k = 0 to 4;
        layer-normalised over the channels if ``normalize``.
        """
        return [self.proj_out(x, normalize) for x in self._stages(embedding)]

    def encode_deepest(self, embedding: Tensor, normalize: bool = True) -> Tensor:
        """The last of the maps of :meth:`encode`, without normalising the others for nothing."""
        *_, deepest = self._stages(embedding)
        return self.proj_out(deepest, normalize)

    def _stages(self, x: Tensor) -> Iterator[Tensor]:
        yield x
        for number in range(1, self.num_layers + 1):
            if self.use_v2:
                x = getattr(self, f"layers{number}c")[0](x.contiguous())
            x = getattr(self, f"layers{number}")[0](x)
            yield x

    def forward(self, x: Tensor, normalize: bool = True) -> list[Tensor]:
        """One input (B, in_chans, D, H, W): it is paired with itself, and the average of Eq. 1 is encoded."""
        p = self.embed(x)
        return self.encode(self.fuse(p, p).fused, normalize)
