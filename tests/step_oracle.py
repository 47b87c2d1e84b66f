"""What transformers says about each step of a recorded generation: the judge of step parity.

A trace holds what every step was given (canvas, soft embedding), so each step is compared on its own and no difference
can grow from step to step. Where a decision hangs on a difference that arithmetic noise can bridge (two logits, an
entropy sum and the bound, a uniform and a border, two experts) either outcome is right; everywhere else it must be the
oracle's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from compare import assert_close
from numpy.typing import NDArray
from tolerances import EXACT, tolerance

from dgrt import GenerateResult, StepTrace
from dgrt.reference import hf, noise, sampling
from dgrt.reference.denoise_step import SamplerSettings
from dgrt.reference.noise import NoiseKey, Stream
from dgrt.reference.prefill import prefill
from dgrt.reference.routing import Tie, variants, watched_routing


@dataclass
class Seen:
    """Largest differences and counts over the steps that were judged, for the report."""

    steps: int = 0
    positions: int = 0
    undecided: dict[str, int] = field(default_factory=dict)  # decisions within noise, by kind
    worst: dict[str, float] = field(default_factory=dict)

    def note(self, kind: str, value: float) -> None:
        self.worst[kind] = max(self.worst.get(kind, 0.0), value)

    def skip(self, kind: str, count: int) -> None:
        self.undecided[kind] = self.undecided.get(kind, 0) + count


def settings_of(result: GenerateResult) -> SamplerSettings:
    """The sampler's numbers that a generation used."""
    names = SamplerSettings.__dataclass_fields__
    return SamplerSettings(**{name: getattr(result.options, name) for name in names})


def judge(model: Any, result: GenerateResult) -> Seen:
    """Checks every step of a traced generation against transformers; returns what was seen.

    Args:
        model: The transformers model of the same checkpoint, fp32.
        result: A result with a trace.
    """
    assert result.trace is not None
    seen, settings = Seen(), settings_of(result)
    context = _Context(model)
    context.append(result.prompt_tokens)
    canvases = _by_canvas(result.trace)
    for index, steps in enumerate(canvases):
        key = NoiseKey(seed=result.options.seed, request=result.options.request, canvas=index)
        assert all(step.kv_len == context.cache.get_seq_length() for step in steps)
        _check_chain(steps, key, settings, model.config.get_text_config().vocab_size)
        context.settle(lambda cache, s=steps[0]: _check_entropy(model, cache, s, settings, seen), seen)
        rule = _StopRule(settings)
        for step in steps:
            _check_step(model, context.cache, step, key, settings, rule, seen)
        if index + 1 < len(canvases):
            context.append(steps[-1].argmax)
    committed = np.concatenate([steps[-1].argmax for steps in canvases])
    assert_close(result.tokens, committed[: len(result.tokens)], EXACT, "emitted tokens")
    return seen


def _by_canvas(trace: list[StepTrace]) -> list[list[StepTrace]]:
    canvases: list[list[StepTrace]] = []
    for step in trace:
        if step.canvas_index == len(canvases):
            canvases.append([])
        canvases[step.canvas_index].append(step)
    return canvases


def _check_chain(steps: list[StepTrace], key: NoiseKey, settings: SamplerSettings, vocab_size: int) -> None:
    """The canvas starts from noise and zeros, and each step starts where the one before it ended."""
    length, first = len(steps[0].canvas_in), settings.max_denoising_steps
    start = noise.integers(key, Stream.INITIAL_CANVAS, length, vocab_size)
    assert_close(steps[0].canvas_in, start, EXACT, "initial canvas")
    assert not steps[0].soft_in.any()
    assert [step.step for step in steps] == list(range(first, first - len(steps), -1))
    for before, after in zip(steps, steps[1:], strict=False):
        assert not before.stopped and before.soft_out is not None
        assert_close(after.canvas_in, before.canvas_out, EXACT, "canvas handed on")
        assert_close(after.soft_in, before.soft_out, EXACT, "soft embedding handed on")
    assert steps[-1].soft_out is None
    assert steps[-1].stopped or steps[-1].step == 1


