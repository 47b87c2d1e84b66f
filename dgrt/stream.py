"""One generation on its own thread, seen as an iterator of events.

`Runtime.generate` and `Runtime.stream` both consume this, so that they cannot differ. The native calls run on a worker
thread with the GIL released; the caller's thread only waits on a queue, which is why Ctrl-C is answered at once: the
session is cancelled, the worker joined, and the interrupt raised. Errors of the worker are raised in the caller.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from dgrt.errors import Cancelled
from dgrt.options import GenerateOptions
from dgrt.result import Event, FinishReason, GenerateResult, Stats, StepTrace
from dgrt.tokenizer import Detokenizer, Tokenizer

if TYPE_CHECKING:
    from dgrt._native import Session


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What a stream needs to know about one generation; made by `Runtime`."""

    session: Session
    prompt: NDArray[np.int32]
    options: GenerateOptions  # resolved: no None in the sampler fields
    tokenizer: Tokenizer | None
    want_drafts: bool


class EventStream(Iterator[Event]):
    """The events of one running generation; ends after the "done" event.

    Dropping or closing it cancels the generation. One thread at a time, `cancel` from any. Leave it with `with` (or
    `close`) if the loop may end early, so that the worker has stopped when the block ends.

    Example:
        >>> with rt.stream("Hello", max_new_tokens=96) as events:
        ...     for event in events:
        ...         last = event
        >>> last.kind
        'done'
    """

    def __init__(self, generation: Generation) -> None:
        self._session = generation.session
        self._events = _events(generation, _Worker(generation))

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def cancel(self) -> None:
        """Asks the generation to stop after the running denoise step; "done" then says "cancelled"."""
        self._session.cancel()

    def close(self) -> None:
        """Cancels the generation and waits until its thread has ended; no more events come."""
        self._events.close()


class _Worker:
    """Runs the native session to its end on a thread and queues what happens."""

    def __init__(self, generation: Generation) -> None:
        self.queue: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._generation = generation
        self._native_done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dgrt-generate", daemon=True)

    def start(self) -> None:
        _LIVE.add(self)
        self._thread.start()

    def next(self) -> tuple[str, Any]:
        """Waits for the next entry; in turns, so that an interrupt is seen whichever thread its signal reached."""
        while True:
            try:
                return self.queue.get(timeout=_POLL_S)
            except Empty:
                continue

    def stop(self) -> None:
        """Cancels and waits. May be interrupted and called again."""
        self._generation.session.cancel()
        if self._thread.ident is None:  # interrupted before it began
            return
        # Not join() alone: one that Ctrl-C breaks into marks a running thread as ended (CPython 3.11, bpo-45274).
        while not self._native_done.wait(_POLL_S):
            continue
        self._thread.join()

    def _run(self) -> None:
        session, options = self._generation.session, self._generation.options
        watch = self._generation.want_drafts or options.trace
        on_step = (lambda view: self.queue.put(("step", view))) if watch else None
        try:
            session.prefill(self._generation.prompt)
            while not session.finish_reason:
                self.queue.put(("commit", session.next_canvas(on_step, with_soft=options.trace)))
            self.queue.put(("done", session.finish_reason))
        except Cancelled:
            self.queue.put(("done", "cancelled"))
        except BaseException as error:  # whatever it is belongs to the caller's thread
            self.queue.put(("error", error))
        finally:
            self._native_done.set()


def _events(generation: Generation, worker: _Worker) -> Generator[Event, None, None]:
    """Translates the worker's queue into events; leaving it in any way stops the worker."""
    tokenizer, options = generation.tokenizer, generation.options
    stop_ids = options.stop_ids or ()
    detokenizer = Detokenizer(tokenizer, stop_ids) if tokenizer is not None else None
    trace: list[StepTrace] | None = [] if options.trace else None
    canvas_index = 0
    try:
        worker.start()
        while True:
            kind, value = worker.next()
            if kind == "step":
                if trace is not None:
                    trace.append(StepTrace(**value))
                if generation.want_drafts:
                    yield _draft(value, tokenizer, stop_ids)
            elif kind == "commit":
                text = detokenizer.push(value) if detokenizer is not None else None
                yield Event(kind="commit", canvas_index=canvas_index, tokens=value, text=text)
                canvas_index += 1
            elif kind == "error":
                raise value
            else:
                break
        rest = detokenizer.finish() if detokenizer is not None else ""
        if rest:
            yield Event(kind="commit", canvas_index=max(canvas_index - 1, 0), tokens=np.empty(0, np.int32), text=rest)
        yield Event(
            kind="done",
            result=GenerateResult(
                text=detokenizer.text if detokenizer is not None else None,
                tokens=generation.session.tokens,
                prompt_tokens=generation.prompt,
                finish_reason=cast(FinishReason, value),
                stats=Stats.from_native(generation.session.stats()),
                options=options,
                trace=trace,
            ),
        )
    finally:
        worker.stop()


def _draft(view: dict[str, Any], tokenizer: Tokenizer | None, stop_ids: tuple[int, ...]) -> Event:
    canvas = view["argmax"]
    shown = canvas
    stops = np.flatnonzero(np.isin(canvas, stop_ids))
    if stops.size:
        shown = canvas[: stops[0]]
    return Event(
        kind="draft",
        canvas_index=view["canvas_index"],
        step=view["step"],
        tokens=canvas,
        text=tokenizer.decode(shown) if tokenizer is not None else None,
        settled=view["accepted"],
        mean_entropy=float(np.mean(view["entropy"])),
    )


_POLL_S = 0.1
_LIVE: weakref.WeakSet[_Worker] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """A native call must not outlive the interpreter: its return would find no GIL to take."""
    for worker in list(_LIVE):
        worker.stop()
