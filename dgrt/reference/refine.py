"""Stage 5, readable twin of `csrc/runtime/refine.cc`: the loop of denoise steps on one canvas, and its stop rule."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgrt.reference.denoise_step import SamplerSettings, Step, denoise_step, initial_canvas
from dgrt.reference.noise import NoiseKey


class StopRule:
    """Stable and confident: the argmax canvas unchanged for some steps, and a mean entropy below a threshold.

    Example:
        >>> rule = StopRule(stability_threshold=1, confidence_threshold=0.1)
        >>> still, sure = np.array([1, 2]), np.zeros(2)
        >>> rule.holds(still, sure), rule.holds(still, sure)
        (False, True)
    """

    def __init__(self, stability_threshold: int, confidence_threshold: float) -> None:
        self._history: deque[NDArray[np.int32]] = deque(maxlen=stability_threshold)
        self._wanted = stability_threshold
        self._confidence = confidence_threshold

    def holds(self, argmax: NDArray[np.int32], entropy: NDArray[np.floating]) -> bool:
        """Takes the outcome of one step and returns whether the canvas is done."""
        stable = len(self._history) == self._wanted and all(np.array_equal(old, argmax) for old in self._history)
        self._history.append(argmax)
        return stable and float(np.mean(entropy)) < self._confidence


def refine(model: Any, cache: Any, key: NoiseKey, settings: SamplerSettings) -> tuple[NDArray[np.int32], list[Step]]:
    """Refines one canvas and returns its argmax canvas [L] and every step.

    Args:
        model: A `DiffusionGemmaForBlockDiffusion` in eval mode.
        cache: KV of all committed tokens.
        key: Seed, request and canvas index; the step is ignored.
        settings: The sampler's numbers.

    Example:
        >>> tokens, steps = refine(model, cache, NoiseKey(seed=1), settings)       # doctest: +SKIP
    """
    config = model.config.get_text_config()
    canvas = initial_canvas(key, model.config.canvas_length, config.vocab_size)
    soft = np.zeros((len(canvas), config.hidden_size), np.float32)
    rule = StopRule(settings.stability_threshold, settings.confidence_threshold)
    steps: list[Step] = []
    for n in range(settings.max_denoising_steps, 0, -1):
        step = denoise_step(model, cache, canvas, soft, replace(key, step=n), settings)
        steps.append(step)
        if rule.holds(step.argmax, step.entropy):
            break
        canvas, soft = step.canvas_out, step.soft_out
    return steps[-1].argmax, steps