class _Context:
    """The oracle's KV cache. Router ties of prompt and commits are broken the way the first step after them shows."""

    def __init__(self, model: Any) -> None:
        self.cache: Any = None
        self._model = model
        self._segments: list[tuple[NDArray[np.int32], tuple[Tie, ...]]] = []
        self._ties: list[Tie] = []

    def append(self, tokens: NDArray[np.int32]) -> None:
        """Runs tokens through the oracle and notes its near ties."""
        with watched_routing(self._model, tolerance("router").absolute) as self._ties:
            self.cache = prefill(self._model, tokens.tolist(), self.cache)
        self._segments.append((tokens, ()))

    def settle(self, check: Callable[[Any], Any], seen: Seen) -> None:
        """Chooses how the ties of the last segment are broken: the first way that `check(cache)` accepts."""
        for flips in variants(self._ties):
            if flips:
                self._segments[-1] = (self._segments[-1][0], flips)
                self.cache = None
                for tokens, chosen in self._segments:
                    with watched_routing(self._model, 0.0, chosen):
                        self.cache = prefill(self._model, tokens.tolist(), self.cache)
            if _passes(check, self.cache):
                seen.skip("routing of context", len(flips))
                return
        check(self.cache)


def _passes(check: Callable[..., Any], *args: Any) -> bool:
    try:
        check(*args)
    except AssertionError:
        return False
    return True


def _check_entropy(
    model: Any, cache: Any, step: StepTrace, settings: SamplerSettings, seen: Seen
) -> tuple[torch.Tensor, NDArray[np.float32]]:
    """Returns the oracle's logits and entropies, its near ties broken the way the trace shows.

    The entropies hold everything that went into the logits, so they are where a wrong forward pass is seen.
    """
    arguments = (model, cache, step.canvas_in, step.soft_in, step.step, settings)
    with watched_routing(model, tolerance("router").absolute) as ties:
        logits = hf.step_logits(*arguments)
    for flips in variants(ties):
        if flips:
            with watched_routing(model, 0.0, flips):
                logits = hf.step_logits(*arguments)
        entropy = torch.distributions.Categorical(logits=logits).entropy().numpy()
        if _passes(assert_close, step.entropy, entropy, tolerance("step_entropy")):
            seen.skip("routing", len(flips))
            seen.note("entropy", float(np.abs(step.entropy - entropy).max()))
            return logits, entropy
    logits = hf.step_logits(*arguments)
    entropy = torch.distributions.Categorical(logits=logits).entropy().numpy()
    assert_close(step.entropy, entropy, tolerance("step_entropy"), f"entropy of step {step.step}, router ties {ties}")
    raise AssertionError("unreachable")


def _check_step(
    model: Any, cache: Any, step: StepTrace, key: NoiseKey, settings: SamplerSettings, rule: _StopRule, seen: Seen
) -> None:
    wanted = sampling.temperature(step.step, settings.max_denoising_steps, settings.t_min, settings.t_max)
    assert step.temperature == wanted
    logits, entropy = _check_entropy(model, cache, step, settings, seen)
    seen.steps += 1
    seen.positions += len(entropy)
    _check_argmax(step, logits, seen)
    _check_sampled(step, logits, key, seen)
    _check_accepted(step, entropy, settings, seen)
    fresh = noise.integers(_at(key, step), Stream.RENOISE, len(entropy), logits.shape[1])
    assert_close(step.canvas_out, np.where(step.accepted, step.sampled, fresh), EXACT, "renoised canvas")
    if step.soft_out is not None:
        soft = hf.soft_embedding(model, cache, logits)
        seen.note("soft", assert_close(step.soft_out, soft, tolerance("step_soft"), "soft embedding"))
    rule.check(step, entropy, seen)


