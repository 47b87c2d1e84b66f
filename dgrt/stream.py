"""One generation on its own thread, seen as an iterator of events.

`Runtime.generate` and `Runtime.stream` both consume this, so that they cannot differ. The native calls run on a
`NativeThread` with the GIL released. On Ctrl-C the session is cancelled, the thread joined, and the interrupt raised.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dgrt.errors import Cancelled, InvalidArgument, NotCopied
from dgrt.native_thread import NativeThread, Put
from dgrt.result import Event, GenerateResult
from dgrt.translate import Outcome, Prepared, Translator

if TYPE_CHECKING:
    from dgrt._native import Session


@dataclass(frozen=True, kw_only=True)
class Generation(Prepared):
    """A generation with the session that it runs in; made by `Runtime` and `Chat`."""

    session: Session
    new_tokens: NDArray[np.int32] | None = None  # another turn of the session; None: `prompt` is its first
    on_result: Callable[[GenerateResult], None] | None = None  # called before "done" is seen


@contextmanager
def one_user(lock: threading.Lock, what: str) -> Iterator[None]:
    """Refuses a second thread where one thread at a time is the rule.

    Raises:
        InvalidArgument: If the lock is taken.
    """
    if not lock.acquire(blocking=False):
        raise InvalidArgument(f"the {what} is in use by another thread; one thread at a time may use it")
    try:
        yield
    finally:
        lock.release()


class EventStream(NotCopied, Iterator[Event]):
    """The events of one running generation; ends after the "done" event.

    Dropping or closing it cancels the generation. One thread at a time, a second one is refused; `cancel` from any.
    Leave it with `with` (or `close`) if the loop may end early, so that the worker has stopped when the block ends.

    Example:
        >>> with rt.stream("json\\ncolour=red", max_new_tokens=96) as events:
        ...     for event in events:
        ...         last = event
        >>> last.kind, last.result.text
        ('done', '{"colour":"red"}')
    """

    def __init__(self, generation: Generation) -> None:
        self._thread = NativeThread("dgrt-generate", partial(_generate, generation), generation.session.cancel)
        self._aborted = threading.Event()
        self._events = _events(generation, self._thread, self._aborted)
        self._use = threading.Lock()

    def __next__(self) -> Event:
        with one_user(self._use, "stream"):
            return next(self._events)

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def cancel(self) -> None:
        """Asks the generation to stop after the running denoise step; "done" then says "cancelled"."""
        self._thread.cancel()

    def close(self) -> None:
        """Cancels the generation and waits until its thread has ended; no more events come."""
        with one_user(self._use, "stream"):
            self._events.close()

    def abort(self) -> None:
        """Cancels the generation because its runtime is closed: who waits for an event gets `Cancelled`. Any thread."""
        self._aborted.set()
        self._thread.cancel()


def _generate(generation: Generation, put: Put) -> None:
    """Runs the native session to its end and queues what happens; on the native thread."""
    session, options = generation.session, generation.options
    watch = generation.want_drafts or options.trace
    on_step = (lambda view: put("step", view)) if watch else None
    try:
        if generation.new_tokens is None:
            session.prefill(generation.prompt)
        else:
            session.extend(generation.new_tokens)
        while not session.finish_reason:
            tokens = session.next_canvas(on_step, with_soft=options.trace)
            if tokens.size:  # none: cancelled, and the canvas was never committed
                put("commit", (tokens, session.origins))
        put("done", session.finish_reason)
    except Cancelled:
        put("done", "cancelled")


def _events(
    generation: Generation, thread: NativeThread, aborted: threading.Event
) -> Generator[Event, None, None]:
    """Translates the queue of the native thread into events; leaving it in any way stops the thread."""
    translator, session = Translator(generation), generation.session
    try:
        if not aborted.is_set():
            thread.start()
        while True:
            kind, value = thread.next() if not aborted.is_set() else ("done", "cancelled")
            if kind == "done":
                break
            yield from translator.events(kind, value)
        if aborted.is_set() and value == "cancelled":
            raise Cancelled("the runtime was closed before the generation was done")
        thread.join()  # not cancelled: a chat goes on with the session
        logprobs = session.logprobs if generation.options.logprobs else None
        for event in translator.end(Outcome(value, session.tokens, logprobs, session.stats())):
            if event.result is not None and generation.on_result is not None:
                generation.on_result(event.result)
            yield event
    finally:
        thread.stop()
