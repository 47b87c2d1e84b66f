"""The denoise graph: one decoder forward over the canvas, from token ids and self-conditioning to hidden states."""

from __future__ import annotations

from torch import Tensor

from . import ops
from .layer import Wrapper


class Denoise(Wrapper):
    """See `contract.DENOISE_GRAPH`. No mask: a row sees all past rows it is given and the whole canvas."""

    def forward(self, canvas: Tensor, positions: Tensor, soft: Tensor, past: list[Tensor]) -> Tensor:
        """past: past_k.0, past_v.0, past_k.1, ... Returns hidden [1, L, D] after the final norm."""
        config, decoder = self.config, self.model.decoder
        x, tables = self.condition(self.embed(canvas), soft), self.rotary_tables(positions)
        for i, facts in enumerate(config.layers):
            layer = decoder.layers[i]
            q, k, v = self.qkv(layer.self_attn, facts, x, layer.input_layernorm, tables[facts.type])
            attended = ops.canvas_attention(q, k, v, past[2 * i], past[2 * i + 1], config.num_heads, facts.num_kv_heads)
            x = self.after_attention(layer, x, attended) * layer.layer_scalar
        return self.rms_norm(x, decoder.norm).unsqueeze(0)

    def condition(self, x: Tensor, soft: Tensor) -> Tensor:
        """Adds the self-conditioning signal; the post-norm runs even when `soft` is all zeros."""
        return self.rms_norm(x + self.signal(soft), self.model.decoder.self_conditioning.post_norm)

    def signal(self, soft: Tensor) -> Tensor:
        """The self-conditioning signal [L, D] of `soft` [1, L, D]."""
        module = self.model.decoder.self_conditioning
        return self.gated_mlp(module, self.rms_norm(soft.squeeze(0), module.pre_norm))
