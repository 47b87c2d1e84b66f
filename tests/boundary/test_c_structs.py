"""The size-first rule, NULL pointers and error texts of the C API."""

from __future__ import annotations

import ctypes
import threading
from ctypes import byref, c_void_p
from pathlib import Path
from typing import Any

import pytest
from boundary import c_api
from boundary.c_api import LIB, Failure
from cases import PROCESS_TIMEOUT_S


@pytest.fixture(scope="module")
def runtime(plain_engine: Path, ort_library: str) -> Any:
    runtime = c_api.Runtime(plain_engine, threads=1, ort_library=ort_library.encode())
    yield runtime
    runtime.destroy()


def larger(base: Any, extra: int) -> Any:
    """A struct of a newer header: `base` and some more bytes."""
    return type("Newer", (base,), {"_fields_": [("future", ctypes.c_uint8 * extra)]})


def create(path: Path, options: Any) -> None:
    handle = c_void_p()
    status = LIB.dgrt_runtime_create(str(path).encode(), byref(options), byref(handle))
    if status == 0:
        LIB.dgrt_runtime_destroy(handle)
    c_api.check(status)


def test_init_writes_no_more_than_the_caller_has(runtime: Any) -> None:
    size = ctypes.sizeof(c_api.SessionOptions)
    for known in range(8, size + 1, 8):
        memory = (ctypes.c_uint8 * size)(*([0xAB] * size))
        c_api.check(LIB.dgrt_session_options_init(runtime.handle, memory, known))
        assert int.from_bytes(bytes(memory[:4]), "little") == known
        assert bytes(memory[known:]) == b"\xab" * (size - known)


def test_an_older_struct_gets_defaults_for_the_rest(runtime: Any) -> None:
    options = runtime.session_options(max_new_tokens=5, max_denoising_steps=3, stop_ids=[])
    options.struct_size = c_api.SessionOptions.max_denoising_steps.offset  # knows request, seed, max_new_tokens
    options.max_denoising_steps = -99  # beyond what the struct claims to hold: never read
    handle = c_void_p()
    c_api.check(LIB.dgrt_session_create(runtime.handle, byref(options), byref(handle)))
    LIB.dgrt_session_destroy(handle)


def test_a_newer_struct_must_be_zero_beyond_what_is_known(plain_engine: Path, ort_library: str) -> None:
    newer = larger(c_api.RuntimeOptions, 16)()
    c_api.check(LIB.dgrt_runtime_options_init(byref(newer), ctypes.sizeof(newer)))
    newer.ort_library, newer.threads = ort_library.encode(), 1
    create(plain_engine, newer)
    newer.future[9] = 1
    with pytest.raises(Failure, match="DGRT_UNSUPPORTED.*knows 48 bytes"):
        create(plain_engine, newer)


def test_a_newer_output_struct_is_zeroed_beyond_what_is_known(runtime: Any) -> None:
    facts = larger(c_api.RuntimeFacts, 8)()
    facts.struct_size = ctypes.sizeof(facts)
    facts.future[3] = 7
    c_api.check(LIB.dgrt_runtime_info(runtime.handle, byref(facts)))
    assert facts.vocab_size > 0 and bytes(facts.future) == bytes(8)


@pytest.mark.parametrize("size", [0, 4, 7, 12, 33, 4104])
def test_impossible_sizes_are_refused(plain_engine: Path, runtime: Any, size: int) -> None:
    options = c_api.RuntimeOptions(size)
    with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT: dgrt_runtime_options.struct_size"):
        create(plain_engine, options)
    with pytest.raises(Failure, match="struct_size"):
        c_api.check(LIB.dgrt_session_options_init(runtime.handle, byref(c_api.SessionOptions()), size))
    stats = c_api.Stats(size)
    session = c_api.Session(runtime)
    with pytest.raises(Failure, match="dgrt_stats.struct_size"):
        c_api.check(LIB.dgrt_session_stats(session.handle, byref(stats)))
    session.destroy()


def test_reserved_fields_must_be_zero(plain_engine: Path) -> None:
    options = c_api.RuntimeOptions()
    c_api.check(LIB.dgrt_runtime_options_init(byref(options), ctypes.sizeof(options)))
    options.reserved = 1
    with pytest.raises(Failure, match="DGRT_UNSUPPORTED.*reserved"):
        create(plain_engine, options)


