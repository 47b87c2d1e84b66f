"""The packed graph: a denoise step, a commit and the first step of the next canvas in one pass over the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from . import ops
from .denoise import Denoise


class Packed(Denoise):
    """See `contract.PACKED_GRAPH`. Three groups of L rows, in this order; each attends as in its own graph.

    canvas      as in `Denoise`
    next        the same L positions further on: what it looks back on ends with the rows of the candidate
    candidate   as in `Prefill`: causal, what the canvas is expected to be committed as
    """

    def forward(
        self, tokens: Tensor, positions: Tensor, soft: Tensor, next_soft: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """past: past_k.0, past_v.0, next_past_k.0, next_past_v.0, past_k.1, ...

        `next_past` lacks the candidate's rows. Returns hidden and next_hidden [1, L, D], then new_k.0, new_v.0, ...
        """
        config, decoder, rows = self.config, self.model.decoder, self.config.canvas_len
        encoder_layers = self.model.encoder.language_model.layers
        canvases, candidate = self.embed(tokens).split([2 * rows, rows])
        x = torch.cat((self.condition(canvases, torch.cat((soft, next_soft), 1)), candidate))
        tables, new = self.rotary_tables(positions), []
        for i, facts in enumerate(config.layers):
            layer = decoder.layers[i]
            q, k, v = self.qkv(layer.self_attn, facts, x, layer.input_layernorm, tables[facts.type])
            (q0, q1, q2), (k0, k1, k2), (v0, v1, v2) = (t.split(3 * [rows], 1) for t in (q, k, v))
            past_k, past_v, next_k, next_v = past[4 * i : 4 * i + 4]
            new += [k2, v2]
            heads = (config.num_heads, facts.num_kv_heads)
            window = config.sliding_window if facts.type == "sliding" else 0
            gone = max(0, rows - (window - 1)) if window else 0  # rows of the candidate that `next` looks past
            seen_k, seen_v = (t.split([gone, rows - gone], 1)[1] if gone else t for t in (k2, v2))
            k1, v1 = torch.cat((seen_k, k1), 1), torch.cat((seen_v, v1), 1)
            attended = [
                ops.canvas_attention(q0, k0, v0, past_k, past_v, *heads),
                ops.canvas_attention(q1, k1, v1, next_k, next_v, *heads),
            ]
            if i + 1 == len(config.layers):  # as in `Prefill`: of the candidate nothing is read behind its K and V
                canvases, _ = x.split([2 * rows, rows])
                x = self.after_attention(layer, canvases, torch.cat(attended, 1)) * layer.layer_scalar
                break
            attended.append(ops.causal_attention(q2, k2, v2, past_k, past_v, *heads, window))
            x = self.after_attention(layer, x, torch.cat(attended, 1))
            canvases, candidate = x.split([2 * rows, rows])
            x = torch.cat((canvases * layer.layer_scalar, candidate * encoder_layers[i].layer_scalar))
        hidden, next_hidden = self.rms_norm(x, decoder.norm).unsqueeze(0).split([rows, rows], 1)
        return hidden, next_hidden, *new
