"""The prefill / commit graph: tokens at consecutive positions to the KV rows of every layer. Causal."""

from __future__ import annotations

from torch import Tensor

from . import ops
from .layer import Wrapper


class Prefill(Wrapper):
    """See `contract.PREFILL_GRAPH`. The last layer stops at its K and V: nothing reads what follows."""

    def forward(self, tokens: Tensor, positions: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        """past: past_k.0, past_v.0, past_k.1, ... Returns new_k.0, new_v.0, new_k.1, ..."""
        config, decoder = self.config, self.model.decoder
        scalars = self.model.encoder.language_model.layers
        x, tables, new = self.embed(tokens), self.rotary_tables(positions), []
        for i, facts in enumerate(config.layers):
            layer = decoder.layers[i]
            normed = self.norm(x, layer.input_layernorm)
            k, v = self.keys_values(layer.self_attn, facts, normed, tables[facts.type])
            new += [k, v]
            if i + 1 == len(config.layers):
                break
            q = self.queries(layer.self_attn, facts, normed, tables[facts.type])
            window = config.sliding_window if facts.type == "sliding" else 0
            attended = ops.causal_attention(
                q, k, v, past[2 * i], past[2 * i + 1], config.num_heads, facts.num_kv_heads, window
            )
            x = self.after_attention(layer, x, attended, scalars[i].layer_scalar)
        return tuple(new)
