"""The Domain Invariance Module (DIM): co-attention between the embeddings of two views (section 2.2, Eq. 1)."""

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from monai.networks.blocks import CrossAttentionBlock
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

TOKENS = ("planes", "windows", "patches")
GATES = ("sigmoid", "residual", "product")
# Standard deviation of the last projection for the gates that are to start at the identity.
SMALL_INIT_STD = 0.01
# Factor of the cosine of query and key: at the start, and at most (Liu et al., "Swin Transformer V2", CVPR 2022).
COSINE_SCALE, MAX_COSINE_SCALE = 10.0, 100.0


class DomainInvarianceOutput(NamedTuple):
    """What a DIM returns; every tensor has the shape (B, C, D, H, W) of the embeddings that went in.

    ``stream_i`` and ``stream_j`` are the two terms of Eq. 1, ``fused`` is their mean.
    """

    fused: Tensor
    stream_i: Tensor
    stream_j: Tensor


class CoAttentionLayer(nn.Module):
    """One layer of Psi: multi-head attention with the queries of the other stream.

    The attention itself is MONAI's ``CrossAttentionBlock`` through PyTorch's scaled-dot-product attention, which never
    holds the matrix of attention weights (61 to 486 MiB a layer at 96 cubed). Dropout is left out: that block would
    drop weights at evaluation too. The arguments are those of :class:`DomainInvarianceModule`, for one layer.
    """

    def __init__(self, token_dim: int, num_heads: int, head_dim: int, normalize: bool, cosine: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(token_dim) if normalize else nn.Identity()
        self.attention = CrossAttentionBlock(token_dim, num_heads, dim_head=head_dim, use_flash_attention=True)
        self.log_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(COSINE_SCALE))) if cosine else None

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        """``query`` from the other stream, ``context`` (keys and values) from the own one; all (B, N, token_dim)."""
        block = self.attention
        if self.log_scale is None:
            return block(self.norm(query), self.norm(context))
        query, context = self.norm(query), self.norm(context)
        q, k = self._queries_and_keys(query, context)
        v = block.input_rearrange(block.to_v(context))
        attended = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, scale=1.0)
        return block.out_proj(block.out_rearrange(attended))

    def weights(self, query: Tensor, context: Tensor) -> Tensor:
        """The attention weights (B, heads, N, N) that :meth:`forward` uses without holding them."""
        q, k = self._queries_and_keys(self.norm(query), self.norm(context))
        return torch.einsum("bhnd,bhmd->bhnm", q, k).softmax(dim=-1)

    def _queries_and_keys(self, query: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """(B, heads, N, head_dim) each; their products are the logits of the attention."""
        block = self.attention
        q, k = block.input_rearrange(block.to_q(query)), block.input_rearrange(block.to_k(context))
        if self.log_scale is None:
            return q * block.scale, k
        return F.normalize(q, dim=-1) * self.log_scale.exp().clamp(max=MAX_COSINE_SCALE), F.normalize(k, dim=-1)


class DomainInvarianceModule(nn.Module):
    r"""Gate the embedding of each of two views by what attention finds in common with the other view.

    Eq. 1 of the paper: :math:`P_1 \cdot \Psi_1(Q_2, K_1, V_1) + P_2 \cdot \Psi_2(Q_1, K_2, V_2)`, averaged. Psi is a
    stack of attention layers; before every layer the queries of the two streams are exchanged. The paper's setting is
    four layers of 3, 6, 12 and 24 heads of dimension 16 (query, key and value widths 48, 96, 192, 384) on tokens of
    dimension 2304, which at 96 cubed is one plane of 48 x 48 voxels of one channel of the embedding.

    The defaults are this project's own variant, which starts at the identity and trains better than the literal
    product. The paper's is ``gate="product", shared=False, residual=False, normalize=False``.

    Args:
        embed_dim: channels C of the embeddings.
        embedding_size: spatial size (D, H, W) of the embeddings, or one number for a cube. Needed for plane tokens,
            whose dimension is H * W: such weights belong to one region size. Ignored for ``tokens="windows"``.
        num_heads: heads of each layer; its length is the depth of the stack.
        head_dim: query, key and value width of one head.
        tokens: ``"planes"``: C * D tokens of dimension H * W, as the paper has it. ``"windows"``: attention inside
            windows of ``window_size`` cubed over voxels, tokens of dimension C; the weights then serve any region.
        window_size: edge of the windows in voxels of the embedding, one number or three. Must divide the size.
        gate: how Psi acts on the embedding P: ``"sigmoid"`` is :math:`P \cdot 2\sigma(\Psi)`, ``"residual"``
            is :math:`P \cdot (1 + \Psi)`, ``"product"`` is :math:`P \cdot \Psi`, the literal Eq. 1.
            The first two begin near the identity, by a small last projection.
        shared: one Psi for both streams, or two of their own. Two different Psi can be told apart for identical
            inputs, so that a density loss between the streams is at its bound from the first step.
        residual: add what enters a layer to what leaves it, except at the last one, whose output is Psi.
        normalize: layer normalisation before each attention.
        cosine: queries and keys of unit length, and a factor for each head that is learned (10 at the start) in place
            of the fixed one, so that the attention can be sharp whatever the length of the tokens.
        use_checkpoint: recompute each layer in the backward pass instead of keeping its intermediate results.

    Raises:
        ValueError: an unknown setting; plane tokens without ``embedding_size``; inputs of the wrong shape.

    Example:
        >>> import torch
        >>> from swinfuse_components.networks import DomainInvarianceModule
        >>> dim = DomainInvarianceModule(embed_dim=12, embedding_size=16)
        >>> p_i, p_j = torch.rand(1, 12, 16, 16, 16), torch.rand(1, 12, 16, 16, 16)
        >>> dim(p_i, p_j).fused.shape
        torch.Size([1, 12, 16, 16, 16])
    """

    def __init__(
        self,
        embed_dim: int,
        embedding_size: Sequence[int] | int | None = None,
        *,
        num_heads: Sequence[int] = (3, 6, 12, 24),
        head_dim: int = 16,
        tokens: str = "planes",
        window_size: Sequence[int] | int = 4,
        gate: str = "sigmoid",
        shared: bool = True,
        residual: bool = True,
        normalize: bool = True,
        cosine: bool = False,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if tokens not in TOKENS:
            raise ValueError(f"tokens: found {tokens!r}, expected one of {TOKENS}")
        if gate not in GATES:
            raise ValueError(f"gate: found {gate!r}, expected one of {GATES}")
        if tokens == "planes" and embedding_size is None:
            raise ValueError("embedding_size: found None, expected (D, H, W): plane tokens are planes of H x W voxels")
        if len(num_heads) == 0:
            raise ValueError("num_heads: found none, expected the number of heads of each layer")
        self.embed_dim = embed_dim
        self.embedding_size = None if embedding_size is None else ensure_tuple_rep(embedding_size, 3)
        self.window_size = ensure_tuple_rep(window_size, 3)
        self.tokens, self.gate, self.shared, self.residual = tokens, gate, shared, residual
        self.use_checkpoint = use_checkpoint
        self.depth = len(num_heads)
        if tokens == "planes" and self.embedding_size is not None:
            self.token_dim = self.embedding_size[1] * self.embedding_size[2]
        else:
            self.token_dim = embed_dim * (math.prod(self.window_size) if tokens == "patches" else 1)
        self.psi = nn.ModuleList(
            nn.ModuleList(CoAttentionLayer(self.token_dim, heads, head_dim, normalize, cosine) for heads in num_heads)
            for _ in range(1 if shared else 2)
        )
        if gate != "product":
            for stack in range(len(self.psi)):
                last = self._layer(stack, -1).attention.out_proj
                nn.init.normal_(last.weight, std=SMALL_INIT_STD)
                nn.init.zeros_(last.bias)

    def forward(self, p_i: Tensor, p_j: Tensor) -> DomainInvarianceOutput:
        """Eq. 1 for two embeddings, each (B, C, D, H, W)."""
        gate_i, gate_j = self.gates(p_i, p_j)
        stream_i = p_i * gate_i
        stream_j = stream_i if gate_j is gate_i else p_j * gate_j
        return DomainInvarianceOutput((stream_i + stream_j) / 2, stream_i, stream_j)

    def gates(self, p_i: Tensor, p_j: Tensor) -> tuple[Tensor, Tensor]:
        """What each embedding is multiplied by, two tensors (B, C, D, H, W): the module's attention over the volume."""
        self._check(p_i, p_j)
        x_i, x_j = self._to_tokens(p_i), self._to_tokens(p_j)
        # One input through one Psi: both streams are the same, so one is enough.
        same = p_i is p_j and self.shared
        for number in range(self.depth):
            y_i = self._step(0, number, x_j, x_i)
            y_j = y_i if same else self._step(-1, number, x_i, x_j)
            x_i, x_j = y_i, y_j
        gate_i = self._to_gate(self._to_volume(x_i, p_i.shape))
        return gate_i, gate_i if same else self._to_gate(self._to_volume(x_j, p_j.shape))

    @torch.no_grad()
    def attention_maps(self, p_i: Tensor, p_j: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The attention weights of every layer, first those of stream i, then those of stream j.

        Plane tokens: (B, heads, C*D, C*D), rows are the queries (the other view's planes), columns the own planes.
        Window tokens: (B * windows, heads, window voxels, window voxels). Large: at 96 cubed and 24 heads a map of
        plane tokens takes 486 MiB in float32, so this is apart from :meth:`forward`, which never holds them.
        """
        self._check(p_i, p_j)
        maps = []
        x_i, x_j = self._to_tokens(p_i), self._to_tokens(p_j)
        for number in range(self.depth):
            maps.append((self._layer(0, number).weights(x_j, x_i), self._layer(-1, number).weights(x_i, x_j)))
            x_i, x_j = self._step(0, number, x_j, x_i), self._step(-1, number, x_i, x_j)
        return maps

    def _layer(self, stack: int, number: int) -> CoAttentionLayer:
        return cast(CoAttentionLayer, cast(nn.ModuleList, self.psi[stack])[number])

    def _step(self, stack: int, number: int, query: Tensor, context: Tensor) -> Tensor:
        """One layer of the chosen Psi; all (B, N, token_dim)."""
        layer = self._layer(stack, number)
        if self.use_checkpoint and torch.is_grad_enabled():
            out = checkpoint(layer, query, context, use_reentrant=False)
        else:
            out = layer(query, context)
        is_last = number == self.depth - 1
        return out + context if self.residual and not is_last else out

    def _to_gate(self, psi: Tensor) -> Tensor:
        if self.gate == "sigmoid":
            return 2 * torch.sigmoid(psi)
        return 1 + psi if self.gate == "residual" else psi

    def _to_tokens(self, p: Tensor) -> Tensor:
        if self.tokens == "planes":
            return p.flatten(3).flatten(1, 2)
        b, c, d, h, w = p.shape
        wd, wh, ww = self.window_size
        p = p.reshape(b, c, d // wd, wd, h // wh, wh, w // ww, ww).permute(0, 2, 4, 6, 3, 5, 7, 1)
        return p.reshape(-1, wd * wh * ww, c) if self.tokens == "windows" else p.reshape(b, -1, self.token_dim)

    def _to_volume(self, x: Tensor, shape: torch.Size) -> Tensor:
        if self.tokens == "planes":
            return x.reshape(shape)
        b, c, d, h, w = shape
        wd, wh, ww = self.window_size
        x = x.reshape(b, d // wd, h // wh, w // ww, wd, wh, ww, c)
        return x.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(shape)

    def _check(self, p_i: Tensor, p_j: Tensor) -> None:
        if torch.jit.is_tracing():  # sizes are traced values there, not numbers to compare
            return
        for name, p in (("p_i", p_i), ("p_j", p_j)):
            if p.dim() != 5 or p.shape[1] != self.embed_dim:
                raise ValueError(f"{name}: found shape {tuple(p.shape)}, expected (B, {self.embed_dim}, D, H, W)")
        if p_i.shape != p_j.shape:
            raise ValueError(f"the embeddings differ in shape: found {tuple(p_i.shape)} and {tuple(p_j.shape)}")
        size = tuple(p_i.shape[2:])
        if self.tokens == "planes" and size != self.embedding_size:
            raise ValueError(
                f"embedding of size {size} found, {self.embedding_size} expected: plane tokens tie the weights of the "
                "domain invariance module to one region size (build it for this size, or use tokens='windows')"
            )
        if self.tokens != "planes" and any(s % w for s, w in zip(size, self.window_size, strict=True)):
            raise ValueError(f"embedding of size {size} found, expected multiples of the window {self.window_size}")