def _check_argmax(step: StepTrace, logits: torch.Tensor, seen: Seen) -> None:
    """The most likely token, or one whose logit is within noise of it."""
    values = logits.numpy()
    lost = values.max(axis=1) - np.take_along_axis(values, step.argmax[:, None].astype(np.int64), axis=1)[:, 0]
    seen.skip("argmax", int(np.count_nonzero(lost)))
    seen.note("argmax gap", float(lost.max()))
    assert lost.max() <= tolerance("step_logits").absolute, f"step {step.step}: argmax is {lost.max()} below the best"


def _check_sampled(step: StepTrace, logits: torch.Tensor, key: NoiseKey, seen: Seen) -> None:
    """The token that the uniform selects from the oracle's distribution, or its neighbour across a near border."""
    uniform = noise.uniform(_at(key, step), Stream.SAMPLING, len(step.sampled))
    probs = torch.softmax(logits.double(), dim=-1).numpy()
    ends = np.cumsum(probs, axis=1)
    rows = np.arange(len(uniform))
    high, low = ends[rows, step.sampled], ends[rows, step.sampled] - probs[rows, step.sampled]
    outside = np.maximum(np.maximum(low - uniform, uniform - high), 0.0)
    seen.skip("sampled", int(np.count_nonzero(outside)))
    seen.note("border", float(outside.max()))
    assert outside.max() <= tolerance("step_border").absolute, f"step {step.step}: sampled off by {outside.max()}"


def _check_accepted(step: StepTrace, entropy: NDArray[np.float32], settings: SamplerSettings, seen: Seen) -> None:
    """The mask is the rule applied to the step's own entropies, and the oracle's sampler agrees where it is decided."""
    own = sampling.accept_by_entropy(step.entropy, settings.entropy_bound)
    assert_close(step.accepted, own, EXACT, "accepted by the rule")
    oracle = sampling.accept_by_entropy(entropy, settings.entropy_bound)
    slack = float(np.abs(step.entropy - entropy).sum()) + tolerance("entropy").absolute
    order = np.argsort(entropy, kind="stable")
    before = np.empty(len(entropy))
    before[order] = np.cumsum(entropy[order], dtype=np.float64) - entropy[order]
    near_bound = np.abs(before - settings.entropy_bound) <= slack
    # Equal entropies on both sides of the cut may change places.
    border = entropy[near_bound] if near_bound.any() else np.array([entropy[oracle].max()], np.float32)
    near_cut = (entropy >= border.min() - slack) & (entropy <= border.max() + slack)
    undecided = near_bound | near_cut
    seen.skip("accepted", int(np.count_nonzero(step.accepted != oracle)))
    assert_close(step.accepted[~undecided], oracle[~undecided], EXACT, "accepted by transformers")


def _at(key: NoiseKey, step: StepTrace) -> NoiseKey:
    return NoiseKey(seed=key.seed, request=key.request, canvas=key.canvas, step=step.step)


class _StopRule:
    """Transformers' stopping criteria, fed with the trace."""

    def __init__(self, settings: SamplerSettings) -> None:
        from transformers.models.diffusion_gemma.generation_diffusion_gemma import StableAndConfidentStoppingCriteria

        self._settings = settings
        self._stable = StableAndConfidentStoppingCriteria(settings.stability_threshold, float("inf"))

    def check(self, step: StepTrace, entropy: NDArray[np.float32], seen: Seen) -> None:
        """Stability is exact on the recorded argmax; confidence may be within noise of the threshold."""
        argmax = torch.as_tensor(step.argmax)[None]
        stable = bool(self._stable(argmax, torch.zeros((1, *argmax.shape[1:], 2))))
        threshold = self._settings.confidence_threshold
        mean = float(np.mean(entropy))
        if abs(mean - threshold) <= tolerance("step_entropy").absolute * threshold:
            seen.skip("stop", 1)
            assert stable or not step.stopped
        else:
            assert step.stopped == (stable and mean < threshold), f"step {step.step}: mean entropy {mean}"
