"""Log-probabilities of emitted tokens against transformers' causal pass over prompt and answer in one go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compare import assert_close
from tolerances import tolerance

from dgrt.reference.prefill import causal_pass


def reference(model: Any, prompt: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """ln p of each token behind the prompt, [n] float64."""
    config = model.config.get_text_config(decoder=True)
    _, hidden = causal_pass(model, [*prompt.tolist(), *tokens.tolist()])
    rows = hidden[len(prompt) - 1 : -1].astype(np.float64)
    scores = rows @ model.lm_head.weight.detach().double().numpy().T
    if config.final_logit_softcapping:
        scores = config.final_logit_softcapping * np.tanh(scores / config.final_logit_softcapping)
    scores -= scores.max(-1, keepdims=True)
    return scores[np.arange(len(tokens)), tokens] - np.log(np.exp(scores).sum(-1))


@pytest.mark.parametrize("size", ["short", "long"])
def test_mini_scores_its_answers_as_transformers_does(mini: Any, size: str) -> None:
    from dgrt_train.tasks import edit
    from dgrt_train.tasks.case import PROBE_SEED

    for index in range(4):
        prompt = mini.runtime.encode(edit.generate(PROBE_SEED, index, size).prompt)
        plain = mini.runtime.generate(prompt, seed=index)
        result = mini.runtime.generate(prompt, seed=index, logprobs=True)
        assert np.array_equal(result.tokens, plain.tokens)
        assert plain.logprobs is None
        assert (result.logprobs <= 0).all()
        expected = reference(mini.model, prompt, result.tokens)
        assert_close(result.logprobs, expected, tolerance("logits"), f"{size} edit {index}")


@pytest.mark.parametrize("name", ["plain", "six_layers_bf16"])
def test_random_models_score_as_transformers_does(pairs: Any, name: str) -> None:
    """Canvases that the window cuts, an answer that ends inside its last canvas, and no stop id."""
    pair = pairs(name)
    prompt = np.random.default_rng(5).integers(8, pair.info.vocab_size, pair.info.sliding_window + 3)
    wanted = 2 * pair.info.canvas_len + 3
    result = pair.runtime.generate(prompt, stop_ids=(), max_new_tokens=wanted, logprobs=True)
    assert result.logprobs is not None and result.logprobs.shape == (wanted,)
    assert_close(result.logprobs, reference(pair.model, prompt, result.tokens), tolerance("logits"), name)
