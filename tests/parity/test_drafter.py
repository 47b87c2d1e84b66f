"""The drafter network in the runtime: its drafts are those of its graph, and with real graphs it changes no token.

The drafters are random here, so nearly all that they say is wrong. What a trained one costs and brings is measured by
`benchmarks/speculation.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CAUSAL_RANDOM_TOKENS
from compare import assert_close
from graph_runner import GraphRunner
from numpy.typing import NDArray
from tolerances import tolerance

import dgrt
from dgrt import _native
from dgrt.ort import find_ort_library

CAUSAL, VERIFIED, MODEL = 1, 2, 2  # native numbers
TARGETS = [("plain", "portable"), ("one_kv_head", "portable"), ("one_kv_head", "fused")]


def open_native(folder: Path, threads: int = 1) -> _native.Runtime:
    return _native.Runtime(str(folder), threads=threads, ort_library=find_ort_library())


def draft(
    runtime: _native.Runtime, prompt: NDArray[np.int32], most: int, guarantee: int = VERIFIED
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Tokens and confidences that a new session drafts behind `prompt`."""
    session = _native.Session(runtime, _native.Options(runtime, guarantee=guarantee, drafter=MODEL))
    session.prefill(prompt)
    return session.draft(most)


def embedding_table(folder: Path) -> NDArray[np.float32]:
    manifest = json.loads((folder / "manifest.json").read_text())
    place, model = manifest["embedding"], manifest["model"]
    assert place["dtype"] == "float32"
    raw = (folder / place["file"]).read_bytes()[place["offset"] :][: place["bytes"]]
    return np.frombuffer(raw, np.float32).reshape(model["vocab_size"], model["hidden_size"])


def prompt_of(length: int, vocab_size: int) -> NDArray[np.int32]:
    return np.random.default_rng(length).integers(8, vocab_size, length).astype(np.int32)


@pytest.mark.parametrize(("name", "profile"), TARGETS)
def test_a_draft_is_what_the_graph_and_the_vocabulary_head_say(engines: Any, name: str, profile: str) -> None:
    """With no past at all, inside the sliding window, beyond it, and beyond a prefill chunk; blocks of every length."""
    folder = engines(name, drafter="fp32", profile=profile)
    runtime, runner = open_native(folder), GraphRunner(folder)
    model, block_len = runner.model, runner.manifest["drafter"]["block_len"]
    table, softcap = embedding_table(folder), model["final_logit_softcap"]
    for length in (1, 2, model["sliding_window"] + 3, 530):
        prompt = prompt_of(length, model["vocab_size"])
        kv = runner.prefill(prompt.astype(np.int64), [512] if length > 512 else [])
        for rows in range(1, block_len + 1) if length == 2 else (1, block_len):
            evidence = np.zeros((rows, model["hidden_size"]), np.float32)
            hidden = runner.draft(int(prompt[-1]), evidence, kv, length - 1)
            logits = softcap * np.tanh(hidden @ table.T / softcap)
            tokens, confidence = draft(runtime, prompt, rows)
            assert tokens.size == confidence.size == rows
            chosen = np.take_along_axis(logits, tokens[:, None].astype(np.int64), 1)[:, 0]
            assert (chosen >= logits.max(axis=1) - tolerance("step_logits").absolute).all()
            probability = np.exp(chosen - np.log(np.exp(logits).sum(axis=1)))
            given_those_before = confidence / np.concatenate(([1.0], confidence[:-1]))
            assert_close(given_those_before, probability, tolerance("draft_probability"), f"{length}, {rows} rows")


@pytest.mark.parametrize(("name", "profile"), TARGETS)
def test_a_draft_has_the_same_bits_with_any_threads_and_with_a_cached_prefix(
    engines: Any, name: str, profile: str
) -> None:
    folder = engines(name, drafter="fp32", profile=profile)
    one, two = open_native(folder), open_native(folder, threads=2)
    for length in (5, 530):
        prompt = prompt_of(length, 301)
        expected = draft(one, prompt, 12)
        for runtime in (one, two, two):  # the last has the first chunk of the long prompt from the cache
            for found, wanted in zip(draft(runtime, prompt, 12), expected, strict=True):
                assert np.array_equal(found, wanted)
    assert two.prefix_stats()["hits"] == 1


