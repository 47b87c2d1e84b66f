"""Many requests through the C API: the tokens of sessions, callbacks, errors with numbers, destruction in any order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boundary import c_api
from boundary.c_api import LIB, Failure

PROMPT = [2, 105, 228, 138, 240]
SHORT: dict[str, Any] = {"max_new_tokens": 40, "max_denoising_steps": 3, "stop_ids": []}
ENDLESS: dict[str, Any] = {"max_denoising_steps": 40_000, "confidence_threshold": 1e-30, "stop_ids": []}


@pytest.fixture
def runtime(mini_engine: Path, ort_library: str) -> Iterator[c_api.Runtime]:
    before = LIB.dgrt_live_handles()
    runtime = c_api.Runtime(mini_engine, ort_library=ort_library.encode(), threads=2)
    yield runtime
    runtime.destroy()
    assert LIB.dgrt_live_handles() == before


def alone(runtime: c_api.Runtime, **options: Any) -> list[int]:
    session = c_api.Session(runtime, **options)
    session.prefill(PROMPT)
    while not session.finish_reason:
        session.next_canvas()
    tokens = session.tokens()
    session.destroy()
    return tokens


def test_requests_have_the_tokens_of_sessions(runtime: c_api.Runtime) -> None:
    kinds: list[dict[str, Any]] = [{}, {"logprobs": 1}, {"guarantee": 1}, {"guarantee": 1, "drafter": 1}]
    options = [{**SHORT, **kinds[seed % 4], "seed": seed} for seed in range(12)]
    expected = [alone(runtime, **each) for each in options]
    scheduler = c_api.Scheduler(runtime, max_running=5)
    requests = [scheduler.submit(PROMPT, **each) for each in options]
    assert all(request.wait() for request in requests)
    assert [request.result() for request in requests] == expected
    assert {request.finish_reason for request in requests} == {"length"}
    assert [len(request.logprobs()) for request in requests] == [40 if seed % 4 == 1 else 0 for seed in range(12)]
    stats = requests[0].stats()
    assert (stats.tokens, stats.canvases, stats.prompt_tokens, stats.queued_ms >= 0) == (40, 1, 5, True)
    counts = scheduler.stats()
    assert (counts.finished, counts.queued, counts.running, counts.planned_kv_bytes) == (12, 0, 0, 0)
    assert counts.passes > 0 and counts.busy_thread_ms > 0
    for request in requests:
        request.destroy()
    scheduler.destroy()


def test_callbacks_come_in_order_and_done_is_the_last(runtime: c_api.Runtime) -> None:
    scheduler = c_api.Scheduler(runtime)
    heard: list[Any] = []
    done = threading.Event()

    def on_commit(_: Any, index: int, tokens: Any, count: int) -> int:
        heard.append(("commit", index, tokens[:count]))
        return 0

    def on_done(_: Any, status: int, finish: int, error: bytes) -> None:
        heard.append(("done", status, c_api.FINISH[finish], error))
        done.set()

    def on_step(_: Any, step: Any) -> int:
        heard.append(("step", step.contents.step))
        return 0

    keep = c_api.callbacks(on_step, on_commit, on_done)
    request = scheduler.submit(PROMPT, keep, **SHORT)
    assert request.wait() and done.is_set()
    tokens = request.result()
    assert heard == [("step", 3), ("step", 2), ("step", 1), ("commit", 0, tokens), ("done", 0, "length", b"")]
    request.destroy()
    scheduler.destroy()


def test_a_callback_that_asks_to_stop_cancels_its_request_only(runtime: c_api.Runtime) -> None:
    scheduler = c_api.Scheduler(runtime)
    keep = c_api.callbacks(on_commit=lambda *_: 1)
    stopped, other = scheduler.submit(PROMPT, keep, **SHORT), scheduler.submit(PROMPT, **SHORT)
    assert stopped.wait() and other.wait()
    assert (stopped.result(), stopped.finish_reason) == ([], "cancelled")
    assert other.result() == alone(runtime, **SHORT)
    for handle in (stopped, other, scheduler):
        handle.destroy()


def test_errors_have_their_status_and_numbers(runtime: c_api.Runtime, mini_engine: Path, ort_library: str) -> None:
    scheduler = c_api.Scheduler(runtime, max_running=1, max_queued=1)
    with pytest.raises(Failure, match=r"INVALID_ARGUMENT: the prompt is empty"):
        scheduler.submit([])
    with pytest.raises(Failure, match=r"INVALID_ARGUMENT: dgrt_session_options|INVALID_ARGUMENT: max_new_tokens"):
        scheduler.submit(PROMPT, max_new_tokens=0)
    running = scheduler.submit(PROMPT, **ENDLESS)
    late = scheduler.submit(PROMPT, deadline_ms=20.0)
    with pytest.raises(Failure, match=r"QUEUE_FULL: queue: expected fewer than 2 requests .*, found 2"):
        scheduler.submit(PROMPT, **SHORT)
    with pytest.raises(Failure, match=r"INVALID_ARGUMENT: result: expected a request that is done"):
        running.result()
    assert not running.wait(0)
    assert late.wait()
    with pytest.raises(Failure, match=r"DEADLINE_EXCEEDED: deadline of 20 ms passed in the queue"):
        late.result()
    running.cancel()
    assert running.wait()
    assert (running.result(), running.finish_reason) == ([], "cancelled")
    for handle in (running, late, scheduler):
        handle.destroy()

    small = c_api.Runtime(mini_engine, ort_library=ort_library.encode(), kv_limit_bytes=100_000)
    strict = c_api.Scheduler(small)
    with pytest.raises(Failure, match=r"OUT_OF_MEMORY: KV memory: prompt of 5 tokens .* the limit is 100000"):
        strict.submit(PROMPT)
    strict.destroy()
    small.destroy()
    with pytest.raises(Failure, match=r"INVALID_ARGUMENT: max_running: expected 1 to 1024, found 0"):
        c_api.Scheduler(runtime, max_running=0)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_handles_are_destroyed_in_any_order(mini_engine: Path, ort_library: str, order: tuple[int, ...]) -> None:
    before = LIB.dgrt_live_handles()
    runtime = c_api.Runtime(mini_engine, ort_library=ort_library.encode(), threads=2)
    scheduler = c_api.Scheduler(runtime)
    request = scheduler.submit(PROMPT, **ENDLESS)
    handles: list[Any] = [runtime, scheduler, request]
    for i in order:
        handles[i].destroy()
    assert LIB.dgrt_live_handles() == before


def test_a_scheduler_may_be_destroyed_in_a_callback(runtime: c_api.Runtime) -> None:
    scheduler = c_api.Scheduler(runtime)
    done = threading.Event()

    def on_commit(*_: Any) -> int:
        scheduler.destroy()
        return 0

    keep = c_api.callbacks(on_commit=on_commit, on_done=lambda *_: done.set())
    request = scheduler.submit(PROMPT, keep, **SHORT)
    assert done.wait(60) and request.wait()
    request.destroy()
