"""Whatever a host passes to the C API, it gets a status with a text: counts, flags, reserved fields, enums, sizes."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from ctypes import byref, c_int32, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import pytest
from boundary import c_api
from boundary.c_api import LIB, Failure
from cases import PROCESS_TIMEOUT_S

COUNT = 400


@pytest.mark.parametrize("seed", [1, 2])
def test_every_hostile_call_gets_a_status_with_a_text(mini_engine: Path, ort_library: str, seed: int) -> None:
    script = Path(__file__).with_name("hostile_calls.py")
    command = [sys.executable, str(script), str(mini_engine), ort_library, str(seed), str(COUNT)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=5 * PROCESS_TIMEOUT_S, check=False)
    lines = run.stdout.splitlines()
    assert run.returncode == 0, f"seed {seed}, last call: {lines[-1:]}\n{run.stderr}"
    assert len(lines) == COUNT + 1 and int(lines[-1].removeprefix("refused ")) > COUNT // 2


@pytest.fixture(scope="module")
def runtime(plain_engine: Path, ort_library: str) -> Any:
    runtime = c_api.Runtime(plain_engine, threads=1, ort_library=ort_library.encode())
    yield runtime
    runtime.destroy()


def test_a_count_beyond_the_context_is_refused_before_anything_is_read(runtime: Any) -> None:
    session, handle = c_api.Session(runtime), c_void_p()
    scheduler, tokens = c_api.Scheduler(runtime), c_api.ids([2, 3, 4])
    most = runtime.info().context_len
    for count in (most + 1, 2**63 + 1, 2**64 - 1):
        for name, call in {
            "prompt": lambda n=count: LIB.dgrt_session_prefill(session.handle, tokens, n),
            "tokens": lambda n=count: LIB.dgrt_session_extend(session.handle, tokens, n),
            "canvas": lambda n=count: LIB.dgrt_session_set_canvas(session.handle, tokens, n),
            " prompt": lambda n=count: LIB.dgrt_scheduler_submit(
                scheduler.handle, None, tokens, n, None, byref(handle)
            ),
            "prompt ": lambda n=count: LIB.dgrt_generate(runtime.handle, None, tokens, n, None, None),
        }.items():
            with pytest.raises(Failure) as caught:
                c_api.check(call())
            text = f"{name.strip()}: expected at most {most} tokens, found {count}"
            assert (caught.value.status, caught.value.text) == ("DGRT_INVALID_ARGUMENT", text)
    scheduler.destroy()
    session.destroy()


def test_reserved_fields_and_flags_are_checked_everywhere(
    runtime: Any, plain_engine: Path, ort_library: str
) -> None:
    options = runtime.session_options(reserved=1)
    with pytest.raises(Failure, match="DGRT_UNSUPPORTED: dgrt_session_options.reserved: expected 0, found 1"):
        c_api.check(LIB.dgrt_session_create(runtime.handle, byref(options), byref(c_void_p())))
    scheduler = c_api.Scheduler(runtime)
    with pytest.raises(Failure, match="dgrt_session_options.reserved"):
        c_api.check(LIB.dgrt_scheduler_submit(scheduler.handle, byref(options), c_api.ids([2]), 1, None, None))
    scheduler.destroy()
    for value in (2, -1):
        with pytest.raises(Failure, match=f"verify_weights: expected 0 or 1, found {value}"):
            c_api.Runtime(plain_engine, ort_library=ort_library.encode(), verify_weights=value)


def test_reserved_fields_that_the_library_writes_are_zero(runtime: Any) -> None:
    scheduler = c_api.Scheduler(runtime)
    outputs = {
        c_api.Memory: (LIB.dgrt_runtime_memory, runtime),
        c_api.PrefixStats: (LIB.dgrt_prefix_cache_stats, runtime),
        c_api.SchedulerCounts: (LIB.dgrt_scheduler_stats, scheduler),
    }
    for kind, (function, owner) in outputs.items():
        struct = kind(ctypes.sizeof(kind), reserved=77)
        c_api.check(function(owner.handle, byref(struct)))
        assert struct.reserved == 0
    scheduler.destroy()


def test_counts_of_text_functions_are_refused_before_anything_is_read(mini_engine: Path) -> None:
    tokenizer = c_api.Tokenizer(mini_engine)
    tokens, text, size = c_api.Ids(), c_void_p(), c_size_t()
    for count in (2**31, 2**64 - 1):
        with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT: tokens: expected at most 2147483647 tokens"):
            c_api.check(
                LIB.dgrt_tokenizer_decode(tokenizer.handle, (c_int32 * 1)(2), count, 0, byref(text), byref(size))
            )
        with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT: text: expected at most 2147483647 bytes"):
            c_api.check(LIB.dgrt_tokenizer_encode(tokenizer.handle, b"a", count, byref(tokens), byref(size)))
    tokenizer.destroy()


def test_the_text_of_an_error_is_utf8_whatever_it_quotes() -> None:
    handle = c_void_p()
    for name in (b"none \xff\xfe \xc3", b"\xed\xa0\x80", "é".encode()):
        assert LIB.dgrt_runtime_create(name, None, byref(handle)) != 0
        text = LIB.dgrt_last_error().decode()
        assert ("é" in text) == (name == "é".encode()) and "No such file" in text
