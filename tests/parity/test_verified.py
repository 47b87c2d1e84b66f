"""The verified tier on mini and on random models: right drafts save passes, wrong ones do not get through, and without
checks a draft is what transformers takes as `decoder_input_ids`.

The C++ tests ask a scripted engine what each check decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from dgrt_train.tasks import edit, json_record, sudoku
from dgrt_train.tasks.case import PROBE_SEED, Case

import dgrt
from dgrt.reference import hf
from dgrt.reference.noise import NoiseKey


def cases(task: str, count: int) -> list[Case]:
    if task == "json":
        return [json_record.generate(PROBE_SEED, index) for index in range(count)]
    if task == "edit":
        return [edit.generate(PROBE_SEED, index, "medium") for index in range(count)]
    return [sudoku.generate(PROBE_SEED, index, task) for index in range(count)]


def verified(mini: Any, case: Case, seed: int, **options: Any) -> Any:
    return mini.runtime.generate(case.prompt, seed=seed, guarantee="verified", **options)


def spoiled(answer: str, index: int) -> str:
    """One digit or letter replaced by another of its kind."""
    places = [i for i, character in enumerate(answer) if character in "12345678" or "a" <= character < "z"]
    place = places[index * 7 % len(places)]
    return answer[:place] + chr(ord(answer[place]) + 1) + answer[place + 1 :]


@pytest.mark.parametrize(("task", "share"), [("4x4", 0.5), ("json", 0.5), ("edit", 0.2)])
def test_a_right_draft_is_committed_by_its_checks(mini: Any, task: str, share: float) -> None:
    committed = canvases = 0
    for index, case in enumerate(cases(task, 6)):
        result = verified(mini, case, index, draft=case.answer)
        stats = result.stats
        assert result.text == case.answer
        if stats.draft_commits == stats.canvases:
            assert stats.denoise_passes == stats.commit_passes == 0
        committed, canvases = committed + stats.draft_commits, canvases + stats.canvases
    assert committed >= share * canvases


@pytest.mark.parametrize("task", ["4x4", "9x9", "json"])
def test_a_draft_with_one_wrong_character_is_never_committed(mini: Any, task: str) -> None:
    for index, case in enumerate(cases(task, 6)):
        wrong = spoiled(case.answer, index)
        result = verified(mini, case, index, draft=wrong, verify=dgrt.VerifyOptions(always=True))
        assert result.stats.draft_calls > 0
        assert result.stats.draft_commits == 0, f"{task} {index}: committed {wrong!r}"


@pytest.mark.parametrize("task", ["4x4", "9x9", "json", "edit"])
def test_packed_checks_decide_what_checks_on_their_own_decide(mini: Any, task: str) -> None:
    """Right drafts, spoiled ones and the first half of right ones: the same tokens, verdicts and steps, in one pass."""
    for index, case in enumerate(cases(task, 4)):
        half = mini.runtime.tokenizer.encode(case.answer)
        drafts = (case.answer, spoiled(case.answer, index), half[: (len(half) + 1) // 2])
        for draft, folds in zip(drafts, (2, 2, 3), strict=True):
            results = {
                packing: verified(
                    mini, case, index, draft=draft,
                    verify=dgrt.VerifyOptions(packing=packing, folds=folds, always=True, min_confirmed=0.1),
                )
                for packing in ("off", "on")
            }  # fmt: skip
            alone, packed = results["off"], results["on"]
            assert np.array_equal(packed.tokens, alone.tokens), f"{task} {index}: {draft!r}"
            for name in ("draft_commits", "draft_refines", "draft_discards", "steps_per_canvas", "accepted_drafts"):
                assert getattr(packed.stats, name) == getattr(alone.stats, name), name
            tries = packed.stats.draft_commits + packed.stats.draft_refines + packed.stats.draft_discards
            assert 0 < tries <= packed.stats.verify_passes <= alone.stats.verify_passes  # a refined canvas has one more


@pytest.mark.parametrize("task", ["4x4", "json"])
def test_the_answer_to_another_prompt_is_discarded_without_a_trace(mini: Any, task: str) -> None:
    made = cases(task, 7)
    for index, case in enumerate(made[:6]):
        plain = mini.runtime.generate(case.prompt, seed=index)
        result = verified(mini, case, index, draft=made[index + 1].answer)
        assert result.stats.draft_commits == 0
        if result.stats.draft_refines == 0:
            assert np.array_equal(result.tokens, plain.tokens)


def test_the_suffix_drafter_leaves_canvases_that_it_does_not_draft_alone(mini: Any) -> None:
    for index, case in enumerate(cases("9x9", 3)):
        plain = mini.runtime.generate(case.prompt, seed=index)
        result = verified(mini, case, index, drafter="suffix")
        assert result.stats.verify_passes == 0
        assert np.array_equal(result.tokens, plain.tokens)


def test_the_same_seed_and_draft_give_the_same_tokens_whoever_asks(mini: Any) -> None:
    case = cases("edit", 1)[0]
    draft = spoiled(case.answer, 3)
    once = verified(mini, case, 5, draft=draft)
    future = mini.runtime.submit(case.prompt, seed=5, guarantee="verified", draft=draft)
    with mini.runtime.stream(case.prompt, seed=5, guarantee="verified", draft=draft) as events:
        *_, last = events
    for other in (future.result(timeout=60), last.result):
        assert np.array_equal(other.tokens, once.tokens)


@pytest.mark.parametrize("task", ["4x4", "9x9", "json"])
def test_without_checks_a_draft_is_what_transformers_takes_as_decoder_input_ids(mini: Any, task: str) -> None:
    length = mini.info.canvas_len
    no_checks = dgrt.VerifyOptions(folds=0, causal_floor=0, one_pass=False, always=True)
    for index, case in enumerate(cases(task, 4)):
        prompt = mini.runtime.encode(case.prompt)
        draft = spoiled(case.answer, index) if index % 2 else case.answer
        ids = mini.runtime._encoder.encode_draft(draft, mini.runtime.defaults.stop_ids)
        canvas = torch.tensor([[*ids, *[0] * (length - len(ids))]])
        key = NoiseKey(seed=index)
        (wanted,) = hf.generate_batch(
            mini.model, prompt[None], [key], max_new_tokens=length, decoder_input_ids=canvas
        )  # fmt: skip
        result = verified(mini, case, index, draft=draft, max_new_tokens=length, verify=no_checks)
        assert np.array_equal(result.tokens, wanted)
        assert result.stats.verify_passes == 0


@pytest.mark.parametrize("name", ["plain", "many_experts"])
def test_without_checks_a_draft_is_a_start_canvas(pairs: Any, name: str) -> None:
    pair = pairs(name)
    random = np.random.default_rng(3)
    native = dgrt._native
    for seed in range(4):
        prompt = random.integers(5, pair.info.vocab_size, 9).astype(np.int32)
        canvas = random.integers(5, pair.info.vocab_size, pair.info.canvas_len).astype(np.int32)
        options = {"seed": seed, "stop_ids": [], "max_new_tokens": pair.info.canvas_len, "max_denoising_steps": 6}
        handle = pair.runtime._handle()
        started = native.Session(handle, native.Options(handle, **options))
        started.prefill(prompt)
        started.set_canvas(canvas)
        expected: list[dict[str, Any]] = []
        tokens = started.next_canvas(expected.append, with_soft=True)
        result = pair.runtime.generate(
            prompt, guarantee="verified", draft=canvas, trace=True, **{**options, "stop_ids": ()},
            verify=dgrt.VerifyOptions(folds=0, causal_floor=0, one_pass=False, always=True),
        )  # fmt: skip
        assert np.array_equal(result.tokens, tokens)
        assert result.trace is not None and len(result.trace) == len(expected)
        for step, other in zip(result.trace, expected, strict=True):
            for field in ("canvas_in", "soft_in", "argmax", "entropy", "sampled", "accepted", "canvas_out"):
                assert np.array_equal(getattr(step, field), other[field]), field
