"""One generation on its own thread, seen as an iterator of events.

`Runtime.generate` and `Runtime.stream` both consume this, so that they cannot differ. The native calls run on a
`NativeThread` with the GIL released. On Ctrl-C the session is cancelled, the thread joined, and the interrupt raised.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from dgrt.errors import Cancelled
from dgrt.native_thread import NativeThread, Put
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
        thread = NativeThread("dgrt-generate", partial(_generate, generation), generation.session.cancel)
        self._events = _events(generation, thread)

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


def _generate(generation: Generation, put: Put) -> None:
    """Runs the native session to its end and queues what happens; on the native thread."""
    session, options = generation.session, generation.options
    watch = generation.want_drafts or options.trace
    on_step = (lambda view: put("step", view)) if watch else None
    try:
        session.prefill(generation.prompt)
        while not session.finish_reason:
            tokens = session.next_canvas(on_step, with_soft=options.trace)
            if tokens.size:  # none: cancelled, and the canvas was never committed
                put("commit", tokens)
        put("done", session.finish_reason)
    except Cancelled:
        put("done", "cancelled")


def _events(generation: Generation, thread: NativeThread) -> Generator[Event, None, None]:
    """Translates the queue of the native thread into events; leaving it in any way stops the thread."""
    tokenizer, options = generation.tokenizer, generation.options
    stop_ids = options.stop_ids or ()
    detokenizer = Detokenizer(tokenizer, stop_ids) if tokenizer is not None else None
    trace: list[StepTrace] | None = [] if options.trace else None
    canvas_index = 0
    try:
        thread.start()
        while True:
            kind, value = thread.next()
            if kind == "step":
                if trace is not None:
                    trace.append(StepTrace(**value))
                if generation.want_drafts:
                    yield _draft(value, tokenizer, stop_ids)
            elif kind == "commit":
                text = detokenizer.push(value) if detokenizer is not None else None
                yield Event(kind="commit", canvas_index=canvas_index, tokens=value, text=text)
                canvas_index += 1
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
                logprobs=generation.session.logprobs if options.logprobs else None,
            ),
        )
    finally:
        thread.stop()


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
