"""One token of a long prompt is another one: the canvas behind it notices, and exactly as transformers does.

The places are those where a runtime loses tokens: first and last, each side of a prefill chunk, each side of the
canvas's window.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import PREFILL_CHUNK
from step_oracle import judge

from dgrt import GenerateResult

LENGTH = 2 * PREFILL_CHUNK + 76


def first_steps(pair: Any, prompt: np.ndarray) -> GenerateResult:
    result: GenerateResult = pair.runtime.generate(
        prompt, seed=4, trace=True, max_new_tokens=1, max_denoising_steps=2, stop_ids=()
    )
    return result


@pytest.mark.parametrize("name", ["mini", "one_kv_head"])
def test_every_place_of_a_long_prompt_is_seen_as_transformers_sees_it(pairs: Any, name: str) -> None:
    pair = pairs(name)
    prompt = np.random.default_rng(8).integers(3, pair.info.vocab_size, LENGTH)
    plain = first_steps(pair, prompt)
    assert plain.trace is not None
    window = LENGTH - (pair.info.sliding_window - 1)  # first token that the canvas sees in sliding layers
    borders = (PREFILL_CHUNK, 2 * PREFILL_CHUNK, window)
    for place in (0, *(border - side for border in borders for side in (1, 0)), LENGTH - 1):
        changed = prompt.copy()
        changed[place] = 3 + (changed[place] - 2) % (pair.info.vocab_size - 3)
        found = first_steps(pair, changed)
        assert found.trace is not None
        assert not np.array_equal(found.trace[0].entropy, plain.trace[0].entropy), f"token {place} is not seen"
        judge(pair.model, found)
