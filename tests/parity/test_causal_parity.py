"""The causal tier emits the tokens of plain sampling from transformers' causal pass, with any drafter or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import (
    CAUSAL_DRAFTED_PROMPTS,
    CAUSAL_ORACLE_PROMPTS,
    CAUSAL_RANDOM_TOKENS,
    CAUSAL_TEMPERATURES,
    TRAJECTORY_TASKS,
)

from dgrt.reference.causal import generate_causal

CAUSAL: dict[str, Any] = {"guarantee": "causal"}


def task_prompt(task: str, index: int) -> str:
    from dgrt_train.tasks import HELD_OUT_SEED, TASKS

    return TASKS[task].generate(HELD_OUT_SEED, index).prompt


@pytest.mark.parametrize("temperature", CAUSAL_TEMPERATURES)
@pytest.mark.parametrize("task", TRAJECTORY_TASKS)
def test_mini_samples_the_tokens_of_transformers(mini: Any, task: str, temperature: float) -> None:
    for index in range(CAUSAL_ORACLE_PROMPTS):
        prompt = mini.runtime.encode(task_prompt(task, index))
        result = mini.runtime.generate(
            prompt, seed=index, max_new_tokens=mini.info.canvas_len, temperature=temperature, **CAUSAL
        )
        wanted = generate_causal(
            mini.model, prompt.tolist(), seed=index, max_new_tokens=mini.info.canvas_len, temperature=temperature,
            stop_ids=result.options.stop_ids or (),
        )  # fmt: skip
        assert result.tokens.tolist() == wanted


@pytest.mark.parametrize("name", ["plain", "many_experts"])
def test_random_models_sample_the_tokens_of_transformers(pairs: Any, name: str) -> None:
    """Past the window and past the chunk of one canvas; a flat distribution: every token hangs on the uniform."""
    pair = pairs(name)
    prompt = np.random.default_rng(1).integers(8, pair.info.vocab_size, pair.info.sliding_window + 3)
    budget = {"seed": 7, "request": 2, "max_new_tokens": CAUSAL_RANDOM_TOKENS}
    result = pair.runtime.generate(prompt, stop_ids=(), **budget, **CAUSAL)
    assert result.tokens.tolist() == generate_causal(pair.model, prompt.tolist(), **budget)
    assert result.stats.causal_passes == CAUSAL_RANDOM_TOKENS


@pytest.mark.parametrize("temperature", CAUSAL_TEMPERATURES)
def test_the_suffix_drafter_changes_passes_and_no_token(mini: Any, temperature: float) -> None:
    passes = {"none": 0, "suffix": 0}
    for index in range(CAUSAL_DRAFTED_PROMPTS):
        prompt = task_prompt("edit", index)
        results = {
            drafter: mini.runtime.generate(
                prompt, seed=index, max_new_tokens=300, drafter=drafter, temperature=temperature, **CAUSAL
            )
            for drafter in passes
        }
        assert results["suffix"].tokens.tolist() == results["none"].tokens.tolist(), index
        assert results["suffix"].finish_reason == results["none"].finish_reason
        for drafter, result in results.items():
            passes[drafter] += result.stats.causal_passes
            # A pass emits what of its draft is right and one token more, unless the draft foresaw the stop id.
            own = result.stats.tokens - result.stats.accepted_drafts
            assert result.stats.causal_passes - 1 <= own <= result.stats.causal_passes
    print(f"temperature {temperature}: {passes}")
    assert 2 * passes["suffix"] < passes["none"]