def test_a_block_is_never_longer_than_the_network_can_make_it(engines: Any) -> None:
    runtime = open_native(engines("plain", drafter="fp32"))
    assert draft(runtime, prompt_of(9, 301), 32)[0].size == 12  # of a canvas of 32
    assert 4 <= draft(runtime, prompt_of(9, 301), 32, CAUSAL)[0].size <= 12  # as many as the policy asks for


def test_both_tiers_draft_the_same_behind_the_same_text(engines: Any) -> None:
    """The anchor's KV row is there in the verified tier and not in the causal one."""
    runtime = open_native(engines("plain", drafter="fp32"))
    prompt = prompt_of(40, 301)
    tokens, confidence = draft(runtime, prompt, 32, CAUSAL)
    for found, wanted in zip(draft(runtime, prompt, tokens.size), (tokens, confidence), strict=True):
        assert_close(found, wanted, tolerance("draft_probability"))


@pytest.mark.parametrize(("name", "drafter_dtype", "profile"), [
    ("plain", "fp32", "portable"), ("many_experts", "fp32", "portable"), ("one_kv_head", "fp32", "fused"),
    ("mini", "bf16", "portable"),
])  # fmt: skip
def test_the_causal_tier_writes_the_same_with_any_drafter(
    engines: Any, name: str, drafter_dtype: str, profile: str
) -> None:
    runtime = dgrt.Runtime(engines(name, drafter=drafter_dtype, profile=profile), threads=2)
    for length in (3, runtime.info.sliding_window + 3):
        prompt = prompt_of(length, runtime.info.vocab_size)
        for temperature in (0.0, 1.0):
            options: dict[str, Any] = {
                "guarantee": "causal", "temperature": temperature, "seed": length, "stop_ids": (),
                "max_new_tokens": CAUSAL_RANDOM_TOKENS,
            }  # fmt: skip
            plain = runtime.generate(prompt, **options)
            for drafter in ("model", "auto"):
                result = runtime.generate(prompt, drafter=drafter, **options)
                assert result.tokens.tolist() == plain.tokens.tolist(), (length, temperature, drafter)
                assert result.stats.draft_rows >= result.stats.draft_passes
                if drafter == "model":
                    assert 1 <= result.stats.draft_passes < CAUSAL_RANDOM_TOKENS / 4  # it does not pay


def test_drafted_requests_that_share_the_machine_have_the_tokens_that_they_have_alone(engines: Any) -> None:
    runtime = dgrt.Runtime(engines("plain", drafter="fp32"), threads=2)
    options: dict[str, Any] = {"guarantee": "causal", "drafter": "model", "max_new_tokens": 40, "stop_ids": ()}
    prompts = [prompt_of(length, 301) for length in (3, 30, 300)]
    alone = [runtime.generate(prompt, seed=i, **options).tokens.tolist() for i, prompt in enumerate(prompts)]
    futures = [runtime.submit(prompt, seed=i, **options) for i, prompt in enumerate(prompts)]
    assert [future.result(timeout=300).tokens.tolist() for future in futures] == alone


def test_drafted_canvases_of_a_network_that_knows_nothing_are_those_of_the_plain_loop(engines: Any) -> None:
    runtime = dgrt.Runtime(engines("plain", drafter="fp32"), threads=1)
    options: dict[str, Any] = {"max_new_tokens": 96, "stop_ids": (), "seed": 4}
    plain = runtime.generate([2, 7, 9], **options)
    for drafter in ("model", "auto"):
        result = runtime.generate([2, 7, 9], guarantee="verified", drafter=drafter, **options)
        assert result.tokens.tolist() == plain.tokens.tolist()
        assert result.stats.draft_passes == 3 if drafter == "model" else result.stats.draft_passes < 3
    assert runtime.generate([2, 7, 9], drafter="auto", **options).tokens.tolist() == plain.tokens.tolist()


def test_another_turn_is_drafted_behind_the_whole_text(engines: Any) -> None:
    runtime = open_native(engines("plain", drafter="fp32"))
    options = _native.Options(runtime, guarantee=VERIFIED, drafter=MODEL, max_new_tokens=9, stop_ids=[])
    session = _native.Session(runtime, options)
    session.prefill(prompt_of(6, 301))
    while not session.finish_reason:
        session.next_canvas()
    text = np.concatenate((prompt_of(6, 301), session.tokens, prompt_of(4, 301)))
    session.extend(prompt_of(4, 301))
    assert session.draft(12)[0].tolist() == draft(runtime, text, 12)[0].tolist()
