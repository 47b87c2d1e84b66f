"""Training and held-out examples: blocks of unknown tokens behind an anchor, cut out of trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .collect import Trajectories
from .target import Target

# Of the training blocks, these shares begin right behind the prompt, at a place of the output, and, with evidence, at a
# canvas that a denoise pass has seen. The first is where every request begins.
SHARE_AT_PROMPT, SHARE_WITH_EVIDENCE = 0.35, 0.3
SHARE_WHOLE = 0.7  # of the batches without evidence, those of block_len rows; the others are shorter
HELD_OUT_SHARE = 0.05  # of the texts, drawn once


@dataclass(frozen=True)
class Block:
    """Which tokens: those behind position `anchor` of a text. `canvas` -1: no evidence."""

    text: int
    anchor: int
    canvas: int = -1


@dataclass(frozen=True)
class Batch:
    """N blocks of B rows, padded: see `BlockDrafter.forward` for the first five."""

    anchor: Tensor
    position: Tensor
    evidence: Tensor
    past: dict[int, tuple[Tensor, Tensor]]
    seen: Tensor
    target: Tensor  # [N, B] int64, -1 behind the end of the text


class Blocks:
    """Makes batches from trajectories."""

    def __init__(self, texts: Trajectories, target: Target, kv_layers: tuple[int, ...], block_len: int):
        self.texts, self.target, self.block_len = texts, target, block_len
        self.kv_layers = sorted(set(kv_layers))
        order = np.random.default_rng(0).permutation(len(texts)).tolist()
        num_held_out = max(1, round(HELD_OUT_SHARE * len(texts)))
        self.held_out, self.training = sorted(order[:num_held_out]), order[num_held_out:]
        self._scale = target.config.hidden_size**0.5

    def draw(self, rng: np.random.Generator, size: int) -> Batch:
        """A training batch: all its blocks have evidence, or none has."""
        texts = [self.training[i] for i in rng.integers(len(self.training), size=size)]
        if rng.random() < SHARE_WITH_EVIDENCE:
            blocks = [self._with_evidence(t, int(rng.integers(self.texts.num_canvases(t)))) for t in texts]
            return self.batch(blocks, self.block_len)
        share = SHARE_AT_PROMPT / (1 - SHARE_WITH_EVIDENCE)
        blocks = []
        for text in texts:
            first, last = self.texts.prompt_len(text) - 1, len(self.texts.tokens(text)) - 2
            blocks.append(Block(text, first if rng.random() < share else int(rng.integers(first, last + 1))))
        whole = rng.random() < SHARE_WHOLE
        return self.batch(blocks, self.block_len if whole else int(rng.integers(1, self.block_len + 1)))

    def at_prompt(self, text: int) -> Block:
        return Block(text, self.texts.prompt_len(text) - 1)

    def _with_evidence(self, text: int, canvas: int) -> Block:
        return Block(text, self.texts.evidence(text, canvas)[1] - 1, canvas)

    def all_with_evidence(self, text: int) -> list[Block]:
        return [self._with_evidence(text, canvas) for canvas in range(self.texts.num_canvases(text))]

    def batch(self, blocks: list[Block], num_rows: int) -> Batch:
        """Pads past rows at the end to the longest of the batch."""
        config, layers = self.target.config, self.target.config.layers
        longest = max(block.anchor for block in blocks)
        anchors = torch.tensor([block.anchor for block in blocks])
        target = torch.full((len(blocks), num_rows), -1)
        evidence = torch.zeros(len(blocks), num_rows, config.hidden_size)
        past = {}
        for layer in self.kv_layers:
            shape = (len(blocks), longest, layers[layer].num_kv_heads, layers[layer].head_dim)
            past[layer] = torch.zeros(shape), torch.zeros(shape)
        tokens = torch.empty(len(blocks), dtype=torch.int64)
        for row, block in enumerate(blocks):
            text = self.texts.tokens(block.text)
            tokens[row] = text[block.anchor]
            known = text[block.anchor + 1 : block.anchor + 1 + num_rows]
            target[row, : len(known)] = known
            if block.canvas >= 0:
                hidden = self.texts.evidence(block.text, block.canvas)[0][:num_rows]
                evidence[row, : len(hidden)] = hidden
            for layer in self.kv_layers:
                for padded, rows in zip(past[layer], self.texts.kv(block.text, layer, block.anchor), strict=True):
                    padded[row, : block.anchor] = rows.unflatten(1, padded.shape[2:])
        seen = torch.arange(longest) < anchors[:, None]
        return Batch(self.target.table[tokens] * self._scale, anchors, evidence, past, seen, target)
