"""The causal graphs: tokens at consecutive positions to the KV rows of every layer, and to hidden states if wanted."""

from __future__ import annotations

from torch import Tensor

from . import ops
from .layer import Wrapper


class Prefill(Wrapper):
    """See `contract.PREFILL_GRAPH`. The last layer stops at its K and V: nothing reads what follows."""

    def forward(self, tokens: Tensor, positions: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        """past: past_k.0, past_v.0, past_k.1, ... Returns new_k.0, new_v.0, new_k.1, ..."""
        new, _ = self.causal(tokens, positions, past, to_the_end=False)
        return tuple(new)

    def causal(
        self, tokens: Tensor, positions: Tensor, past: list[Tensor], to_the_end: bool
    ) -> tuple[list[Tensor], Tensor]:
        """The new KV rows and the residual [S, D], behind the last layer if `to_the_end`."""
        config, decoder = self.config, self.model.decoder
        scalars = self.model.encoder.language_model.layers
        x, tables, new = self.embed(tokens), self.rotary_tables(positions), []
        for i, facts in enumerate(config.layers):
            layer = decoder.layers[i]
            if i + 1 == len(config.layers) and not to_the_end:
                new += self.last_keys_values(layer.self_attn, facts, x, layer.input_layernorm, tables[facts.type])
                break
            q, k, v = self.qkv(layer.self_attn, facts, x, layer.input_layernorm, tables[facts.type])
            new += [k, v]
            window = config.sliding_window if facts.type == "sliding" else 0
            attended = ops.causal_attention(
                q, k, v, past[2 * i], past[2 * i + 1], config.num_heads, facts.num_kv_heads, window
            )
            x = self.after_attention(layer, x, attended) * scalars[i].layer_scalar
        return new, x


class Score(Prefill):
    """See `contract.SCORE_GRAPH`: prefill that goes through the last layer and the final norm."""

    def forward(self, tokens: Tensor, positions: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        """Returns the hidden states [1, S, D], then what `Prefill` returns."""
        new, x = self.causal(tokens, positions, past, to_the_end=True)
        return (self.rms_norm(x, self.model.decoder.norm).unsqueeze(0), *new)
