"""Stage 5a, readable twin of `csrc/runtime/denoise_step.cc`: one decoder forward and one sampler update.

The decoder is transformers'; the sampler is `sampling.py`; randomness is `noise.py`. transformers takes the logits of
the previous step; we take the soft embedding they give, by a hook on its self-conditioning module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dgrt.reference import noise, sampling
from dgrt.reference.noise import NoiseKey, Stream


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """The sampler's numbers, named as in `generation_config.json`; see `dgrt.GenerateOptions` for units."""

    max_denoising_steps: int
    entropy_bound: float
    t_min: float
    t_max: float
    stability_threshold: int
    confidence_threshold: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What one denoise step read and wrote; the fields mean what those of `dgrt.StepTrace` mean."""

    step: int
    temperature: float
    canvas_in: NDArray[np.int32]
    soft_in: NDArray[np.float32]
    argmax: NDArray[np.int32]
    entropy: NDArray[np.float64]
    sampled: NDArray[np.int32]
    accepted: NDArray[np.bool_]
    canvas_out: NDArray[np.int32]
    soft_out: NDArray[np.float32]


@contextmanager
def injected_soft(model: Any, soft: NDArray[np.float32] | torch.Tensor) -> Iterator[None]:
    """While active, the decoder's self-conditioning reads `soft` [L, D] (or [B, L, D]) instead of what logits give.

    Example:
        >>> with injected_soft(model, np.zeros((96, 128), np.float32)):     # doctest: +SKIP
        ...     model.model.decoder(decoder_input_ids=canvas, past_key_values=cache)
    """
    tensor = torch.as_tensor(soft)

    def replace_signal(_module: Any, args: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return args[0], tensor.to(args[1].dtype).expand_as(args[1])

    hook = model.model.decoder.self_conditioning.register_forward_pre_hook(replace_signal)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def decoder_hidden(model: Any, cache: Any, canvas: NDArray[np.int32], soft: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the final hidden states [L, D] of one decoder forward; the cache is read, not written."""
    with injected_soft(model, soft):
        ids = torch.as_tensor(canvas, dtype=torch.long)[None]
        out = model.model.decoder(decoder_input_ids=ids, past_key_values=cache)
    hidden: NDArray[np.float32] = out.last_hidden_state[0].float().numpy()
    return hidden


def denoise_step(
    model: Any,
    cache: Any,
    canvas: NDArray[np.int32],
    soft: NDArray[np.float32],
    key: NoiseKey,
    settings: SamplerSettings,
) -> Step:
    """Runs step `key.step` of a canvas.

    Args:
        model: A `DiffusionGemmaForBlockDiffusion` in eval mode.
        cache: KV of all committed tokens.
        canvas: Tokens to denoise, [L].
        soft: Self-conditioning embedding, [L, D]; zeros on the first step.
        key: Seed, request, canvas index and step n.
        settings: The sampler's numbers.

    Example:
        >>> denoise_step(model, cache, canvas, soft, NoiseKey(step=48), settings).argmax.shape     # doctest: +SKIP
        (96,)
    """
    config = model.config.get_text_config()
    hidden = decoder_hidden(model, cache, canvas, soft)
    step_temperature = sampling.temperature(key.step, settings.max_denoising_steps, settings.t_min, settings.t_max)
    head = sampling.vocabulary_head(
        hidden,
        model.model.decoder.embed_tokens.weight.detach().float().numpy(),
        softcap=config.final_logit_softcapping or 0.0,
        temperature=step_temperature,
        embed_scale=config.hidden_size**0.5,
        uniform=noise.uniform(key, Stream.SAMPLING, len(canvas)),
    )
    accepted = sampling.accept_by_entropy(head.entropy, settings.entropy_bound)
    fresh = noise.integers(key, Stream.RENOISE, len(canvas), config.vocab_size)
    return Step(
        step=key.step,
        temperature=step_temperature,
        canvas_in=canvas,
        soft_in=soft,
        argmax=head.argmax,
        entropy=head.entropy,
        sampled=head.sampled,
        accepted=accepted,
        canvas_out=np.where(accepted, head.sampled, fresh),
        soft_out=head.soft.astype(np.float32),
    )


def initial_canvas(key: NoiseKey, canvas_len: int, vocab_size: int) -> NDArray[np.int32]:
    """Returns the noise a canvas starts from, [L].

    Example:
        >>> initial_canvas(NoiseKey(seed=1), 4, 10).shape
        (4,)
    """
    return noise.integers(replace(key, step=0), Stream.INITIAL_CANVAS, canvas_len, vocab_size)
