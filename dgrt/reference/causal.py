"""The causal tier, readable twin of `csrc/runtime/causal.cc`: tokens one by one from the causal pass's distribution.

The native side emits several tokens per pass where a drafter foresees them; that changes no token, so there is no
drafter here. Random numbers: stream 5, keyed by the absolute position of the token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from dgrt.reference.noise import NoiseKey, Stream, uniform
from dgrt.reference.prefill import causal_pass
from dgrt.reference.sampling import vocabulary_head


@torch.no_grad()
def generate_causal(
    model: Any,
    prompt: Sequence[int],
    *,
    seed: int = 0,
    request: int = 0,
    max_new_tokens: int | None = None,
    stop_ids: Iterable[int] = (),
    temperature: float = 1.0,
) -> list[int]:
    """Returns the tokens of `dgrt.Runtime.generate(..., guarantee="causal")`, stop id included.

    Args:
        model: A `DiffusionGemmaForBlockDiffusion` in eval mode.
        prompt: Token ids.
        seed: Seed of all noise.
        request: Tells apart requests that share a seed.
        max_new_tokens: Most tokens; None: until a stop id or the context ends.
        stop_ids: Ids that end the output.
        temperature: 0: always the most likely token.

    Example:
        >>> generate_causal(model, [2, 105, 228], max_new_tokens=4)    # doctest: +SKIP
        [233, 229, 240, 106]
    """
    config = model.config.get_text_config(decoder=True)
    table = model.lm_head.weight.double().numpy()
    room = config.max_position_embeddings - len(prompt)
    draws = uniform(NoiseKey(seed=seed, request=request), Stream.CAUSAL_SAMPLING, config.max_position_embeddings)
    stops, cache = set(stop_ids), None
    tokens: list[int] = []
    rows = list(prompt)
    while len(tokens) < (room if max_new_tokens is None else min(room, max_new_tokens)):
        cache, hidden = causal_pass(model, rows, cache)
        head = vocabulary_head(
            hidden[-1:], table, softcap=config.final_logit_softcapping or 0.0, temperature=temperature or 1.0,
            embed_scale=1.0, uniform=draws[len(prompt) + len(tokens)][None],
        )  # fmt: skip
        rows = [int((head.sampled if temperature else head.argmax)[0])]
        tokens += rows
        if rows[0] in stops:
            break
    return tokens
