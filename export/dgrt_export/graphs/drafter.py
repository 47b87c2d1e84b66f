"""The drafter's graph: the last token of the text and the target's KV rows to hidden states of the tokens behind it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..config import Layer, ModelConfig
from ..drafter import DrafterConfig
from . import ops
from .layer import Wrapper


class BlockDrafter(Wrapper):
    """See `contract.DRAFTER_GRAPH`. Row 0 is the anchor, rows 1 to B are proposed; all see the past and each other.

    Its own parameters, on the meta device, have the names of its checkpoint; the token table is the target's.
    """

    def __init__(self, target: nn.Module, config: ModelConfig, drafter: DrafterConfig, fused: bool = False):
        own = replace(
            config, num_heads=drafter.num_heads, rms_norm_eps=drafter.rms_norm_eps, ropes={"full": config.ropes["full"]}
        )
        super().__init__(target, own, fused)
        self.kv_layers, self.past_layers = drafter.kv_layers, drafter.past_layers
        width = config.hidden_size
        with torch.device("meta"):
            self.mask = nn.Parameter(torch.empty(width))
            self.evidence_proj = nn.Linear(width, width, bias=False)
            self.layers = nn.ModuleList(_Layer(config, drafter, config.layers[t]) for t in drafter.kv_layers)
            self.norm = _Norm(width)

    def forward(self, tokens: Tensor, positions: Tensor, evidence: Tensor, past: list[Tensor]) -> Tensor:
        """past: past_k and past_v of the first of `past_layers`, then of the next. Returns hidden [1, B, D]."""
        table = self.rotary_tables(torch.cat((positions[:, :1] - 1, positions), 1))["full"]
        seen = ops.rms_norm(evidence.squeeze(0), None, self.eps)  # zeros stay zeros: no evidence
        x = torch.cat((self.embed(tokens), self.evidence_proj(seen) + self.mask))
        for layer, number in zip(self.layers, self.kv_layers, strict=True):
            facts, place = self.config.layers[number], 2 * self.past_layers.index(number)
            q, k, v = self.qkv(layer, facts, x, layer.input_norm, table)
            attended = ops.canvas_attention(
                q, k, v, past[place], past[place + 1], self.config.num_heads, facts.num_kv_heads
            )
            x = x + layer.o_proj(attended.view(-1, attended.shape[2]))
            x = x + self.gated_mlp(layer, self.rms_norm(x, layer.mlp_norm))
        return self.rms_norm(x[1:], self.norm).unsqueeze(0)


class _Norm(nn.Module):
    """The weight of a norm, under its name; without a size, a norm that has none."""

    def __init__(self, size: int | None):
        super().__init__()
        self.with_scale = size is not None
        if size is not None:
            self.weight = nn.Parameter(torch.empty(size))


class _Layer(nn.Module):
    """The parameters of one layer. `kv` is the target's layer that it looks into."""

    def __init__(self, config: ModelConfig, drafter: DrafterConfig, kv: Layer):
        super().__init__()
        width, inner, q_width = config.hidden_size, drafter.intermediate_size, drafter.num_heads * kv.head_dim
        self.input_norm, self.mlp_norm = _Norm(width), _Norm(width)
        self.q_norm, self.k_norm, self.v_norm = _Norm(kv.head_dim), _Norm(kv.head_dim), _Norm(None)
        self.q_proj = nn.Linear(width, q_width, bias=False)
        self.k_proj = nn.Linear(width, kv.kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv.kv_width, bias=False)
        self.o_proj = nn.Linear(q_width, width, bias=False)
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)
