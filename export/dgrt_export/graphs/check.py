"""The checking graph: a denoise step, first steps of other canvases there and the causal pass over a draft in one."""

from __future__ import annotations

import torch
from torch import Tensor

from . import ops
from .denoise import Denoise


class Check(Denoise):
    """See `contract.CHECK_GRAPH`. G groups of L rows, then S rows. All look back on the same past, none on each other.

    canvases    as in `Denoise`; behind the first without self-conditioning: all zeros leave its post-norm alone
    tokens      as in `Score`: causal, at the first S positions of the canvases
    """

    def forward(
        self, canvases: Tensor, tokens: Tensor, positions: Tensor, soft: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """positions: of all rows [1, G * L + S]. past: past_k.0, past_v.0, past_k.1, ...

        Returns the hidden states of the canvases [G, L, D] and of the tokens [1, S, D], then new_k.0, new_v.0, ... of
        the tokens.
        """
        config, decoder, length = self.config, self.model.decoder, self.config.canvas_len
        encoder_layers = self.model.encoder.language_model.layers
        rows = [canvases.shape[0] * length, tokens.shape[1]]
        denoised, scored = self.embed(torch.cat((canvases.view(1, -1), tokens), 1)).split(rows)
        denoised = torch.cat((denoised[:length] + self.signal(soft), denoised[length:]))
        x = torch.cat((self.rms_norm(denoised, decoder.self_conditioning.post_norm), scored))
        tables, new = self.rotary_tables(positions), []
        for i, facts in enumerate(config.layers):
            layer = decoder.layers[i]
            q, k, v = self.qkv(layer.self_attn, facts, x, layer.input_layernorm, tables[facts.type])
            (q0, q1), (k0, k1), (v0, v1) = (t.split(rows, 1) for t in (q, k, v))
            new += [k1, v1]
            past_k, past_v = past[2 * i : 2 * i + 2]
            heads = (config.num_heads, facts.num_kv_heads)
            window = config.sliding_window if facts.type == "sliding" else 0
            groups = (t.view(-1, length, t.shape[2]) for t in (q0, k0, v0))
            attended = (
                ops.canvas_attention(*groups, past_k, past_v, *heads).view(1, -1, q.shape[2]),
                ops.causal_attention(q1, k1, v1, past_k, past_v, *heads, window),
            )
            denoised, scored = self.after_attention(layer, x, torch.cat(attended, 1)).split(rows)
            x = torch.cat((denoised * layer.layer_scalar, scored * encoder_layers[i].layer_scalar))
        denoised, scored = self.rms_norm(x, decoder.norm).split(rows)
        return denoised.view(-1, length, config.hidden_size), scored.unsqueeze(0), *new
