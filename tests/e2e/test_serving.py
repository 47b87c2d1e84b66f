"""submit, asyncio and their errors on the bundled model: results equal `generate`, whoever else runs."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from cases import PROCESS_TIMEOUT_S

import dgrt

PROMPTS = ["json\nname=Ana Silva; age=34; active=yes", "json\ncity=Oslo; zip=0150", "json\nname=Bo; age=7; active=no"]
ENDLESS: dict[str, Any] = {"max_denoising_steps": 40_000, "confidence_threshold": 1e-30, "stop_ids": ()}


@pytest.fixture
def runtime(mini_engine: Path, ort_library: str) -> Iterator[dgrt.Runtime]:
    with dgrt.Runtime(mini_engine, threads=2, ort_library=ort_library, max_running=4, max_queued=32) as runtime:
        yield runtime


def same(a: dgrt.GenerateResult, b: dgrt.GenerateResult) -> bool:
    return (a.text, a.tokens.tolist(), a.finish_reason) == (b.text, b.tokens.tolist(), b.finish_reason)


def test_submitted_requests_equal_generate(runtime: dgrt.Runtime) -> None:
    jobs: list[dict[str, Any]] = [{"seed": seed, "trace": seed == 0, "logprobs": seed == 1} for seed in range(9)]
    futures = [runtime.submit(PROMPTS[i % 3], **job) for i, job in enumerate(jobs)]
    for i, (future, job) in enumerate(zip(futures, jobs, strict=True)):
        result, expected = future.result(), runtime.generate(PROMPTS[i % 3], **job)
        assert same(result, expected)
        assert (result.trace is None) == (expected.trace is None) and result.options == expected.options
        if result.logprobs is not None and expected.logprobs is not None:
            assert result.logprobs.tolist() == expected.logprobs.tolist()
        assert (result.stats.denoise_passes, result.stats.row_tokens) == (
            expected.stats.denoise_passes, expected.stats.row_tokens
        )  # fmt: skip
    assert runtime.serving_stats().finished == 9


def test_threads_that_generate_share_the_machine_with_submitted_requests(runtime: dgrt.Runtime) -> None:
    expected = [runtime.generate(prompt, seed=3) for prompt in PROMPTS]
    found: dict[int, dgrt.GenerateResult] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: runtime.generate(PROMPTS[i % 3], seed=3)}))
        for i in range(6)
    ]
    futures = [runtime.submit(PROMPTS[i % 3], seed=3) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(found[i], expected[i % 3]) and same(futures[i].result(), expected[i % 3]) for i in range(6))
    assert runtime.serving_stats().narrow_passes > 0


def test_asyncio_equals_generate(runtime: dgrt.Runtime) -> None:
    async def run() -> tuple[list[dgrt.GenerateResult], list[dgrt.Event]]:
        results = await asyncio.gather(*(runtime.generate_async(prompt, seed=5) for prompt in PROMPTS))
        return results, [event async for event in runtime.stream_async(PROMPTS[0], seed=5)]

    results, events = asyncio.run(run())
    expected = [runtime.generate(prompt, seed=5) for prompt in PROMPTS]
    assert all(same(a, b) for a, b in zip(results, expected, strict=True))
    told = list(runtime.stream(PROMPTS[0], seed=5))
    assert [(e.kind, e.step, e.text) for e in events] == [(e.kind, e.step, e.text) for e in told]


def test_cancelling_a_future_or_a_task_ends_its_request(runtime: dgrt.Runtime) -> None:
    future = runtime.submit(PROMPTS[0], **ENDLESS)
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result(timeout=60)

    async def run() -> None:
        task = asyncio.create_task(runtime.generate_async(PROMPTS[0], **ENDLESS))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        stream = runtime.stream_async(PROMPTS[0], **ENDLESS)
        async for event in stream:
            assert event.kind == "draft"
            break
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(run())
    runtime.submit(PROMPTS[1]).result(timeout=60)  # a place in the queue is free again
    while runtime.serving_stats().running:
        pass
    assert runtime.serving_stats().cancelled == 3


def test_errors_are_those_of_the_request(runtime: dgrt.Runtime) -> None:
    with pytest.raises(dgrt.InvalidArgument, match="the prompt is empty"):
        runtime.submit([])
    with pytest.raises(dgrt.InvalidArgument, match="deadline_s must be above 0"):
        runtime.submit("x", deadline_s=0)
    late = runtime.submit(PROMPTS[0], deadline_s=0.05, **ENDLESS)
    with pytest.raises(dgrt.DeadlineExceeded, match=r"deadline of 50 ms passed after 0 tokens"):
        late.result(timeout=60)
    with pytest.raises(TimeoutError):  # as callers of other libraries expect it
        runtime.generate(PROMPTS[0], deadline_s=0.05, **ENDLESS)

    async def run() -> None:
        async for _ in runtime.stream_async(PROMPTS[0], drafts=False, deadline_s=0.05, **ENDLESS):
            raise AssertionError("nothing is committed")

    with pytest.raises(dgrt.DeadlineExceeded):
        asyncio.run(run())


def test_a_full_queue_refuses(mini_engine: Path, ort_library: str) -> None:
    with dgrt.Runtime(mini_engine, ort_library=ort_library, max_running=1, max_queued=0) as runtime:
        first = runtime.submit(PROMPTS[0], **ENDLESS)
        with pytest.raises(dgrt.QueueFull, match=r"expected fewer than 1 requests \(max_running 1, .*\), found 1"):
            runtime.submit(PROMPTS[1])
        assert first.cancel()
    with pytest.raises(dgrt.InvalidArgument, match="max_running must be"):
        dgrt.Runtime(mini_engine, ort_library=ort_library, max_running=0)


def test_a_future_outlives_its_runtime_and_close_cancels(mini_engine: Path, ort_library: str) -> None:
    future = dgrt.Runtime(mini_engine, ort_library=ort_library).submit(PROMPTS[0])
    gc.collect()
    assert future.result(timeout=60).text == '{"name":"Ana Silva","age":34,"active":true}'
    runtime = dgrt.Runtime(mini_engine, ort_library=ort_library)
    endless = runtime.submit(PROMPTS[0], **ENDLESS)
    runtime.close()
    with pytest.raises(dgrt.Cancelled, match="the runtime was closed before the request was done"):
        endless.result(timeout=60)
    with pytest.raises(dgrt.Cancelled, match="the runtime is closed"):
        runtime.submit(PROMPTS[0])


def test_the_interpreter_ends_with_requests_running(mini_engine: Path, ort_library: str) -> None:
    script = (
        "import dgrt, sys; rt = dgrt.Runtime(sys.argv[1], ort_library=sys.argv[2])\n"
        "futures = [rt.submit('x', max_denoising_steps=40000, confidence_threshold=1e-30) for _ in range(4)]\n"
        "print('bye')"
    )
    command = [sys.executable, "-c", script, str(mini_engine), ort_library]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROCESS_TIMEOUT_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "bye\n", "")


def test_prompts_are_tokenized_off_the_event_loop(runtime: dgrt.Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    encode = runtime._encoder.encode

    def recorded(*arguments: Any, **keywords: Any) -> Any:
        threads.append(threading.get_ident())
        return encode(*arguments, **keywords)

    monkeypatch.setattr(runtime._encoder, "encode", recorded)

    async def run() -> int:
        await runtime.generate_async(PROMPTS[0])
        async for _ in runtime.stream_async(PROMPTS[0], drafts=False):
            pass
        with pytest.raises(dgrt.InvalidArgument, match="prompt of at least [0-9]+ tokens leaves no room"):
            await runtime.generate_async("x" * 10**6)
        return threading.get_ident()

    loop = asyncio.run(run())
    assert len(threads) == 3 and loop not in threads


def test_who_waits_when_the_runtime_closes_gets_cancelled(mini_engine: Path, ort_library: str) -> None:
    async def run(way: str) -> None:
        runtime = dgrt.Runtime(mini_engine, ort_library=ort_library)

        async def wait() -> None:
            if way == "generate_async":
                await runtime.generate_async(PROMPTS[0], **ENDLESS)
            else:
                async for _ in runtime.stream_async(PROMPTS[0], **ENDLESS):
                    pass

        task = asyncio.create_task(wait())
        while runtime._opened_scheduler is None or not runtime.serving_stats().running:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(runtime.close)
        with pytest.raises(dgrt.Cancelled, match="the runtime was closed before the request was done"):
            await task

    for way in ("generate_async", "stream_async"):
        asyncio.run(run(way))


def test_a_limit_that_no_answer_of_the_whole_context_fits_names_no_number_that_nobody_gave(
    mini_engine: Path, ort_library: str
) -> None:
    with dgrt.Runtime(mini_engine, ort_library=ort_library, kv_limit=1, prefix_cache=0) as runtime:
        with pytest.raises(dgrt.OutOfMemory, match="tokens and no max_new_tokens may take"):
            runtime.submit(PROMPTS[0])
        with pytest.raises(dgrt.OutOfMemory, match="tokens and max_new_tokens 9 may take"):
            runtime.submit(PROMPTS[0], max_new_tokens=9)


def test_a_loop_that_ends_before_its_stream_is_quiet(mini_engine: Path, ort_library: str) -> None:
    ends = ("asyncio.run(begin())", "asyncio.new_event_loop().run_until_complete(begin())",
            "loop = asyncio.new_event_loop(); loop.run_until_complete(begin()); loop.close()")  # fmt: skip
    wait = "s = None\nwhile rt.serving_stats().running: pass"
    for end, then in zip(ends, (wait, "", wait), strict=True):  # one that is left open still owns its generators
        code = (
            f"import asyncio, dgrt\nrt = dgrt.Runtime({str(mini_engine)!r}, ort_library={ort_library!r})\n"
            f"async def begin():\n    global s\n    s = rt.stream_async({PROMPTS[0]!r}, **{ENDLESS!r})\n"
            f"    await anext(s)\n{end}\n{then}\nprint('ended')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROCESS_TIMEOUT_S, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", ""), end


def test_a_stream_goes_on_in_its_own_loop_only(runtime: dgrt.Runtime) -> None:
    stream = runtime.stream_async(PROMPTS[0], **ENDLESS)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(anext(stream))  # type: ignore[arg-type]
        with pytest.raises(dgrt.InvalidArgument, match="a stream belongs to the event loop that it began in"):
            second.run(anext(stream))  # type: ignore[arg-type]
    while runtime.serving_stats().running:
        pass


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the module has another name and form there")
def test_an_interpreter_inside_another_is_refused() -> None:
    code = (
        "import _xxsubinterpreters as inside\n"
        "inside.run_string(inside.create(), 'import dgrt, dgrt.errors; dgrt.errors.native_module()')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=PROCESS_TIMEOUT_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "dgrt runs in the main interpreter only; for mod_wsgi:" in done.stderr
