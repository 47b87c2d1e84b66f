"""Handles and Python objects die in any order and leave nothing behind: leak counters, exceptions, fork, exit."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boundary import c_api

import dgrt
from dgrt import _native

PROMPT = np.array([2, 3, 4], np.int32)
QUICK: dict[str, Any] = {"max_new_tokens": 40, "max_denoising_steps": 3, "stop_ids": []}


@pytest.fixture(autouse=True)
def no_leaks() -> Any:
    gc.collect()
    before = _native.live_handles(), c_api.LIB.dgrt_live_handles()
    yield
    gc.collect()
    assert (_native.live_handles(), c_api.LIB.dgrt_live_handles()) == before


def open_native(engine: Path, ort_library: str) -> Any:
    return _native.Runtime(str(engine), threads=2, ort_library=ort_library)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_python_objects_die_in_any_order(plain_engine: Path, ort_library: str, order: tuple[int, ...]) -> None:
    runtime = open_native(plain_engine, ort_library)
    options = _native.Options(runtime, **QUICK)
    objects: list[Any] = [runtime, _native.Session(runtime, options), _native.Session(runtime, options)]
    objects[1].prefill(PROMPT)
    del runtime
    for index in order:
        objects[index] = None
        gc.collect()
        for session in (objects[1], objects[2]):  # those left still work
            if session is not None and session.kv_len > 0:
                session.next_canvas()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_c_handles_die_in_any_order(plain_engine: Path, ort_library: str, order: tuple[int, ...]) -> None:
    start = c_api.LIB.dgrt_live_handles()
    runtime = c_api.Runtime(plain_engine, threads=2, ort_library=ort_library.encode())
    handles: list[Any] = [runtime, c_api.Session(runtime, **QUICK), c_api.Session(runtime, **QUICK)]
    assert c_api.LIB.dgrt_live_handles() == start + 3
    handles[1].prefill(PROMPT.tolist())
    for position, index in enumerate(order):
        handles[index].destroy()
        assert c_api.LIB.dgrt_live_handles() == start + 2 - position
        if 1 not in order[: position + 1]:
            handles[1].next_canvas()


def test_a_failed_open_leaves_no_handle(tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(dgrt.InvalidArgument):
            _native.Runtime(str(tmp_path))
        with pytest.raises(c_api.Failure):
            c_api.Runtime(tmp_path)


def test_exceptions_of_a_callback_pass_through_unchanged(plain_engine: Path, ort_library: str) -> None:
    class Custom(BaseException):
        pass

    options = {**QUICK, "seed": 11}
    runtime = open_native(plain_engine, ort_library)
    undisturbed = _native.Session(runtime, _native.Options(runtime, **options))
    undisturbed.prefill(PROMPT)
    expected = undisturbed.next_canvas()

    session = _native.Session(runtime, _native.Options(runtime, **options))
    session.prefill(PROMPT)
    errors = [Custom("mine")]

    def fail(_: dict[str, Any]) -> None:
        raise errors[0]

    for _ in range(3):
        with pytest.raises(Custom) as caught:
            session.next_canvas(fail)
        assert caught.value is errors[0]
        assert (session.finish_reason, session.kv_len, session.tokens.size) == ("", PROMPT.size, 0)
    np.testing.assert_array_equal(session.next_canvas(), expected)
    del caught, errors[:]  # their tracebacks hold the session


def test_repeated_use_does_not_grow(plain_engine: Path, ort_library: str) -> None:
    def resident_pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    def once() -> None:
        runtime = open_native(plain_engine, ort_library)
        session = _native.Session(runtime, _native.Options(runtime, **QUICK))
        session.prefill(PROMPT)
        session.next_canvas()

    for _ in range(10):
        once()
    gc.collect()
    before = resident_pages()
    for _ in range(30):
        once()
    gc.collect()
    grown = (resident_pages() - before) * os.sysconf("SC_PAGE_SIZE")
    assert grown < 30 * 200_000, f"{grown} bytes in 30 rounds"


def run_in_child(body: Any) -> int:
    """Runs `body` in a forked child; returns its exit status, or fails after ten seconds."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = body()
        finally:
            os._exit(status)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid == child:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child of fork() hangs")


def refuses_after_fork(call: Callable[[], Any]) -> bool:
    try:
        call()
    except dgrt.InvalidArgument as error:
        return "fork" in str(error)
    return False


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_an_error_and_can_let_go(plain_engine: Path, ort_library: str) -> None:
    runtime: Any = open_native(plain_engine, ort_library)
    session: Any = _native.Session(runtime, _native.Options(runtime, **QUICK))
    session.prefill(PROMPT)

    def body() -> int:
        nonlocal runtime, session
        # As `Runtime.generate` makes one for each call.
        open_another = partial(_native.Session, runtime, _native.Options(runtime, **QUICK))
        if not refuses_after_fork(session.next_canvas) or not refuses_after_fork(open_another):
            return 1
        del session, runtime, open_another  # joins no thread that does not exist here
        gc.collect()
        return 0

    assert run_in_child(body) == 0
    assert session.next_canvas().size > 0  # the parent is not disturbed


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_cannot_use_a_scheduler_and_can_let_go(plain_engine: Path, ort_library: str) -> None:
    runtime: Any = open_native(plain_engine, ort_library)
    scheduler: Any = _native.Scheduler(runtime)
    options = _native.Options(runtime, **QUICK)
    ended: list[dict[str, Any]] = []

    def submit() -> Any:
        return scheduler.submit(PROMPT, options, lambda kind, value: kind != "done" or ended.append(value))

    request: Any = submit()

    def body() -> int:
        nonlocal runtime, scheduler, request
        calls = (submit, request.cancel, partial(request.wait, 1.0), scheduler.stats)
        if not all(refuses_after_fork(call) for call in calls):
            return 1
        del request, scheduler, runtime
        gc.collect()
        return 0

    assert run_in_child(body) == 0
    assert request.wait(60) and ended[0]["error"] is None  # the parent is not disturbed


EXIT_WHILE_RUNNING = """
import sys, threading, time
import dgrt
runtime = dgrt.Runtime(sys.argv[1], ort_library=sys.argv[2])
started = threading.Event()
def run():
    options = dict(max_new_tokens=1900, max_denoising_steps=48, stop_ids=(), confidence_threshold=1e-30)
    for event in runtime.stream([2, 3, 4], **options):
        started.set()
threading.Thread(target=run, daemon=True).start()
assert started.wait(60)
"""


def test_the_interpreter_may_exit_while_generating(plain_engine: Path, ort_library: str) -> None:
    command = [sys.executable, "-c", EXIT_WHILE_RUNNING, str(plain_engine), ort_library]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")
