"""Commit speculation on real engines: the tokens, steps and counts of the plain loop, whatever was computed ahead; and
canvases that overlap: each stops behind the committed text, by the stop rule or at the end of the schedule.

The C++ tests do the same with a scripted engine; here ONNX Runtime computes, so a packed pass that rounds differently
in one bit would show. Random models, and mini's edits, whose answers span several canvases.
"""

from __future__ import annotations

from typing import Any

import models
import numpy as np
import pytest
from cases import PIPELINE_EDITS, PIPELINE_GENERATIONS

import dgrt

SPECS = ("plain", "many_experts", "one_kv_head", "only_full", "six_layers_bf16")


def compare(runtime: Any, prompt: Any, **options: Any) -> tuple[int, int]:
    """Canvas borders of a generation and how many of them were foreseen; fails if anything but the passes differs."""
    plain = runtime.generate(prompt, pipeline="off", **options)
    assert plain.stats.packed_passes == plain.stats.packed_commits == 0
    ahead = runtime.generate(prompt, pipeline="on", **options)
    assert np.array_equal(ahead.tokens, plain.tokens)
    assert ahead.finish_reason == plain.finish_reason
    assert ahead.stats.steps_per_canvas == plain.stats.steps_per_canvas
    assert passes(ahead) == passes(plain) - 2 * ahead.stats.packed_commits
    return plain.stats.commit_passes, ahead.stats.packed_commits


def passes(result: Any) -> int:
    stats = result.stats
    return stats.prefill_passes + stats.denoise_passes + stats.commit_passes + stats.packed_passes


@pytest.mark.parametrize("name", SPECS)
def test_random_models_write_the_same_with_and_without(pairs: Any, name: str) -> None:
    pair, spec = pairs(name), models.spec(name)
    random = np.random.default_rng(11)
    borders = foreseen = 0
    for seed in range(PIPELINE_GENERATIONS // len(SPECS)):
        prompt = random.integers(5, spec.vocab_size, random.integers(1, 2 * spec.window))
        found = compare(
            pair.runtime, prompt, seed=seed, stop_ids=(), max_new_tokens=2 * spec.canvas_len + 1,
            max_denoising_steps=int(random.integers(2, 7)), entropy_bound=float(random.choice([0.1, 40.0])),
            stability_threshold=int(random.integers(0, 3)), confidence_threshold=float(random.choice([0.005, 9.0])),
        )  # fmt: skip
        borders, foreseen = borders + found[0], foreseen + found[1]
    assert borders == 2 * (PIPELINE_GENERATIONS // len(SPECS))
    assert foreseen > borders // 10


def test_an_engine_that_rounds_packed_passes_differently_refuses_them(engines: Any) -> None:
    with dgrt.Runtime(engines("plain", moe="loop"), threads=1) as runtime:
        assert runtime.generate([2, 9], max_new_tokens=4).stats.packed_passes == 0
        with pytest.raises(dgrt.Unsupported, match="pipeline: expected auto or off"):
            runtime.generate([2, 9], max_new_tokens=4, pipeline="on")
        with pytest.raises(dgrt.Unsupported, match="drafter: expected none, suffix, model or auto with this engine"):
            runtime.generate([2, 9], max_new_tokens=4, guarantee="verified", drafter="overlap")


def test_edits_of_mini_are_the_same_with_and_without(mini: Any) -> None:
    from dgrt_train.tasks import edit
    from dgrt_train.tasks.case import PROBE_SEED

    borders = foreseen = 0
    for index in range(PIPELINE_EDITS):
        prompt = edit.generate(PROBE_SEED, index, ("medium", "long")[index % 2]).prompt
        found = compare(mini.runtime, prompt, seed=index)
        borders, foreseen = borders + found[0], foreseen + found[1]
    assert borders >= PIPELINE_EDITS
    assert foreseen > borders // 5


def check_overlap(runtime: Any, prompt: Any, **options: Any) -> tuple[int, int]:
    """Canvases begun ahead and steps that they did; fails if one stopped where it should not."""
    result = runtime.generate(prompt, guarantee="verified", drafter="overlap", trace=True, **options)
    stats, in_force = result.stats, result.options
    most, ahead, begun = in_force.max_denoising_steps, 0, 0
    for canvas, num_steps in enumerate(stats.steps_per_canvas):
        steps = [step for step in result.trace if step.canvas_index == canvas]
        assert steps, "a step behind the committed text"
        assert {step.kv_len for step in steps} == {stats.prompt_tokens + canvas * runtime.info.canvas_len}
        assert [step.step for step in steps] == list(range(steps[0].step, most - num_steps, -1))
        assert num_steps == most or steps[-1].entropy.mean() < in_force.confidence_threshold
        assert num_steps == most or len(steps) >= in_force.stability_threshold
        ahead, begun = ahead + num_steps - len(steps), begun + (num_steps > len(steps))
    assert stats.denoise_passes + stats.packed_passes == sum(stats.steps_per_canvas) - ahead
    assert stats.commit_passes + stats.packed_commits == stats.canvases - 1
    assert begun <= stats.draft_calls <= stats.packed_passes
    return begun, ahead


@pytest.mark.parametrize("name", SPECS)
def test_overlapping_canvases_of_random_models_stop_behind_the_committed_text(pairs: Any, name: str) -> None:
    pair, spec = pairs(name), models.spec(name)
    random = np.random.default_rng(12)
    begun = ahead = 0
    for seed in range(PIPELINE_GENERATIONS // len(SPECS) // 4):
        prompt = random.integers(5, spec.vocab_size, random.integers(1, 2 * spec.window))
        found = check_overlap(
            pair.runtime, prompt, seed=seed, stop_ids=(), max_new_tokens=2 * spec.canvas_len + 1,
            max_denoising_steps=int(random.integers(2, 9)), entropy_bound=float(random.choice([0.1, 40.0])),
            stability_threshold=int(random.integers(0, 4)), confidence_threshold=float(random.choice([0.005, 9.0])),
        )  # fmt: skip
        begun, ahead = begun + found[0], ahead + found[1]
    assert 0 < begun < ahead


def test_few_edits_of_mini_are_lost_where_canvases_overlap(mini: Any) -> None:
    from dgrt_train.tasks import edit
    from dgrt_train.tasks.case import PROBE_SEED

    begun = right = plain_right = 0
    for index in range(PIPELINE_EDITS):
        case = edit.generate(PROBE_SEED, index, ("medium", "long")[index % 2])
        begun += check_overlap(mini.runtime, case.prompt, seed=index)[0]
        result = mini.runtime.generate(case.prompt, seed=index, guarantee="verified", drafter="overlap")
        right += result.text == case.answer
        plain_right += mini.runtime.generate(case.prompt, seed=index).text == case.answer
    assert begun > 0
    assert right >= 0.9 * plain_right
