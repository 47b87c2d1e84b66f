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
    """Base of the graphs: holds the target under the checkpoint's own names and our description of it.

    With `fused` the steps of a layer beside attention are one operator each.
    """

    model: Any  # the target's tree; its attributes are known to transformers only

    def __init__(self, target: nn.Module, config: ModelConfig, fused: bool = False):
        super().__init__()
        self.fused = fused
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

    def qkv(
        self, attention: Any, facts: Layer, x: Tensor, input_norm: Any, table: Table
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the residual rows x."""
        if not self.fused:
            normed = self.rms_norm(x, input_norm)
            k, v = self.keys_values(attention, facts, normed, table)
            return self.queries(attention, facts, normed, table), k, v
        norms = (input_norm, attention.q_norm, attention.k_norm)
        projections = (attention.q_proj.weight, attention.k_proj.weight)
        v_proj = None if attention.v_proj is None else attention.v_proj.weight
        return ops.qkv(
            x, *(norm.weight for norm in norms), *table, *projections, v_proj,
            self.config.num_heads, facts.num_kv_heads, self.eps,
        )  # fmt: skip

    def last_keys_values(
        self, attention: Any, facts: Layer, x: Tensor, input_norm: Any, table: Table
    ) -> tuple[Tensor, Tensor]:
        """Keys and values where nothing reads the queries, to the last bit those of `qkv`.

        A row's must not depend on the graph that it went through, so `fused` makes the queries too.
        """
        if self.fused:
            _, k, v = self.qkv(attention, facts, x, input_norm, table)
            return k, v
        return self.keys_values(attention, facts, self.rms_norm(x, input_norm), table)

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
        if self.fused:
            return self._after_attention_fused(layer, residual, flat)
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

    def _after_attention_fused(self, layer: Any, residual: Tensor, flat: Tensor) -> Tensor:
        mlp, router, experts = layer.mlp, layer.router, layer.experts
        norm, o_proj = layer.post_attention_layernorm.weight, layer.self_attn.o_proj.weight
        return ops.feed_forward(
            ops.linear_norm_add(flat, residual, norm, o_proj, self.eps),
            layer.pre_feedforward_layernorm.weight, layer.post_feedforward_layernorm_1.weight,
            layer.pre_feedforward_layernorm_2.weight, layer.post_feedforward_layernorm_2.weight,
            layer.post_feedforward_layernorm.weight, router.scale, router.proj.weight, router.per_expert_scale,
            mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight, experts.gate_up_proj, experts.down_proj,
            self.eps, self.config.top_k_experts,
        )  # fmt: skip
