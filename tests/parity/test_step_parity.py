"""Every denoise step of the native loop, given what it was given, does what transformers does.

Prompts of 1, W - 1, W, W + 1 and 4 W tokens on each side of the sliding window, others on each side of a prefill chunk,
two canvases: so prefill, commit, both attention kinds and the KV rows they read are all behind the numbers that are
compared.
"""

from __future__ import annotations

from typing import Any

import models
import numpy as np
import pytest
from cases import CHUNKED_PROMPTS, NUM_PARITY_CANVASES, PREFILL_CHUNK, STEP_PARITY_SEEDS, prompt_lengths
from compare import assert_close
from step_oracle import judge
from tolerances import tolerance

from dgrt import GenerateResult
from dgrt.reference.denoise_step import decoder_hidden
from dgrt.reference.prefill import prefill

NAMES = ["mini", *(spec.name for spec in models.RANDOM_SPECS)]
LENGTH_NAMES = ["1", "W-1", "W", "W+1", "4W"]


def run_traced(pair: Any, prompt_len: int, seed: int, **options: Any) -> GenerateResult:
    """Generates from random tokens, stop ids ignored so that every canvas runs."""
    prompt = np.random.default_rng(seed).integers(0, pair.info.vocab_size, prompt_len)
    wanted = {"max_new_tokens": NUM_PARITY_CANVASES * pair.info.canvas_len, "stop_ids": (), **options}
    result = pair.runtime.generate(prompt, seed=seed, trace=True, **wanted)
    assert result.stats.canvases == NUM_PARITY_CANVASES and result.finish_reason == "length"
    return result


@pytest.mark.parametrize("which", range(len(LENGTH_NAMES)), ids=LENGTH_NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_the_step_of_transformers(pairs: Any, name: str, which: int) -> None:
    pair = pairs(name)
    length = prompt_lengths(pair.info.sliding_window)[which]
    seen = judge(pair.model, run_traced(pair, length, STEP_PARITY_SEEDS[which % len(STEP_PARITY_SEEDS)]))
    print(f"{name}, prompt {length}: {seen}")


@pytest.mark.parametrize("length", CHUNKED_PROMPTS)
@pytest.mark.parametrize("name", ["mini", "one_kv_head"])  # full layers before others: they carry on what a chunk reads
def test_steps_after_a_prompt_in_chunks_are_those_of_transformers(pairs: Any, name: str, length: int) -> None:
    pair = pairs(name)
    result = run_traced(pair, length, STEP_PARITY_SEEDS[0])
    # Longer prompts begin with the shorter ones here: what the prefix cache has of them is judged as well.
    assert result.stats.prefill_passes == -(-(length - result.stats.prefix_tokens) // PREFILL_CHUNK)
    print(f"{name}, prompt {length}: {judge(pair.model, result)}")


@pytest.mark.parametrize("name", ["mini", "plain"])
@pytest.mark.parametrize(
    "options",
    [
        {"max_denoising_steps": 1},
        {"max_denoising_steps": 3, "entropy_bound": 1e-6},
        {"max_denoising_steps": 5, "entropy_bound": 1e3},
        {"t_min": 0.05, "t_max": 0.1, "confidence_threshold": 5.0},
        {"stability_threshold": 0, "confidence_threshold": 2.0},
        {"stability_threshold": 3, "confidence_threshold": 5.0},
    ],
    ids=lambda options: ",".join(options),
)
def test_sampler_options_mean_what_they_mean_in_transformers(pairs: Any, name: str, options: dict[str, Any]) -> None:
    pair = pairs(name)
    judge(pair.model, run_traced(pair, pair.info.sliding_window, STEP_PARITY_SEEDS[0], **options))


def test_the_comparison_would_notice_a_window_that_is_off_by_one(mini: Any) -> None:
    result = run_traced(mini, prompt_lengths(mini.info.sliding_window)[-1], STEP_PARITY_SEEDS[0])
    assert result.trace is not None
    step = result.trace[1]
    right = prefill(mini.model, result.prompt_tokens.tolist())
    wrong = prefill(mini.model, result.prompt_tokens.tolist())
    for layer, facts in zip(wrong.layers, mini.info.layers, strict=True):
        if facts.type == "sliding":
            layer.keys, layer.values = layer.keys[:, :, 1:], layer.values[:, :, 1:]
    hidden = [decoder_hidden(mini.model, cache, step.canvas_in, step.soft_in) for cache in (right, wrong)]
    with pytest.raises(AssertionError):
        assert_close(hidden[1], hidden[0], tolerance("hidden"), "hidden states")
