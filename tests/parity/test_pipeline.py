"""Commit speculation on real engines: the tokens, steps and counts of the plain loop, whatever was computed ahead.

The C++ tests do the same with a scripted engine; here ONNX Runtime computes, so a packed pass that rounds differently
in one bit would show. Random models, and mini's edits, whose answers span several canvases.
"""

from __future__ import annotations

from typing import Any

import models
import numpy as np
import pytest
from cases import PIPELINE_EDITS, PIPELINE_GENERATIONS

import dgrt

SPECS = ("plain", "many_experts", "one_kv_head", "only_full", "six_layers_bf16")


def compare(runtime: Any, prompt: Any, **options: Any) -> tuple[int, int]:
    """Canvas borders of a generation and how many of them were foreseen; fails if anything but the passes differs."""
    plain = runtime.generate(prompt, pipeline="off", **options)
    assert plain.stats.packed_passes == plain.stats.packed_commits == 0
    ahead = runtime.generate(prompt, pipeline="on", **options)
    assert np.array_equal(ahead.tokens, plain.tokens)
    assert ahead.finish_reason == plain.finish_reason
    assert ahead.stats.steps_per_canvas == plain.stats.steps_per_canvas
    assert passes(ahead) == passes(plain) - 2 * ahead.stats.packed_commits
    return plain.stats.commit_passes, ahead.stats.packed_commits


def passes(result: Any) -> int:
    stats = result.stats
    return stats.prefill_passes + stats.denoise_passes + stats.commit_passes + stats.packed_passes


@pytest.mark.parametrize("name", SPECS)
def test_random_models_write_the_same_with_and_without(pairs: Any, name: str) -> None:
    pair, spec = pairs(name), models.spec(name)
    random = np.random.default_rng(11)
    borders = foreseen = 0
    for seed in range(PIPELINE_GENERATIONS // len(SPECS)):
        prompt = random.integers(5, spec.vocab_size, random.integers(1, 2 * spec.window))
        found = compare(
            pair.runtime, prompt, seed=seed, stop_ids=(), max_new_tokens=2 * spec.canvas_len + 1,
            max_denoising_steps=int(random.integers(2, 7)), entropy_bound=float(random.choice([0.1, 40.0])),
            stability_threshold=int(random.integers(0, 3)), confidence_threshold=float(random.choice([0.005, 9.0])),
        )  # fmt: skip
        borders, foreseen = borders + found[0], foreseen + found[1]
    assert borders == 2 * (PIPELINE_GENERATIONS // len(SPECS))
    assert foreseen > borders // 10


def test_an_engine_that_rounds_packed_passes_differently_refuses_them(engines: Any) -> None:
    with dgrt.Runtime(engines("plain", moe="loop"), threads=1) as runtime:
        assert runtime.generate([2, 9], max_new_tokens=4).stats.packed_passes == 0
        with pytest.raises(dgrt.Unsupported, match="pipeline: expected auto or off"):
            runtime.generate([2, 9], max_new_tokens=4, pipeline="on")


def test_edits_of_mini_are_the_same_with_and_without(mini: Any) -> None:
    from dgrt_train.tasks import edit
    from dgrt_train.tasks.case import PROBE_SEED

    borders = foreseen = 0
    for index in range(PIPELINE_EDITS):
        prompt = edit.generate(PROBE_SEED, index, ("medium", "long")[index % 2]).prompt
        found = compare(mini.runtime, prompt, seed=index)
        borders, foreseen = borders + found[0], foreseen + found[1]
    assert borders >= PIPELINE_EDITS
    assert foreseen > borders // 5