def test_null_pointers_are_errors_not_crashes(runtime: Any) -> None:
    session = c_api.Session(runtime)
    tokens, count, finish = c_api.Ids(), c_api.c_size_t(), c_api.c_int32()
    calls = [
        LIB.dgrt_runtime_options_init(None, 32),
        LIB.dgrt_runtime_create(None, None, byref(c_void_p())),
        LIB.dgrt_runtime_create(b"x", None, None),
        LIB.dgrt_runtime_info(None, None),
        LIB.dgrt_runtime_info(runtime.handle, None),
        LIB.dgrt_runtime_memory(None, None),
        LIB.dgrt_session_options_init(None, None, 8),
        LIB.dgrt_session_create(None, None, byref(c_void_p())),
        LIB.dgrt_session_create(runtime.handle, None, None),
        LIB.dgrt_session_prefill(None, None, 0),
        LIB.dgrt_session_prefill(session.handle, None, 3),
        LIB.dgrt_session_next_canvas(None, None, byref(tokens), byref(count), byref(finish)),
        LIB.dgrt_session_next_canvas(session.handle, None, None, byref(count), byref(finish)),
        LIB.dgrt_session_next_canvas(session.handle, None, byref(tokens), None, byref(finish)),
        LIB.dgrt_session_next_canvas(session.handle, None, byref(tokens), byref(count), None),
        LIB.dgrt_session_tokens(session.handle, None, byref(count)),
        LIB.dgrt_session_logprobs(session.handle, None, byref(count)),
        LIB.dgrt_session_cancel(None),
        LIB.dgrt_session_stats(session.handle, None),
        LIB.dgrt_session_set_canvas(session.handle, None, 32),
        LIB.dgrt_session_get_canvas(None, byref(tokens), byref(count)),
        LIB.dgrt_generate(None, None, None, 0, None, None),
        LIB.dgrt_prefix_cache_stats(None, None),
        LIB.dgrt_prefix_cache_clear(None),
        LIB.dgrt_prefix_cache_save(None, b"x"),
        LIB.dgrt_prefix_cache_load(None, b"x", None),
        LIB.dgrt_session_extend(None, None, 0),
    ]
    assert [LIB.dgrt_status_name(status) for status in calls] == [b"DGRT_INVALID_ARGUMENT"] * len(calls)
    LIB.dgrt_session_destroy(None)
    LIB.dgrt_runtime_destroy(None)
    session.destroy()


def test_session_options_are_checked(runtime: Any) -> None:
    wrong = {"max_new_tokens": 0, "request": 2**24, "max_denoising_steps": 0, "entropy_bound": float("nan")}
    for name, value in wrong.items():
        with pytest.raises(Failure, match=f"DGRT_INVALID_ARGUMENT.*{name}"):
            c_api.Session(runtime, **{name: value})
    flags = {"logprobs": 2, "verify_one_pass": 2, "verify_always": -1}
    for name, value in {"pipeline": 3, "verify_packing": 3, "verify_redraft": 3, "guarantee": 3, **flags}.items():
        with pytest.raises(Failure, match=name.replace("_", ".")):  # verify_folds is verify.folds in the message
            c_api.Session(runtime, **{name: value})
    with pytest.raises(Failure, match=r"drafter: expected .*, 3 \(auto\) or 4 \(overlap\), found 5"):
        c_api.Session(runtime, guarantee=1, drafter=5)
    with pytest.raises(Failure, match="auto with guarantee causal, found overlap; guarantee verified takes it"):
        c_api.Session(runtime, guarantee=1, drafter=4)
    with pytest.raises(Failure, match="draft: expected none with drafter overlap, found one"):
        c_api.Session(runtime, guarantee=2, drafter=4, draft=[5])
    with pytest.raises(Failure, match="DGRT_UNSUPPORTED.*found model: the package has no drafter"):
        c_api.Session(runtime, guarantee=1, drafter=2)
    c_api.Session(runtime, drafter=3).destroy()  # auto is none with guarantee exact
    with pytest.raises(Failure, match="stop_ids"):
        c_api.Session(runtime, stop_ids=[10**6])
    with pytest.raises(Failure, match="draft: expected none without guarantee verified"):
        c_api.Session(runtime, draft=[5])
    with pytest.raises(Failure, match=r"draft\[1\]"):
        c_api.Session(runtime, guarantee=2, draft=[5, 10**6])


def test_a_draft_of_a_foreign_host_is_checked_and_counted(runtime: Any) -> None:
    canvas = list(range(5, 37))
    session = c_api.Session(runtime, guarantee=2, draft=canvas, verify_always=1, max_new_tokens=32, stop_ids=[])
    session.prefill([2, 3])
    tokens, stats = session.next_canvas(), session.stats()
    assert stats.draft_calls == 1 and stats.verify_passes >= 1 and stats.verify_ms > 0
    assert stats.draft_commits + stats.draft_refines + stats.draft_discards == 1
    session.destroy()
    plain = c_api.Session(runtime, max_new_tokens=32, stop_ids=[])
    plain.prefill([2, 3])
    assert stats.draft_discards == 1 and plain.next_canvas() == tokens  # random weights confirm nothing
    plain.destroy()


def test_the_prompt_and_the_order_of_calls_are_checked(runtime: Any) -> None:
    session = c_api.Session(runtime, max_denoising_steps=2)
    for prompt in ([], [-1], [10**6], [2] * 5000):
        with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT"):
            session.prefill(prompt)
    with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT.*[Pp]refill"):
        session.next_canvas()
    with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT.*32"):
        session.set_canvas([1])
    session.prefill([2])
    with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT"):
        session.prefill([2])
    session.destroy()


