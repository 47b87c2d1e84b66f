"""The block drafter: one pass from the target's KV memory to the next B tokens.

Its context is not its own: each layer attends to the K and V rows that one full layer of the target has written anyway,
so a draft needs no second cache and a commit nothing for the drafter. Rows of a block are the anchor (the last token of
the text, at position a) and B unknown tokens behind it, which see each other, the anchor and the target's rows [0, a).
What is predicted at a row is that row's own token, through the target's final vocabulary head. `export/README.md`
("Drafter") has the network in formulas, `dgrt_export` its graph.

Shapes: N blocks, B unknown rows, R = B + 1, P past rows, D hidden size, H query heads, G KV heads of the target's full
layers, d their head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from dgrt_export.config import Rope
from dgrt_export.graphs.ops import inverse_frequencies
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class DrafterShape:
    """What a drafter is made of; the last four are its target's."""

    kv_layers: tuple[int, ...]  # per layer of the drafter: the full layer of the target whose K and V rows it sees
    intermediate_size: int
    num_heads: int
    block_len: int  # most unknown rows
    hidden_size: int
    num_kv_heads: int
    rope: Rope
    rms_norm_eps: float


def rms(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """x / rms(x) over the last axis, times `weight` if there is one."""
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return normed if weight is None else normed * weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Split-half rotation of [N, heads, R, d] with cos and sin [N, 1, R, d / 2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Norm(nn.Module):
    """The weight of an RMS norm."""

    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))


class DrafterLayer(nn.Module):
    """Attention over the target's rows and the block, then a gated MLP."""

    def __init__(self, shape: DrafterShape):
        super().__init__()
        self.shape, d, width = shape, shape.rope.head_dim, shape.hidden_size

        def matrix(rows: int, columns: int, gain: float = 1.0) -> nn.Linear:
            made = nn.Linear(columns, rows, bias=False)
            nn.init.normal_(made.weight, std=gain * columns**-0.5)
            return made

        self.input_norm, self.mlp_norm = Norm(width), Norm(width)
        self.q_proj = matrix(shape.num_heads * d, width)
        self.k_proj, self.v_proj = matrix(shape.num_kv_heads * d, width), matrix(shape.num_kv_heads * d, width)
        self.o_proj = matrix(width, shape.num_heads * d, 0.3)
        self.q_norm, self.k_norm = Norm(d), Norm(d)
        nn.init.constant_(self.q_norm.weight, 1.2 * d**-0.25)  # scores are not scaled: start at order one
        nn.init.constant_(self.k_norm.weight, 1.2 * d**-0.25)
        self.gate_proj = matrix(shape.intermediate_size, width)
        self.up_proj = matrix(shape.intermediate_size, width)
        self.down_proj = matrix(width, shape.intermediate_size, 0.3)

    def forward(self, x: Tensor, past_k: Tensor, past_v: Tensor, seen: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [N, R, D], past [N, P, G, d], seen [N, 1, 1, P + R] bool -> [N, R, D]."""
        shape, eps = self.shape, self.shape.rms_norm_eps
        n = rms(x, self.input_norm.weight, eps)

        def heads(projection: nn.Linear, count: int) -> Tensor:
            return projection(n).unflatten(-1, (count, -1)).transpose(1, 2)

        q = rotate(rms(heads(self.q_proj, shape.num_heads), self.q_norm.weight, eps), cos, sin)
        k = rotate(rms(heads(self.k_proj, shape.num_kv_heads), self.k_norm.weight, eps), cos, sin)
        v = rms(heads(self.v_proj, shape.num_kv_heads), None, eps)
        k, v = torch.cat((past_k.transpose(1, 2), k), 2), torch.cat((past_v.transpose(1, 2), v), 2)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=1.0, enable_gqa=True)
        x = x + self.o_proj(attended.transpose(1, 2).flatten(2))
        m = rms(x, self.mlp_norm.weight, eps)
        return x + self.down_proj(F.gelu(self.gate_proj(m), approximate="tanh") * self.up_proj(m))


class BlockDrafter(nn.Module):
    """The whole drafter; parameter names are those of drafter.safetensors."""

    def __init__(self, shape: DrafterShape):
        super().__init__()
        self.shape = shape
        self.mask = nn.Parameter(torch.randn(shape.hidden_size))
        self.evidence_proj = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)
        nn.init.normal_(self.evidence_proj.weight, std=shape.hidden_size**-0.5)
        self.layers = nn.ModuleList(DrafterLayer(shape) for _ in shape.kv_layers)
        self.norm = Norm(shape.hidden_size)

    def forward(
        self, anchor: Tensor, position: Tensor, evidence: Tensor, past: dict[int, tuple[Tensor, Tensor]], seen: Tensor
    ) -> Tensor:
        """Hidden states of the unknown rows.

        Args:
            anchor: Scaled embeddings of the anchors [N, D].
            position: Their positions [N], int64.
            evidence: The target's final hidden states of its last denoise pass over the unknown rows [N, B, D]; zeros
                where there was none.
            past: Per full layer of the target K and V rows [N, P, G, d].
            seen: Which past rows exist [N, P], bool.

        Returns:
            [N, B, D] after the final norm, for the target's vocabulary head.
        """
        shape, eps = self.shape, self.shape.rms_norm_eps
        num_rows = evidence.shape[1] + 1
        unknown = self.mask + self.evidence_proj(rms(evidence, None, eps))
        x = torch.cat((anchor[:, None], unknown), 1)
        angles = (position[:, None] + torch.arange(num_rows))[:, None, :, None] * inverse_frequencies(shape.rope)
        cos, sin = angles.cos(), angles.sin()
        mask = torch.cat((seen, seen.new_ones(len(seen), num_rows)), 1)[:, None, None]
        for layer, target_layer in zip(self.layers, shape.kv_layers, strict=True):
            x = layer(x, *past[target_layer], mask, cos, sin)
        return rms(x, self.norm.weight, eps)[:, 1:]
