"""The GIL is released while native code works, sessions run side by side, and misuse from two threads is an error."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dgrt
from dgrt import _native

PROMPT = np.array([2, 3, 4], np.int32)
# Never confident: the schedule runs to its end.
LONG: dict[str, Any] = {"max_denoising_steps": 400, "confidence_threshold": 1e-30, "stop_ids": [], "max_new_tokens": 32}


@pytest.fixture(scope="module")
def runtime(plain_engine: Path, ort_library: str) -> Any:
    return _native.Runtime(str(plain_engine), threads=1, ort_library=ort_library)


def prefilled(runtime: Any, **options: Any) -> Any:
    session = _native.Session(runtime, _native.Options(runtime, **options))
    session.prefill(PROMPT)
    return session


MANY = 20  # turns; with the GIL held there are none or one, and on a busy machine a short action sees few


def turns_during(action: Any) -> int:
    """How often this thread gets its turn while `action` runs on another one."""
    entered, left = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        action()
        left.set()

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    turns = 0
    while not left.is_set():
        time.sleep(0)  # offers the GIL
        turns += 1
    thread.join()
    return turns


def test_the_gil_is_released_in_next_canvas(runtime: Any) -> None:
    assert turns_during(prefilled(runtime, **LONG).next_canvas) > MANY


def test_the_gil_is_released_in_prefill(runtime: Any) -> None:
    session = _native.Session(runtime, _native.Options(runtime, **LONG))
    assert turns_during(lambda: session.prefill(np.full(1900, 7, np.int32))) > MANY


def test_the_gil_is_released_while_loading(plain_engine: Path, ort_library: str) -> None:
    assert turns_during(lambda: _native.Runtime(str(plain_engine), threads=2, ort_library=ort_library)) > MANY


def test_a_callback_runs_on_the_calling_thread(runtime: Any) -> None:
    threads = set()
    prefilled(runtime, **{**LONG, "max_denoising_steps": 3}).next_canvas(lambda _: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_cancel_from_another_thread_stops_between_steps(runtime: Any) -> None:
    session = prefilled(runtime, **{**LONG, "max_denoising_steps": 60_000})
    running = threading.Event()
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(session.next_canvas(lambda _: running.set())))
    thread.start()
    assert running.wait(30)
    session.cancel()
    thread.join(30)
    assert not thread.is_alive()
    assert results[0].size == 0 and session.finish_reason == "cancelled"
    assert (session.kv_len, session.tokens.size) == (PROMPT.size, 0)


def test_a_second_thread_on_the_same_session_gets_an_error(runtime: Any) -> None:
    session = prefilled(runtime, **{**LONG, "max_denoising_steps": 60_000})
    running = threading.Event()
    thread = threading.Thread(target=lambda: session.next_canvas(lambda _: running.set()))
    thread.start()
    assert running.wait(30)
    for call in (session.next_canvas, session.canvas, session.stats, lambda: session.tokens, lambda: session.kv_len):
        with pytest.raises(dgrt.InvalidArgument, match="in use"):
            call()
    session.cancel()
    thread.join(30)
    assert session.finish_reason == "cancelled"


def test_sessions_side_by_side_give_the_tokens_of_sessions_alone(plain_engine: Path, ort_library: str) -> None:
    options: dict[str, Any] = {"max_denoising_steps": 5, "max_new_tokens": 96, "stop_ids": []}
    shared = _native.Runtime(str(plain_engine), threads=2, ort_library=ort_library)

    def run(seed: int) -> list[int]:
        session = prefilled(shared, seed=seed, **options)
        while not session.finish_reason:
            session.next_canvas()
        return session.tokens.tolist()

    alone = [run(seed) for seed in range(6)]
    together: dict[int, list[int]] = {}
    threads = [threading.Thread(target=lambda s=seed: together.__setitem__(s, run(s))) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[seed] for seed in range(6)] == alone


def test_the_number_of_threads_never_changes_a_result(plain_engine: Path, ort_library: str) -> None:
    results = []
    for threads in (1, 2, 3):
        other = _native.Runtime(str(plain_engine), threads=threads, ort_library=ort_library)
        assert other.threads == threads
        session = prefilled(other, seed=8, max_new_tokens=96, max_denoising_steps=5, stop_ids=[])
        while not session.finish_reason:
            session.next_canvas()
        results.append(session.tokens.tolist())
    assert results[0] == results[1] == results[2]
