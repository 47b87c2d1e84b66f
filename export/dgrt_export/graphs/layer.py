"""One layer of the target with explicit KV tensors: what prefill and denoise share.

`layer` is a transformers decoder layer; its submodules are called or their weights handed to our operators. Rows are
kept two-dimensional [S, D], so that a linear layer is one Gemm; only attention sees [1, S, *].
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..config import Layer, ModelConfig
from . import ops

Table = tuple[Tensor, Tensor]


class Wrapper(nn.Module):
    """Base of the graphs: holds the target under the checkpoint's own names and our description of it."""

    model: Any  # the target's tree; its attributes are known to transformers only

    def __init__(self, target: nn.Module, config: ModelConfig):
        super().__init__()
        self.model = target.model
        self.config = config
        self.eps = config.rms_norm_eps

    def embed(self, tokens: Tensor) -> Tensor:
        """[1, S] token ids to [S, D] rows scaled by sqrt(D)."""
        table = self.model.decoder.embed_tokens.weight
        return nn.functional.embedding(tokens.squeeze(0), table) * self.config.hidden_size**0.5

    def rotary_tables(self, positions: Tensor) -> dict[str, Table]:
        """Cosines and sines once per layer type."""
        return {
            kind: ops.rotary_table(positions, rope.head_dim, rope.theta, rope.rotated_pairs, rope.factor)
            for kind, rope in self.config.ropes.items()
        }

    def rms_norm(self, x: Tensor, module: Any) -> Tensor:
        return ops.rms_norm(x, module.weight if module.with_scale else None, self.eps)

    def gated_mlp(self, module: Any, x: Tensor) -> Tensor:
        """The three projections of `module` with gelu_tanh between them; the config admits no other activation."""
        return ops.gated_mlp(x, module.gate_proj.weight, module.up_proj.weight, module.down_proj.weight)

    def queries(self, attention: Any, facts: Layer, x: Tensor, table: Table) -> Tensor:
        """[1, S, H * head_dim], normed and rotated."""
        heads = attention.q_proj(x).view(1, -1, self.config.num_heads, facts.head_dim)
        flat = self.rms_norm(heads, attention.q_norm).view(1, -1, self.config.num_heads * facts.head_dim)
        return ops.rotate(flat, *table, self.config.num_heads)

    def keys_values(self, attention: Any, facts: Layer, x: Tensor, table: Table) -> tuple[Tensor, Tensor]:
        """The new KV rows [1, S, K]. Without v_proj the value is the raw key projection, before norm and rotation."""
        shape = (1, -1, facts.num_kv_heads, facts.head_dim)
        raw_k = attention.k_proj(x).view(shape)
        raw_v = raw_k if attention.v_proj is None else attention.v_proj(x).view(shape)
        k = self.rms_norm(raw_k, attention.k_norm).view(1, -1, facts.kv_width)
        v = self.rms_norm(raw_v, attention.v_norm).view(1, -1, facts.kv_width)
        return ops.rotate(k, *table, facts.num_kv_heads), v

    def after_attention(self, layer: Any, residual: Tensor, attended: Tensor) -> Tensor:
        """Output projection, then dense MLP and experts side by side. The router reads the raw residual.

        What is left of the layer is its scalar, which differs between the two sides.
        """
        flat = attended.view(-1, attended.shape[2])
        x = residual + self.rms_norm(layer.self_attn.o_proj(flat), layer.post_attention_layernorm)
        dense = self.gated_mlp(layer.mlp, self.rms_norm(x, layer.pre_feedforward_layernorm))
        dense = self.rms_norm(dense, layer.post_feedforward_layernorm_1)
        router, experts = layer.router, layer.experts
        index, weight = ops.route(
            x, router.scale, router.proj.weight, router.per_expert_scale, self.eps, self.config.top_k_experts
        )
        routed = ops.experts(
            self.rms_norm(x, layer.pre_feedforward_layernorm_2), index, weight, experts.gate_up_proj, experts.down_proj
        )
        both = dense + self.rms_norm(routed, layer.post_feedforward_layernorm_2)
        return x + self.rms_norm(both, layer.post_feedforward_layernorm)
