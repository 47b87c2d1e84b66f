"""Drives transformers with our noise, or along a recorded trace, so that it can be compared step by step.

`generate_batch` runs transformers' own `generate()`; only the three places where it draws (initial canvas, renoise,
multinomial) read `noise.py`. `step_logits` and `soft_embedding` ask it about one recorded step. Everything else, from
forward passes to acceptance and stopping, is the oracle's own code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from dgrt.reference import noise, sampling
from dgrt.reference.denoise_step import SamplerSettings, injected_soft
from dgrt.reference.noise import NoiseKey, Stream


class _BatchNoise:
    """Our noise for a batch of requests, one key per row; counts canvases and steps as `generate()` goes along."""

    def __init__(self, keys: Sequence[NoiseKey], max_denoising_steps: int) -> None:
        self._keys = keys
        self._max_steps = max_denoising_steps
        self._canvas = -1
        self._step = 0

    def initialize_canvas(self, sampler: Any, batch_size: int, device: Any) -> torch.Tensor:
        """Stands for `EntropyBoundSampler.initialize_canvas` at the start of a canvas."""
        self._canvas, self._step = self._canvas + 1, self._max_steps
        return self._integers(sampler, Stream.INITIAL_CANVAS, step=0).to(device)

    def renoise_canvas(self, sampler: Any, accepted_canvas: torch.Tensor, cur_step: Any) -> torch.Tensor:
        """Stands for `EntropyBoundSampler.renoise_canvas`, the last draw of a step."""
        assert int(cur_step) == self._step
        fresh = self._integers(sampler, Stream.RENOISE, step=self._step).to(accepted_canvas.device)
        self._step -= 1
        return torch.where(sampler.accepted_token_mask, accepted_canvas, fresh)

    def multinomial(self, probs: torch.Tensor, num_samples: int) -> torch.Tensor:
        """Stands for `torch.multinomial` on [B * L, V], by our sampling rule."""
        assert num_samples == 1
        length = probs.shape[0] // len(self._keys)
        draws = [noise.uniform(self._at(key, self._step), Stream.SAMPLING, length) for key in self._keys]
        tokens = sampling.sample(probs.double().numpy(), np.concatenate(draws))
        return torch.as_tensor(tokens, dtype=torch.long)[:, None]

    def _integers(self, sampler: Any, stream: Stream, step: int) -> torch.Tensor:
        rows = [
            noise.integers(self._at(key, step), stream, sampler.canvas_length, sampler.vocab_size) for key in self._keys
        ]
        return torch.as_tensor(np.stack(rows), dtype=torch.long)

    def _at(self, key: NoiseKey, step: int) -> NoiseKey:
        return replace(key, canvas=self._canvas, step=step)


@contextmanager
def shared_noise(keys: Sequence[NoiseKey], max_denoising_steps: int) -> Iterator[None]:
    """While active, transformers' `generate()` draws from our noise.

    Args:
        keys: Seed and request of each row of the batch.
        max_denoising_steps: N of the generation.

    Example:
        >>> with shared_noise([NoiseKey(seed=7)], 48):              # doctest: +SKIP
        ...     model.generate(ids, max_denoising_steps=48)
    """
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSampler

    source = _BatchNoise(keys, max_denoising_steps)
    with (
        patch.object(EntropyBoundSampler, "initialize_canvas", lambda s, *a, **k: source.initialize_canvas(s, *a, **k)),
        patch.object(EntropyBoundSampler, "renoise_canvas", lambda s, *a, **k: source.renoise_canvas(s, *a, **k)),
        patch.object(torch, "multinomial", source.multinomial),
    ):
        yield


@torch.no_grad()
def generate_batch(
    model: Any, prompts: NDArray[np.int32], keys: Sequence[NoiseKey], *, max_new_tokens: int, **config: Any
) -> list[NDArray[np.int32]]:
    """Returns what transformers generates for prompts of one length with our noise, cut like ours.

    Args:
        model: A `DiffusionGemmaForBlockDiffusion` in eval mode.
        prompts: [B, S] ids.
        keys: Seed and request per row.
        max_new_tokens: Most tokens per row.
        **config: Further fields of the generation config.

    Returns:
        Per row the new tokens up to and including the first stop id.

    Example:
        >>> generate_batch(model, prompts, keys, max_new_tokens=96)[0][-1]          # doctest: +SKIP
        106
    """
    steps = config.get("max_denoising_steps", model.generation_config.max_denoising_steps)
    ids = torch.as_tensor(prompts, dtype=torch.long)
    with shared_noise(keys, steps):
        out = model.generate(ids, max_new_tokens=max_new_tokens, **config)
    sequences = out if isinstance(out, torch.Tensor) else out.sequences
    stop_ids = config.get("eos_token_id", model.generation_config.eos_token_id)
    stop_ids = [] if stop_ids is None else np.atleast_1d(stop_ids)
    return [_cut(row[ids.shape[1] :].numpy().astype(np.int32), stop_ids, max_new_tokens) for row in sequences]


def _cut(tokens: NDArray[np.int32], stop_ids: Any, max_new_tokens: int) -> NDArray[np.int32]:
    stops = np.flatnonzero(np.isin(tokens, stop_ids))
    end = int(stops[0]) + 1 if stops.size else len(tokens)
    return tokens[: min(end, max_new_tokens)]


@torch.no_grad()
def step_logits(
    model: Any, cache: Any, canvas: NDArray[np.int32], soft: NDArray[np.float32], step: int, settings: SamplerSettings
) -> torch.Tensor:
    """Returns transformers' processed logits (softcap, temperature) of one denoise step, [L, V].

    Args:
        model: A `DiffusionGemmaForBlockDiffusion` in eval mode.
        cache: KV of all committed tokens; read, not written.
        canvas: Tokens the step starts from, [L].
        soft: Self-conditioning embedding it is given, [L, D].
        step: n of the schedule.
        settings: The sampler's numbers.

    Example:
        >>> step_logits(model, cache, trace.canvas_in, trace.soft_in, trace.step, settings).shape      # doctest: +SKIP
        torch.Size([96, 384])
    """
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import LinearTemperatureScheduleLogitsProcessor

    ids = torch.as_tensor(canvas, dtype=torch.long)[None]
    with injected_soft(model, soft):
        logits = model(decoder_input_ids=ids, past_key_values=cache).logits
    schedule: Any = LinearTemperatureScheduleLogitsProcessor(
        settings.t_min, settings.t_max, settings.max_denoising_steps
    )
    processed: torch.Tensor = schedule(ids, logits, cur_step=torch.tensor(step, dtype=torch.int32))[0]
    return processed


@torch.no_grad()
def soft_embedding(model: Any, cache: Any, processed_logits: torch.Tensor) -> NDArray[np.float32]:
    """Returns the self-conditioning embedding [L, D] that transformers makes of processed logits [L, V].

    The decoder computes it on its way in; a hook reads it there and ends the forward pass.

    Example:
        >>> soft_embedding(model, cache, logits).shape              # doctest: +SKIP
        (96, 128)
    """

    def read(_module: Any, args: tuple[torch.Tensor, torch.Tensor]) -> None:
        raise _SoftEmbedding(args[1])

    hook = model.model.decoder.self_conditioning.register_forward_pre_hook(read)
    try:
        model.model.decoder(
            decoder_input_ids=torch.zeros((1, len(processed_logits)), dtype=torch.long),
            past_key_values=cache,
            self_conditioning_logits=processed_logits[None],
        )
    except _SoftEmbedding as found:
        soft: NDArray[np.float32] = found.value[0].float().numpy()
        return soft
    finally:
        hook.remove()
    raise AssertionError("the decoder did not run its self-conditioning module")


class _SoftEmbedding(Exception):
    """Carries the embedding out of the decoder."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value
