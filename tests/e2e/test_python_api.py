"""The Python surface on a real engine: streams, seeds, conversations, cancelling, closing, wrong arguments."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import LONG_OPTIONS, QUICK_OPTIONS

import dgrt
from dgrt.reference import sampling

TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Again €"},
]


def two_canvases(runtime: dgrt.Runtime) -> dict[str, Any]:
    return {"max_denoising_steps": 3, "max_new_tokens": 2 * runtime.info.canvas_len, "stop_ids": ()}


def test_a_stream_tells_the_same_story_as_generate(mini: dgrt.Runtime) -> None:
    options = two_canvases(mini)
    events = list(mini.stream("Hi", seed=4, trace=True, **options))
    result, alone = events[-1].result, mini.generate("Hi", seed=4, trace=True, **options)
    assert result is not None and events[-1].kind == "done"
    assert (result.tokens.tolist(), result.text) == (alone.tokens.tolist(), alone.text)
    assert result.finish_reason == alone.finish_reason == "length"
    commits = [event for event in events if event.kind == "commit"]
    assert np.array_equal(np.concatenate([event.tokens for event in commits]), alone.tokens)
    assert "".join(event.text or "" for event in commits) == alone.text
    drafts = [event for event in events if event.kind == "draft"]
    assert alone.trace is not None and len(drafts) == len(alone.trace) == sum(result.stats.steps_per_canvas)
    for draft, step in zip(drafts, alone.trace, strict=True):
        assert (draft.canvas_index, draft.step) == (step.canvas_index, step.step)
        assert np.array_equal(draft.tokens, step.argmax) and np.array_equal(draft.settled, step.accepted)
        assert draft.mean_entropy == pytest.approx(float(step.entropy.mean()))


def test_the_last_draft_of_a_canvas_is_what_gets_committed(mini: dgrt.Runtime) -> None:
    last = None
    for event in mini.stream("Hi", **two_canvases(mini)):
        if event.kind == "commit":
            assert last is not None and np.array_equal(event.tokens, last.tokens)
        last = event


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others(plain: dgrt.Runtime) -> None:
    runs = [plain.generate([2, 9], seed=seed, **two_canvases(plain)).tokens.tolist() for seed in (1, 1, 2, 2**64 - 1)]
    assert runs[0] == runs[1] and runs[0] != runs[2] and runs[2] != runs[3]
    other = plain.generate([2, 9], seed=1, request=1, **two_canvases(plain)).tokens.tolist()
    assert other != runs[0]


def test_neither_threads_nor_company_change_the_tokens(plain_engine: Path, plain: dgrt.Runtime) -> None:
    options = two_canvases(plain)
    wanted = [plain.generate([2, seed], seed=seed, **options).tokens.tolist() for seed in range(8, 12)]
    with dgrt.Runtime(plain_engine, threads=2) as two:
        assert [two.generate([2, seed], seed=seed, **options).tokens.tolist() for seed in range(8, 12)] == wanted
        found: dict[int, list[int]] = {}
        threads = [
            threading.Thread(
                target=lambda s=seed: found.update({s: two.generate([2, s], seed=s, **options).tokens.tolist()})
            )
            for seed in range(8, 12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[seed] for seed in range(8, 12)] == wanted


def test_tracing_and_streaming_do_not_change_the_tokens(plain: dgrt.Runtime) -> None:
    options = two_canvases(plain)
    wanted = plain.generate([2, 9], **options).tokens.tolist()
    assert plain.generate([2, 9], trace=True, **options).tokens.tolist() == wanted
    for drafts in (True, False):
        *_, done = plain.stream([2, 9], drafts=drafts, **options)
        assert done.result is not None and done.result.tokens.tolist() == wanted


def test_a_conversation_is_the_rendered_template(mini: dgrt.Runtime) -> None:
    from transformers import AutoTokenizer

    oracle = AutoTokenizer.from_pretrained(mini.path)
    ids = list(oracle.apply_chat_template(TURNS, add_generation_prompt=True, return_dict=False))
    assert mini.encode(TURNS).tolist() == ids
    assert ids.count(mini.info.bos_token_id) == 1
    assert mini.generate(TURNS, **QUICK_OPTIONS).tokens.tolist() == mini.generate(ids, **QUICK_OPTIONS).tokens.tolist()


def test_plain_text_is_a_user_turn(mini: dgrt.Runtime) -> None:
    assert mini.encode("Hi").tolist() == mini.encode(TURNS[:1]).tolist()
    assert mini.generate("Hi", **QUICK_OPTIONS).prompt_tokens.tolist() == mini.encode("Hi").tolist()
    raw = mini.generate("Hi", raw=True, **QUICK_OPTIONS)
    assert raw.prompt_tokens.tolist() == mini.encode("Hi", raw=True).tolist()


def test_text_leaves_out_stop_ids_and_special_tokens_and_tokens_keep_them(mini: dgrt.Runtime) -> None:
    options = two_canvases(mini)
    free = mini.generate("Hi", **options).tokens
    stop = int(free[5])
    result = mini.generate("Hi", **{**options, "stop_ids": [stop]})
    assert result.finish_reason == "stop"
    assert result.tokens.tolist() == free[: free.tolist().index(stop) + 1].tolist()
    assert mini.tokenizer is not None and result.text == mini.tokenizer.decode(result.tokens[:-1])


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_the_limit_cuts_at_the_token_around_a_canvas_border(plain: dgrt.Runtime, extra: int) -> None:
    budget = plain.info.canvas_len + extra
    result = plain.generate([2, 9], max_new_tokens=budget, stop_ids=())
    assert (result.tokens.size, result.finish_reason) == (budget, "length")
    assert result.stats.canvases == -(-budget // plain.info.canvas_len)


def test_without_a_limit_the_context_ends_the_output(plain: dgrt.Runtime) -> None:
    info = plain.info
    prompt = [2] * (info.context_len - 2 * info.canvas_len - 1)
    result = plain.generate(prompt, stop_ids=(), max_denoising_steps=1)
    assert (result.tokens.size, result.finish_reason) == (2 * info.canvas_len, "length")
    with pytest.raises(dgrt.InvalidArgument, match="leaves no room for one canvas"):
        plain.generate([2] * (info.context_len - info.canvas_len + 1))


def test_the_options_in_the_result_are_those_in_force(plain: dgrt.Runtime) -> None:
    options = plain.generate([2], max_new_tokens=1, t_max=0.9).options
    assert (options.t_max, options.t_min) == (0.9, plain.info.generation["t_min"])
    assert (options.guarantee, options.drafter) == ("exact", "none")
    assert plain.defaults == dgrt.GenerateOptions().resolved(plain.info.generation)


def test_the_manifest_and_the_native_side_agree_on_the_defaults(plain: dgrt.Runtime) -> None:
    native, ours = plain._handle().defaults(), plain.defaults
    assert tuple(native.pop("stop_ids")) == ours.stop_ids
    for name, value in native.items():
        assert np.float32(value) == np.float32(getattr(ours, name)), name


def test_the_trace_is_the_life_of_the_canvas(plain: dgrt.Runtime) -> None:
    result = plain.generate([2, 9], trace=True, **two_canvases(plain))
    info = plain.info
    assert result.trace is not None
    for step in result.trace:
        assert step.canvas_in.shape == step.argmax.shape == step.accepted.shape == (info.canvas_len,)
        assert step.soft_in.shape == (info.canvas_len, info.hidden_size)
        assert step.kv_len == 2 + step.canvas_index * info.canvas_len
        assert np.array_equal(
            step.accepted, sampling.accept_by_entropy(step.entropy, result.options.entropy_bound or 0)
        )
        assert np.array_equal(step.canvas_out[step.accepted], step.sampled[step.accepted])
    assert [step.canvas_index for step in result.trace] == [0, 0, 0, 1, 1, 1]
    assert plain.generate([2, 9], **two_canvases(plain)).trace is None


def test_statistics_count_what_happened(plain: dgrt.Runtime) -> None:
    stats = plain.generate([2, 9, 5], **two_canvases(plain)).stats
    length = plain.info.canvas_len
    assert (stats.prompt_tokens, stats.tokens, stats.canvases) == (3, 2 * length, 2)
    assert (stats.steps_per_canvas, stats.denoise_passes, stats.commit_passes) == ((3, 3), 6, 1)
    assert stats.row_tokens == 3 + 6 * length + length
    assert stats.tokens_per_pass == pytest.approx(2 * length / 7)
    assert 0 < stats.denoise_ms + stats.head_ms <= stats.total_ms
    assert (stats.draft_calls, stats.accepted_drafts, stats.packed_passes) == (0, 0, 0)


def test_cancelling_from_another_thread_gives_what_was_committed(plain: dgrt.Runtime) -> None:
    with plain.stream([2, 9], **LONG_OPTIONS) as events:
        tokens: list[int] = []
        for event in events:
            if event.kind == "commit":
                tokens += event.tokens.tolist()
                thread = threading.Thread(target=events.cancel)
                thread.start()
                thread.join()
        assert event.result is not None
        assert event.result.finish_reason == "cancelled"
        assert event.result.tokens.tolist() == tokens and len(tokens) >= plain.info.canvas_len


def test_leaving_a_stream_early_leaves_the_runtime_usable(plain: dgrt.Runtime) -> None:
    wanted = plain.generate([2, 9], **QUICK_OPTIONS).tokens.tolist()
    for _ in range(3):
        with plain.stream([2, 9], **LONG_OPTIONS) as events:
            next(events)
    assert not [thread for thread in threading.enumerate() if thread.name == "dgrt-generate"]
    assert plain.generate([2, 9], **QUICK_OPTIONS).tokens.tolist() == wanted


def test_closing_a_runtime_ends_its_streams_and_chats_and_refuses_what_comes(plain_engine: Path) -> None:
    runtime = dgrt.Runtime(plain_engine, threads=1)
    events = runtime.stream([2, 9], stop_ids=(), **QUICK_OPTIONS)
    later = runtime.stream([2, 9], **QUICK_OPTIONS)
    chat = runtime.chat(**QUICK_OPTIONS)
    chat.send("Hi")
    next(events)
    runtime.close()
    runtime.close()
    for stream in (events, later):
        with pytest.raises(dgrt.Cancelled, match="the runtime was closed before the generation was done"):
            list(stream)
    calls: list[Callable[[], Any]] = [
        lambda: runtime.generate([2, 9]), lambda: runtime.stream([2, 9]), lambda: runtime.submit([2, 9]),
        lambda: runtime.chat(), lambda: chat.send("Hi"), lambda: asyncio.run(runtime.generate_async([2, 9])),
        runtime.memory, runtime.serving_stats, runtime.prefix_stats,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(dgrt.Cancelled, match="the runtime is closed"):
            call()
    assert runtime.encode("Hi").size and runtime.info.canvas_len == 32 and runtime.threads == 1
    assert "closed" in repr(runtime)


def test_a_generation_in_another_thread_is_cancelled_by_closing_the_runtime(plain_engine: Path) -> None:
    runtime = dgrt.Runtime(plain_engine, threads=1)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(runtime.generate, [2, 9], **LONG_OPTIONS)
        while not runtime._streams:
            time.sleep(0.01)
        runtime.close()
        with pytest.raises(dgrt.Cancelled):
            future.result(timeout=60)


def test_an_engine_without_a_tokenizer_has_no_text(token_engine: Path) -> None:
    with dgrt.Runtime(token_engine, threads=1) as runtime:
        events = list(runtime.stream([2, 9], **QUICK_OPTIONS))
        assert runtime.tokenizer is None and all(event.text is None for event in events)
        assert events[-1].result is not None and events[-1].result.text is None
        for prompt in ("Hi", TURNS):
            with pytest.raises(dgrt.InvalidArgument, match="no tokenizer"):
                runtime.generate(prompt)


EDIT = "edit: rename count to total\nfor count in rows:\n    step = count"


def test_the_causal_tier_streams_one_commit_per_pass(mini: dgrt.Runtime) -> None:
    options: dict[str, Any] = {"guarantee": "causal", "drafter": "suffix", "seed": 3, "max_new_tokens": 60}
    result = mini.generate(EDIT, **options)
    events = list(mini.stream(EDIT, **options))
    commits = [event for event in events if event.kind == "commit"]
    assert np.concatenate([event.tokens for event in commits]).tolist() == result.tokens.tolist()
    assert "".join(event.text for event in commits) == result.text
    assert len(commits) == result.stats.causal_passes >= result.stats.draft_calls > 0
    assert np.array_equal(np.concatenate([event.origins for event in commits]), result.origins)
    assert np.count_nonzero(result.origins == 1) == result.stats.accepted_drafts
    assert {event.kind for event in events} == {"commit", "done"}
    assert 0 <= result.stats.causal_passes - (result.stats.tokens - result.stats.accepted_drafts) <= 1
    assert (result.stats.denoise_passes, result.stats.canvases, result.stats.steps_per_canvas) == (0, 0, ())
    assert result.stats.causal_ms > 0


def test_computing_ahead_shows_in_the_counts_alone(plain: dgrt.Runtime) -> None:
    """Events, trace and tokens come in the order of the plain loop: a canvas is heard of after the commit before it."""
    options: dict[str, Any] = {"seed": 4, "max_new_tokens": 90, "max_denoising_steps": 5, "stop_ids": (),
                               "confidence_threshold": 9.0}  # fmt: skip
    told: dict[str, list[Any]] = {}
    for pipeline in ("off", "on"):
        events = list(plain.stream([2, 9, 14], pipeline=pipeline, **options))
        told[pipeline] = [
            (e.kind, e.canvas_index, e.step, None if e.tokens is None else e.tokens.tolist()) for e in events
        ]
    assert told["on"] == told["off"]
    stats = plain.generate([2, 9, 14], pipeline="on", **options).stats
    assert 0 < stats.packed_commits <= stats.packed_passes
    assert stats.packed_ms > 0


def test_log_probabilities_come_with_the_tokens_they_belong_to(plain: dgrt.Runtime) -> None:
    options: dict[str, Any] = {"seed": 4, "max_new_tokens": 41, "max_denoising_steps": 5, "stop_ids": ()}
    result = plain.generate([2, 9], logprobs=True, **options)
    assert result.tokens.tolist() == plain.generate([2, 9], **options).tokens.tolist()
    assert result.logprobs is not None
    assert result.logprobs.shape == (41,)
    assert (result.logprobs <= 0).all()


@pytest.mark.parametrize(
    ("keywords", "error", "says"),
    [
        ({"sed": 1}, dgrt.InvalidArgument, "did you mean 'seed'"),
        ({"max_new_tokens": -1}, dgrt.InvalidArgument, "max_new_tokens"),
        ({"seed": 2**64}, dgrt.InvalidArgument, "seed"),
        ({"guarantee": "lossless"}, dgrt.InvalidArgument, "must be one of exact, causal, verified; got"),
        ({"drafter": "eagle"}, dgrt.InvalidArgument, "must be one of none, suffix, model, auto, overlap; got"),
        ({"drafter": "model", "guarantee": "causal"}, dgrt.Unsupported, "found model: the package has no drafter"),
        ({"drafter": "suffix"}, dgrt.InvalidArgument, "needs guarantee 'causal'"),
        ({"drafter": "overlap", "guarantee": "causal"}, dgrt.InvalidArgument, "needs guarantee 'verified'"),
        ({"pipeline": "always"}, dgrt.InvalidArgument, "must be one of auto, off, on; got"),
        ({"logprobs": 1}, dgrt.InvalidArgument, "logprobs must be True or False"),
        ({"logprobs": True, "pipeline": "on"}, dgrt.InvalidArgument, "must be 'auto' or 'off'"),
        ({"guarantee": "causal", "trace": True}, dgrt.InvalidArgument, "trace needs guarantee 'exact'"),
        ({"guarantee": "causal", "entropy_bound": 0.1}, dgrt.InvalidArgument, "entropy_bound needs guarantee 'exact'"),
        ({"guarantee": "causal", "temperature": -1}, dgrt.InvalidArgument, "temperature must be at least 0, got -1"),
        ({"guarantee": "causal", "temperature": 1e-9}, dgrt.InvalidArgument, "must be 0 or at least 0.0001, got 1e-09"),
        ({"t_min": 0.9}, dgrt.InvalidArgument, "t_max"),
        ({"stop_ids": [10**6]}, dgrt.InvalidArgument, "stop_ids"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else None,
)
def test_wrong_options_are_refused_before_anything_runs(
    plain: dgrt.Runtime, keywords: dict[str, Any], error: type[Exception], says: str
) -> None:
    for call in (plain.generate, plain.stream):
        with pytest.raises(error, match=says):
            call([2, 9], **keywords)


@pytest.mark.parametrize(
    ("keywords", "error", "says"),
    [
        ({"thread": 1}, dgrt.InvalidArgument, "did you mean 'threads'"),
        ({"threads": 0}, dgrt.InvalidArgument, "threads"),
        ({"threads": 1.5}, dgrt.InvalidArgument, "threads"),
        ({"memory_limit": -1}, dgrt.InvalidArgument, "memory_limit"),
        ({"kv_limit": 0}, dgrt.InvalidArgument, "kv_limit must be at least 1"),
        ({"prefix_cache": -1}, dgrt.InvalidArgument, "prefix_cache must be at least 0"),
        ({"prefix_cache": 5}, dgrt.InvalidArgument, "prefix_cache_bytes: expected 0, or at least"),
        ({"prefix_cash": 5}, dgrt.InvalidArgument, "did you mean 'prefix_cache'"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_wrong_runtime_options_are_refused(
    plain_engine: Path, keywords: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        dgrt.Runtime(plain_engine, **keywords)


@pytest.mark.parametrize("length", [1, 100, 512, 1300])
def test_kv_memory_is_what_the_manifest_says_to_a_page_at_each_open_end(mini: dgrt.Runtime, length: int) -> None:
    info, plan, page = mini.info, mini.memory(), 4096
    width = {"full": 0, "sliding": 0}
    for one in info.layers:
        width[one.type] += one.num_kv_heads * one.head_dim
    assert plan.kv_bytes_per_token == 2 * 4 * width["full"]
    assert plan.kv_window_bytes == 2 * 4 * width["sliding"] * (info.sliding_window - 1)

    def held(kv_len: int, rows: int) -> int:
        window = min(kv_len, info.sliding_window - 1) + rows
        return plan.kv_bytes_per_token * (kv_len + rows) + 2 * 4 * width["sliding"] * window

    passes = [(begin, min(512, length - begin)) for begin in range(0, length, 512)] + [(length, info.canvas_len)]
    ends = sum(2 * (1 if one.type == "full" else 2) for one in info.layers)
    result = mini.generate([2, *[9] * (length - 1)], max_new_tokens=1, max_denoising_steps=1)
    expected = max(held(*one) for one in passes)
    assert expected <= result.stats.peak_kv_bytes < expected + ends * page


def test_a_memory_limit_is_refused_with_numbers(plain_engine: Path) -> None:
    with dgrt.Runtime(plain_engine, threads=1, memory_limit=2**20) as runtime:
        assert runtime.generate([2, 9], **QUICK_OPTIONS).finish_reason
    with (
        dgrt.Runtime(plain_engine, threads=1, memory_limit=1000) as runtime,
        pytest.raises(dgrt.OutOfMemory, match="memory limit of 1000 bytes"),
    ):
        runtime.generate([2, 9])


def test_errors_are_also_the_builtin_kind_a_caller_expects(plain: dgrt.Runtime) -> None:
    with pytest.raises(ValueError, match="seed"):
        plain.generate([2], seed=-1)
    with pytest.raises(NotImplementedError):
        plain.generate([2], drafter="model", guarantee="causal")
    assert issubclass(dgrt.OutOfMemory, MemoryError)


def test_no_native_handle_is_left_behind(plain_engine: Path) -> None:
    import gc

    from dgrt import _native

    gc.collect()
    before = _native.live_handles()
    runtime = dgrt.Runtime(plain_engine, threads=1)
    runtime.generate([2, 9], **QUICK_OPTIONS)
    next(iter(runtime.stream([2, 9], **QUICK_OPTIONS)))
    runtime.close()
    gc.collect()
    assert _native.live_handles() == before
