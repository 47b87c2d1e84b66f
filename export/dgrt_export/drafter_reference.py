"""The drafter in plain torch, fp32, by the formulas of README.md: its oracle in the parity gate.

It shares nothing with `graphs/`, and takes rotary tables and the shape of KV rows from transformers' own reading of the
target's config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .checkpoint import EMBEDDING, TensorEntry
from .drafter import DrafterConfig
from .graphs.target import reference_config
from .reference import read_tensors


class DrafterReference:
    """Weights are read layer by layer, whenever they are needed, so memory does not grow with their number."""

    def __init__(
        self, drafter: DrafterConfig, raw: dict[str, Any], entries: Mapping[str, TensorEntry], rounded: bool = False
    ):
        """Prepares to compute.

        Args:
            drafter: what its config.json says.
            raw: the target's config.json.
            entries: the drafter's tensors as written, and the token table.
            rounded: rounds rows to bf16 before each product, as our operators do with bf16 weights. No norm behind a
                sublayer damps rounding here: after five layers it is 1.3e-2 of the largest value. With this, 4e-3 are
                left, of values that a difference of 1e-7 puts on the other side of a rounding border.
        """
        from transformers.models.diffusion_gemma import modeling_diffusion_gemma as modeling

        self._drafter, self._entries, self._rounded = drafter, entries, rounded
        self._target = reference_config(raw).text_config
        self._rotary = modeling.DiffusionGemmaTextRotaryEmbedding(self._target)

    @torch.no_grad()
    def propose(
        self, anchor: int, position: int, evidence: np.ndarray, past: Mapping[int, tuple[np.ndarray, np.ndarray]]
    ) -> np.ndarray:
        """Hidden states [B, D] of the B tokens behind `anchor`, which is at `position`.

        `evidence` [B, D]; `past`: keys and values [P, K] by layer of the target.
        """
        ends = self._read("mask", "evidence_proj.weight", "norm.weight")
        rows = ends["mask"] + self._product(self._normed(torch.from_numpy(evidence)), ends["evidence_proj.weight"])
        x = torch.cat((self._embedded(anchor)[None], rows))
        positions = torch.arange(position, position + len(x))
        cos, sin = (t[0][:, None] for t in self._rotary(x, positions[None], "full_attention"))
        for index, number in enumerate(self._drafter.kv_layers):
            root = f"layers.{index}."
            names = [name for name in self._entries if name.startswith(root)]
            weights = {name.removeprefix(root): tensor for name, tensor in self._read(*names).items()}
            x = x + self._attention(weights, self._normed(x) * weights["input_norm.weight"], cos, sin, past[number])
            rows = self._normed(x) * weights["mlp_norm.weight"]
            gate, up = (self._product(rows, weights[f"{name}_proj.weight"]) for name in ("gate", "up"))
            x = x + self._product(F.gelu(gate, approximate="tanh") * up, weights["down_proj.weight"])
        return (self._normed(x[1:]) * ends["norm.weight"]).numpy()

    def _attention(
        self, weights: Mapping[str, torch.Tensor], rows: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
        past: tuple[np.ndarray, np.ndarray],
    ) -> torch.Tensor:  # fmt: skip
        """One query head after the other over the past rows and the block's own."""
        head_dim, heads = len(weights["q_norm.weight"]), self._drafter.num_heads
        q, k, v = (self._product(rows, weights[f"{name}_proj.weight"]).unflatten(1, (-1, head_dim)) for name in "qkv")
        q = _turned(self._normed(q) * weights["q_norm.weight"], cos, sin)
        k = _turned(self._normed(k) * weights["k_norm.weight"], cos, sin)
        past_k, past_v = (torch.from_numpy(t).unflatten(1, (-1, head_dim)) for t in past)
        keys, values = torch.cat((past_k, k)), torch.cat((past_v, self._normed(v)))
        per_kv_head, results = heads // keys.shape[1], []
        for head in range(heads):
            scores = q[:, head] @ keys[:, head // per_kv_head].T
            results.append(scores.softmax(1) @ values[:, head // per_kv_head])
        return self._product(torch.cat(results, 1), weights["o_proj.weight"])

    def _product(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (rows.bfloat16().float() if self._rounded else rows) @ weight.T

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + self._drafter.rms_norm_eps).sqrt()

    def _embedded(self, token: int) -> torch.Tensor:
        """A row of the table; the others are not read."""
        table = self._entries[EMBEDDING]
        num_bytes = table.num_bytes // table.shape[0]
        row = replace(table, shape=table.shape[1:], offset=table.offset + token * num_bytes, num_bytes=num_bytes)
        return read_tensors({EMBEDDING: row})[EMBEDDING] * self._target.hidden_size**0.5

    def _read(self, *names: str) -> dict[str, torch.Tensor]:
        return read_tensors({name: self._entries[name] for name in names})


def _turned(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of [R, heads, head_dim]; cos and sin [R, 1, head_dim]."""
    first, second = heads.chunk(2, -1)
    return heads * cos + torch.cat((-second, first), -1) * sin
