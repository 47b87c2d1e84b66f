"""The target's own trajectories: what it writes to each prompt, and what a drafter would have been shown on the way.

A shard is a safetensors file of many texts one behind the other, written whole or not at all; a collection that was
interrupted goes on behind the last one. Per text: prompt and output, and the K and V rows of the target's full layers
as float16. Per canvas: the final hidden states of one of its denoise passes, drawn at random.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import dgrt
from dgrt.prompts_file import PromptLine

from .target import Features, Target

SHARD_PROMPTS = 64


def collect(
    runtime: dgrt.Runtime, target: Target, prompts: Sequence[PromptLine], folder: Path, seed: int,
    max_new_tokens: int, progress: Callable[[int], None],
) -> None:
    """Writes the shards that are not in `folder` yet; `progress` is told how many prompts are done.

    The text of prompt i depends on (seed, i) alone.
    """
    features = Features(target)
    for number in range(num_shards(len(prompts))):
        first = number * SHARD_PROMPTS
        path = shard_path(folder, number)
        if not path.exists():
            texts = []
            for index in range(first, min(first + SHARD_PROMPTS, len(prompts))):
                texts.append(_text(runtime, target, features, prompts[index], seed, index, max_new_tokens))
                progress(index + 1)
            _write(path, texts)
        progress(min(first + SHARD_PROMPTS, len(prompts)))


def num_shards(num_prompts: int) -> int:
    return -(-num_prompts // SHARD_PROMPTS)


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"trajectories-{number:05d}.safetensors"


def _text(
    runtime: dgrt.Runtime, target: Target, features: Features, prompt: PromptLine, seed: int, index: int,
    max_new_tokens: int,
) -> dict[str, np.ndarray]:
    """One text: its tokens, rows, and evidence of each canvas."""
    result = runtime.generate(
        prompt.content, seed=seed, request=index, max_new_tokens=max_new_tokens, trace=True, deadline_s=None
    )
    tokens = np.concatenate((result.prompt_tokens, result.tokens))
    rows = features.kv_rows(tokens)
    text = {"tokens": tokens, "prompt_len": np.array([len(result.prompt_tokens)], np.int32)}
    for layer in target.full_layers:
        text[f"k.{layer}"], text[f"v.{layer}"] = (r.astype(np.float16) for r in rows[2 * layer : 2 * layer + 2])
    choose, evidence, starts = np.random.default_rng([seed, index]), [], []
    for canvas in range(result.stats.canvases):
        steps = [step for step in result.trace if step.canvas_index == canvas]
        step = steps[choose.integers(len(steps))]
        hidden = features.hidden(step.canvas_in, step.soft_in, step.kv_len, rows)
        evidence.append(hidden.astype(np.float16))
        starts.append(step.kv_len)
    text["evidence"], text["evidence_start"] = np.stack(evidence), np.array(starts, np.int32)
    return text


def _write(path: Path, texts: list[dict[str, np.ndarray]]) -> None:
    tensors = {name: torch.from_numpy(np.concatenate([text[name] for text in texts])) for name in texts[0]}
    tensors["text_len"] = torch.tensor([len(text["tokens"]) for text in texts], dtype=torch.int32)
    tensors["num_canvases"] = torch.tensor([len(text["evidence"]) for text in texts], dtype=torch.int32)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    os.replace(partial, path)


class Trajectories:
    """All texts of a collection, mapped from its shards."""

    def __init__(self, folder: Path, num_prompts: int):
        self._shards = [dict(_mapped(shard_path(folder, n))) for n in range(num_shards(num_prompts))]
        self._at: list[tuple[int, int, int, int, int]] = []  # shard, first and last token, first and last canvas
        self._prompt_lens: list[int] = []
        for number, shard in enumerate(self._shards):
            token = canvas = 0
            sizes = zip(shard["text_len"].tolist(), shard["num_canvases"].tolist(), strict=True)
            for length, canvases in sizes:
                self._at.append((number, token, token + length, canvas, canvas + canvases))
                token, canvas = token + length, canvas + canvases
            self._prompt_lens += shard["prompt_len"].tolist()

    def __len__(self) -> int:
        return len(self._at)

    def prompt_len(self, text: int) -> int:
        return self._prompt_lens[text]

    def tokens(self, text: int) -> torch.Tensor:
        """Prompt and output [T], int32."""
        shard, first, last, _, _ = self._at[text]
        return self._shards[shard]["tokens"][first:last]

    def kv(self, text: int, layer: int, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first K and V rows of a full layer, each [num_rows, K], float16."""
        shard, first, _, _, _ = self._at[text]
        k, v = self._shards[shard][f"k.{layer}"], self._shards[shard][f"v.{layer}"]
        return k[first : first + num_rows], v[first : first + num_rows]

    def num_canvases(self, text: int) -> int:
        _, _, _, first, last = self._at[text]
        return last - first

    def evidence(self, text: int, canvas: int) -> tuple[torch.Tensor, int]:
        """Hidden states [L, D], float16, of a denoise pass over a canvas, and the canvas's first position."""
        shard, _, _, first, _ = self._at[text]
        tensors = self._shards[shard]
        return tensors["evidence"][first + canvas], int(tensors["evidence_start"][first + canvas])


def _mapped(path: Path) -> list[tuple[str, torch.Tensor]]:
    with safe_open(path, "pt") as shard:
        return [(name, shard.get_tensor(name)) for name in shard.keys()]  # noqa: SIM118  (not a dictionary)
