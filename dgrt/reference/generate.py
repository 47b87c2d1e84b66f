"""The life of one request in plain PyTorch, readable twin of `csrc/runtime/generate.cc`: the table of contents.

prefill, then refine and commit canvas by canvas until a stop id or the length limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgrt.reference.commit import commit, emitted
from dgrt.reference.denoise_step import SamplerSettings, Step
from dgrt.reference.noise import NoiseKey
from dgrt.reference.prefill import prefill
from dgrt.reference.refine import refine


@dataclass(kw_only=True, eq=False)
class ReferenceResult:
    """Tokens [n], why they end, and the steps of each canvas."""

    tokens: NDArray[np.int32]
    finish_reason: str = ""
    canvases: list[list[Step]] = field(default_factory=list)


def settings_of(model: Any) -> SamplerSettings:
    """Returns the sampler's numbers from the model's generation config.

    Example:
        >>> settings_of(model).max_denoising_steps                  # doctest: +SKIP
        48
    """
    config = model.generation_config
    return SamplerSettings(
        max_denoising_steps=config.max_denoising_steps,
        entropy_bound=config.sampler_config.entropy_bound,
        t_min=config.t_min,
        t_max=config.t_max,
        stability_threshold=config.stability_threshold,
        confidence_threshold=config.confidence_threshold,
    )


def generate(
    model: Any,
    prompt: Sequence[int],
    *,
    seed: int = 0,
    request: int = 0,
    max_new_tokens: int | None = None,
    stop_ids: Iterable[int] = (),
    settings: SamplerSettings | None = None,
) -> ReferenceResult:
    """Generates with a transformers model and our noise; the tokens are those of `dgrt.Runtime.generate`.

    Args:
        model: A `DiffusionGemmaForBlockDiffusion` in eval mode.
        prompt: Token ids.
        seed: Seed of all noise.
        request: Tells apart requests that share a seed.
        max_new_tokens: Most tokens; None: until a stop id or the context ends.
        stop_ids: Ids that end the output.
        settings: The sampler's numbers. None: those of the model.

    Example:
        >>> generate(model, [2, 105, 228], seed=1).finish_reason    # doctest: +SKIP
        'stop'
    """
    settings = settings or settings_of(model)
    context_len = model.config.get_text_config().max_position_embeddings
    key = NoiseKey(seed=seed, request=request)
    result = ReferenceResult(tokens=np.empty(0, np.int32))
    cache = prefill(model, prompt)
    while not result.finish_reason:
        canvas, steps = refine(model, cache, replace(key, canvas=len(result.canvases)), settings)
        room = None if max_new_tokens is None else max_new_tokens - len(result.tokens)
        tokens, result.finish_reason = emitted(canvas, stop_ids, room)
        result.canvases.append(steps)
        result.tokens = np.concatenate((result.tokens, tokens))
        if not result.finish_reason:
            cache = commit(model, cache, canvas)
            if cache.get_seq_length() + len(canvas) > context_len:
                result.finish_reason = "length"
    return result
