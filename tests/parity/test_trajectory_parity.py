"""With the same noise, transformers' own `generate()` and the native loop emit the same tokens.

transformers runs its own code on batches of prompts of equal length (`dgrt.reference.hf`); the native loop runs them
one by one. A trajectory that leaves the oracle's must be right step by step (`step_oracle.judge`), and be rare.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest
from cases import (
    MAX_NOISY_ROWS,
    MAX_NOISY_TRAJECTORIES,
    MULTI_CANVAS_BATCH,
    MULTI_CANVAS_COUNT,
    MULTI_CANVAS_LEAST,
    NUM_TRAJECTORIES,
    TRAJECTORY_BATCH,
    TRAJECTORY_TASKS,
)
from step_oracle import judge

from dgrt.reference import hf
from dgrt.reference.generate import generate
from dgrt.reference.noise import NoiseKey


def task_batches(runtime: Any, num_prompts: int, batch: int) -> list[np.ndarray]:
    """Batches [B, S] of chat prompts of one length each, the tasks in turn."""
    from dgrt_train.tasks import HELD_OUT_SEED, TASKS

    def batches_of(task: str) -> Iterator[np.ndarray]:
        waiting: dict[int, list[np.ndarray]] = defaultdict(list)
        index = 0
        while True:
            ids = runtime.encode(TASKS[task].generate(HELD_OUT_SEED, index).prompt)
            index += 1
            waiting[len(ids)].append(ids)
            if len(waiting[len(ids)]) == batch:
                yield np.stack(waiting.pop(len(ids)))

    sources = [batches_of(task) for task in TRAJECTORY_TASKS]
    return [next(sources[n % len(sources)]) for n in range(num_prompts // batch)]


def long_edits(runtime: Any, batch: int) -> np.ndarray:
    """[B, S] prompts of one length whose answers span several canvases."""
    from dgrt_train.tasks import HELD_OUT_SEED, edit

    waiting: dict[int, list[np.ndarray]] = defaultdict(list)
    for index in count():
        ids = runtime.encode(edit.generate(HELD_OUT_SEED, index, "long").prompt)
        waiting[len(ids)].append(ids)
        if len(waiting[len(ids)]) == batch:
            return np.stack(waiting[len(ids)])
    raise AssertionError("count() ended")


def differing(
    pair: Any, prompts: np.ndarray, keys: list[NoiseKey], max_new_tokens: int
) -> tuple[list[int], list[int]]:
    """Rows on which the two differ (each has been judged step by step), and how many canvases each row took."""
    oracle = hf.generate_batch(pair.model, prompts, keys, max_new_tokens=max_new_tokens)
    rows, canvases = [], []
    for row, (prompt, key, wanted) in enumerate(zip(prompts, keys, oracle, strict=True)):
        more: dict[str, Any] = {"seed": key.seed, "request": key.request, "max_new_tokens": max_new_tokens}
        result = pair.runtime.generate(prompt, **more)
        canvases.append(result.stats.canvases)
        if not np.array_equal(result.tokens, wanted):
            judge(pair.model, pair.runtime.generate(prompt, trace=True, **more))
            rows.append(row)
    return rows, canvases


def test_mini_emits_the_tokens_of_transformers_for_a_hundred_prompts(mini: Any) -> None:
    noisy = 0
    for number, prompts in enumerate(task_batches(mini.runtime, NUM_TRAJECTORIES, TRAJECTORY_BATCH)):
        keys = [NoiseKey(seed=1000 * number + row, request=row) for row in range(len(prompts))]
        rows, _ = differing(mini, prompts, keys, mini.info.canvas_len)
        print(f"batch {number}, prompt length {prompts.shape[1]}: {len(rows)} of {len(prompts)} within noise")
        noisy += len(rows)
    assert noisy <= MAX_NOISY_TRAJECTORIES * NUM_TRAJECTORIES


def test_several_canvases_in_a_row_are_those_of_transformers(mini: Any) -> None:
    """Answers that go on, not text past its end: there the model was never trained, and rounding noise grows."""
    prompts = long_edits(mini.runtime, MULTI_CANVAS_BATCH)
    keys = [NoiseKey(seed=2**40 + row) for row in range(len(prompts))]
    rows, canvases = differing(mini, prompts, keys, MULTI_CANVAS_COUNT * mini.info.canvas_len)
    print(f"prompt length {prompts.shape[1]}: {len(rows)} of {len(prompts)} within noise, canvases {canvases}")
    assert sum(count > 1 for count in canvases) >= MULTI_CANVAS_LEAST, canvases
    assert len(rows) <= MAX_NOISY_ROWS


@pytest.mark.parametrize("name", ["plain", "bf16_sharded", "many_experts"])
def test_random_models_emit_the_tokens_of_transformers(pairs: Any, name: str) -> None:
    pair = pairs(name)
    window = pair.info.sliding_window
    for length in (1, window, 4 * window):
        prompts = np.random.default_rng(length).integers(8, pair.info.vocab_size, (TRAJECTORY_BATCH, length))
        keys = [NoiseKey(seed=row, request=length) for row in range(TRAJECTORY_BATCH)]
        rows, _ = differing(pair, prompts, keys, 2 * pair.info.canvas_len)
        assert len(rows) <= MAX_NOISY_ROWS, f"prompt {length}: rows {rows}"


@pytest.mark.parametrize("name", ["plain", "per_layer_spelling", "only_full"])
def test_the_readable_reference_emits_the_tokens_of_the_native_loop(pairs: Any, name: str) -> None:
    pair = pairs(name)
    prompt = np.random.default_rng(0).integers(8, pair.info.vocab_size, pair.info.sliding_window + 1)
    budget = 2 * pair.info.canvas_len + 3
    native = pair.runtime.generate(prompt, seed=5, request=6, max_new_tokens=budget, trace=True)
    readable = generate(
        pair.model, prompt.tolist(), seed=5, request=6, max_new_tokens=budget, stop_ids=native.options.stop_ids or ()
    )
    assert readable.tokens.tolist() == native.tokens.tolist()
    assert readable.finish_reason == native.finish_reason
    assert [len(steps) for steps in readable.canvases] == list(native.stats.steps_per_canvas)
