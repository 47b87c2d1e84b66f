"""Requests that are submitted instead of waited for: futures and asyncio over the native scheduler (`csrc/serving`).

The scheduler queues, starts and runs them; it calls back on its own threads. Nothing here blocks them: what arrives is
put into a future or into the queue of an event loop.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dgrt.errors import Cancelled, InvalidArgument, NotCopied, native_module
from dgrt.result import Event, GenerateResult, ServingStats
from dgrt.translate import Outcome, Prepared, Translator

if TYPE_CHECKING:
    from dgrt import _native


class GenerateFuture(NotCopied, Future[GenerateResult]):
    """The result of a submitted request, to come.

    `cancel` also ends a request that is running (between two passes). Dropping the future does not cancel it; closing
    the runtime does, and `result` then raises `Cancelled`. Callbacks run on a thread of the scheduler: they must not
    wait for other requests.

    Example:
        >>> future = rt.submit("json\\ncolour=red", max_new_tokens=96)
        >>> future.result(timeout=60).text
        '{"colour":"red"}'
    """

    _process = 0
    _request: _native.Request
    _scheduler: Scheduler  # kept alive until somebody has had the result

    def result(self, timeout: float | None = None) -> GenerateResult:
        """Waits for the result and returns it. Raises what the request failed with, or `TimeoutError`."""
        self._require_home()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits for the end of the request and returns what it failed with, or None."""
        self._require_home()
        return super().exception(timeout)

    def _require_home(self) -> None:
        """A child of fork() would wait for ever: the threads that finish requests are in its parent."""
        if not self.done() and os.getpid() != self._process:
            raise InvalidArgument("the request was submitted before fork(): submit another one in the child process")

    def cancel(self) -> bool:
        """Cancels the request. True unless it is done already; `result` then raises `CancelledError`."""
        cancelled = super().cancel()
        if cancelled:
            self._request.cancel()
        return cancelled


class Scheduler:
    """The native scheduler of one runtime, in Python's terms.

    Args:
        runtime: The native runtime.
        max_running: Requests that hold KV memory at once.
        max_queued: Requests that wait beyond those.
    """

    def __init__(self, runtime: _native.Runtime, max_running: int, max_queued: int) -> None:
        open_scheduler = native_module().Scheduler
        self._native: _native.Scheduler | None = open_scheduler(runtime, max_running=max_running, max_queued=max_queued)
        _LIVE.add(self)

    def submit(self, prepared: Prepared, options: _native.Options) -> GenerateFuture:
        """Queues a request and returns its future. Raises what the native `submit` raises."""
        future = GenerateFuture()
        future._process = os.getpid()
        translator = Translator(prepared)

        def on_event(kind: str, value: Any) -> None:
            if kind != "done":
                for _ in translator.events(kind, value):
                    pass
            elif future.set_running_or_notify_cancel():
                if (error := _error(value)) is not None:
                    future.set_exception(error)
                else:
                    *_, done = translator.end(_outcome(prepared, value))
                    assert done.result is not None
                    future.set_result(done.result)

        future._scheduler = self
        future._request = self.start(prepared, options, on_event)
        return future

    def stats(self) -> ServingStats:
        """Returns the counters of queue and lanes."""
        return ServingStats(**self._require_open().stats())

    def close(self) -> None:
        """Cancels everything and waits until it has ended."""
        self._native = None

    def start(self, prepared: Prepared, options: _native.Options, on_event: Any) -> _native.Request:
        """Queues a request whose reports go to `on_event`, which a thread of the scheduler calls."""
        return self._require_open().submit(
            prepared.prompt,
            options,
            on_event,
            want_steps=prepared.want_steps,
            with_soft=prepared.options.trace,
        )

    def _require_open(self) -> _native.Scheduler:
        if self._native is None:
            raise Cancelled("the runtime is closed")
        return self._native


async def event_stream(
    begin: Callable[[], Awaitable[tuple[Scheduler, Prepared, _native.Options]]],
) -> AsyncGenerator[Event, None]:
    """Yields the events of a request. Leaving the iterator early cancels it and waits until it has ended.

    One generator, with none inside: an event loop that ends closes all at once, in any order.

    Args:
        begin: Prepares the request when the iteration begins.

    Raises:
        InvalidArgument: If it is iterated in another event loop than the one that it began in.
    """
    scheduler, prepared, options = await begin()
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[tuple[str, Any]]()
    translator = Translator(prepared)

    def on_event(kind: str, value: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to listen
            loop.call_soon_threadsafe(queue.put_nowait, (kind, value))

    request = _Cancelling(scheduler.start(prepared, options, on_event))
    ended = False
    try:
        while not ended:
            if not _runs_here(loop):
                raise InvalidArgument("a stream belongs to the event loop that it began in; it was iterated in another")
            kind, value = await queue.get()
            ended = kind == "done"
            if not ended:
                for event in translator.events(kind, value):
                    yield event
            elif (error := _error(value)) is not None:
                raise error
            else:
                for event in translator.end(_outcome(prepared, value)):
                    yield event
    finally:
        request.cancel()
        while not ended and _runs_here(loop):  # without its loop nothing can be awaited
            ended = (await asyncio.shield(queue.get()))[0] == "done"


class _Cancelling:
    """Cancels a request when it is dropped: a generator whose loop is closed is freed without its `finally`."""

    def __init__(self, request: _native.Request) -> None:
        self.cancel = request.cancel

    def __del__(self) -> None:
        self.cancel()


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:  # none runs: the generator is being collected
        return False


def _error(value: dict[str, Any]) -> BaseException | None:
    """Why a request has no result; None if it has one. Nobody but `close` cancels one that somebody waits for."""
    if value["error"] is None and value["finish_reason"] == "cancelled":
        return Cancelled("the runtime was closed before the request was done")
    error: BaseException | None = value["error"]
    return error


def _outcome(prepared: Prepared, value: dict[str, Any]) -> Outcome:
    logprobs = value["logprobs"] if prepared.options.logprobs else None
    return Outcome(value["finish_reason"], value["tokens"], logprobs, value["stats"])


# Threads of a scheduler take the GIL for their callbacks: none may be left when the interpreter is gone.
_LIVE: weakref.WeakSet[Scheduler] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for scheduler in list(_LIVE):
        scheduler.close()