def test_status_names_and_the_last_error_of_each_thread(runtime: Any) -> None:
    names = [LIB.dgrt_status_name(status).decode() for status in range(-1, 11)]
    assert names == [
        "unknown status", "DGRT_OK", "DGRT_INVALID_ARGUMENT", "DGRT_CONTRACT_MISMATCH", "DGRT_UNSUPPORTED",
        "DGRT_OUT_OF_MEMORY", "DGRT_CANCELLED", "DGRT_DEVICE_ERROR", "DGRT_INTERNAL",
        "DGRT_DEADLINE_EXCEEDED", "DGRT_QUEUE_FULL", "unknown status",
    ]  # fmt: skip
    assert LIB.dgrt_session_cancel(None) == 1
    elsewhere: list[bytes] = []
    thread = threading.Thread(target=lambda: elsewhere.append(LIB.dgrt_last_error()))
    thread.start()
    thread.join()
    assert elsewhere == [b""] and b"session" in LIB.dgrt_last_error()


def test_memory_limits_are_reported_with_numbers(plain_engine: Path, ort_library: str) -> None:
    small = c_api.Runtime(plain_engine, threads=1, ort_library=ort_library.encode(), memory_limit_bytes=1000)
    with pytest.raises(Failure, match=r"DGRT_OUT_OF_MEMORY.*1000.*\d+"):
        c_api.Session(small)
    small.destroy()


def test_a_callback_that_stops_leaves_the_session_usable(runtime: Any) -> None:
    options = {"seed": 3, "max_new_tokens": 60, "max_denoising_steps": 4, "stop_ids": []}
    plain = c_api.Session(runtime, **options)
    plain.prefill([2, 3])
    expected = [plain.next_canvas(), plain.next_canvas()]
    plain.destroy()

    session = c_api.Session(runtime, **options)
    session.prefill([2, 3])
    for kind in ("on_step", "on_commit"):
        with pytest.raises(Failure, match=f"DGRT_CANCELLED: {kind}"):
            session.next_canvas(**{kind: lambda *_: 1})
        assert session.tokens() == [] and session.stats().kv_len == 2
    assert [session.next_canvas(), session.next_canvas()] == expected
    session.destroy()


def test_cancel_from_the_callback_ends_the_session(runtime: Any) -> None:
    session = c_api.Session(runtime, max_denoising_steps=12, confidence_threshold=1e-30, stop_ids=[])
    session.prefill([2, 3])
    steps = []

    def on_step(_: Any, step: Any) -> int:
        steps.append(step.contents.step)
        session.cancel()
        return 0

    assert session.next_canvas(on_step) == [] and session.finish_reason == "cancelled"
    assert steps == [12] and session.tokens() == [] and session.stats().kv_len == 2
    session.destroy()


def test_cancel_from_another_thread_ends_the_session(runtime: Any) -> None:
    session = c_api.Session(runtime, max_denoising_steps=60_000, confidence_threshold=1e-30, stop_ids=[])
    session.prefill([2, 3])
    running, results = threading.Event(), []
    thread = threading.Thread(target=lambda: results.append(session.next_canvas(lambda *_: running.set() or 0)))
    thread.start()
    assert running.wait(PROCESS_TIMEOUT_S)
    session.cancel()
    thread.join(PROCESS_TIMEOUT_S)
    assert results == [[]] and session.finish_reason == "cancelled"
    assert session.tokens() == [] and session.stats().kv_len == 2
    session.destroy()


def test_cancel_during_prefill_leaves_no_prompt(runtime: Any) -> None:
    failures: list[Failure] = []

    def prefill(session: Any, entered: threading.Event) -> None:
        entered.set()
        try:
            session.prefill([7] * 1900)  # four chunks
        except Failure as failure:
            failures.append(failure)

    for _ in range(20):  # it may be done before the cancel arrives, but not every time
        session, entered = c_api.Session(runtime), threading.Event()
        thread = threading.Thread(target=prefill, args=(session, entered))
        thread.start()
        entered.wait()
        session.cancel()
        thread.join(PROCESS_TIMEOUT_S)
        stats = session.stats()
        session.destroy()
        if failures:
            break
    (failure,) = failures
    assert failure.status == "DGRT_CANCELLED" and "of 1900 prompt tokens" in failure.text
    assert (c_api.FINISH[stats.finish_reason], stats.kv_len, stats.prompt_tokens) == ("cancelled", 0, 0)


def test_other_calls_from_inside_a_callback_are_refused(runtime: Any) -> None:
    session = c_api.Session(runtime, max_new_tokens=3, max_denoising_steps=2)
    session.prefill([2])
    answers = []

    def on_step(_: Any, step: Any) -> int:
        try:
            session.tokens()
        except Failure as failure:
            answers.append(failure)
        return 0

    session.next_canvas(on_step)
    assert answers and all(a.status == "DGRT_INVALID_ARGUMENT" and "in use" in a.text for a in answers)
    session.destroy()
