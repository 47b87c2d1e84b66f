"""The event stream over a fake session: order, cancellation, errors, interrupts. No native code."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from typing import Any

import numpy as np
import pytest

from dgrt import Cancelled, EventStream, GenerateOptions, OutOfMemory, Stats
from dgrt.stream import Generation
from dgrt.tokenizer import Tokenizer

STOP = 1
STATS = {field.name: 0 for field in dataclasses.fields(Stats)} | {"steps_per_canvas": [2]}


class FakeSession:
    """Emits the given canvases, two steps each; counts how often it was cancelled and which thread ran it."""

    def __init__(self, canvases: list[list[int]], *, fail_in: str = "", slow: bool = False) -> None:
        self.canvases, self.fail_in, self.slow = list(canvases), fail_in, slow
        self.finish_reason, self.cancelled, self.index = "", threading.Event(), 0
        self.tokens, self.origins = np.empty(0, np.int32), np.empty(0, np.uint8)
        self.running = threading.Event()

    def prefill(self, prompt: Any) -> None:
        if self.fail_in == "prefill":
            raise OutOfMemory("need 2 have 1")
        if self.fail_in == "cancelled prefill":
            raise Cancelled("prefill")

    def next_canvas(self, on_step: Any, *, with_soft: bool) -> np.ndarray:
        canvas = np.array(self.canvases[self.index], np.int32)
        self.running.set()
        for step in (2, 1):
            if self.slow:
                self.cancelled.wait()
            if self.cancelled.is_set():
                self.finish_reason = "cancelled"
                return np.empty(0, np.int32)
            if self.fail_in == "step":
                raise RuntimeError("boom")
            if on_step is not None:
                on_step(self._view(canvas, step, with_soft))
        self.index += 1
        self.tokens = np.concatenate((self.tokens, canvas))
        self.origins = (canvas % 3).astype(np.uint8)
        self.finish_reason = "stop" if STOP in canvas else "length" if self.index == len(self.canvases) else ""
        return canvas

    def _view(self, canvas: np.ndarray, step: int, with_soft: bool) -> dict[str, Any]:
        soft = np.zeros((canvas.size, 2), np.float32) if with_soft else None
        return {
            "canvas_index": self.index, "step": step, "temperature": 0.5, "kv_len": 3, "canvas_in": canvas,
            "soft_in": soft, "argmax": canvas, "entropy": np.full(canvas.size, 0.25, np.float32), "sampled": canvas,
            "accepted": np.ones(canvas.size, bool), "canvas_out": canvas, "soft_out": soft if step > 1 else None,
            "stopped": step == 1,
        }  # fmt: skip

    def cancel(self) -> None:
        self.cancelled.set()

    def stats(self) -> dict[str, Any]:
        return STATS


def start(
    session: FakeSession, tokenizer: Tokenizer | None = None, *, drafts: bool = True, **options: Any
) -> EventStream:
    return EventStream(
        Generation(
            session=session,  # type: ignore[arg-type]
            prompt=np.array([2], np.int32),
            options=GenerateOptions(stop_ids=(STOP,), **options),
            tokenizer=tokenizer,
            want_drafts=drafts,
        )
    )


def live_workers() -> int:
    return sum(thread.name == "dgrt-generate" for thread in threading.enumerate())


def test_commits_say_where_tokens_came_from_and_the_result_has_it_all() -> None:
    *events, done = start(FakeSession([[5, 6], [7, STOP]]), drafts=False)
    assert [event.origins.tolist() for event in events] == [[2, 0], [1, 1]]
    assert done.result is not None and done.result.origins.tolist() == [2, 0, 1, 1]


def test_events_come_as_drafts_then_a_commit_per_canvas_then_done() -> None:
    kinds = [event.kind for event in start(FakeSession([[5, 6], [7, STOP]]))]
    assert kinds == ["draft", "draft", "commit"] * 2 + ["done"]


def test_a_stream_without_drafts_has_only_commits_and_done() -> None:
    assert [event.kind for event in start(FakeSession([[5], [STOP]]), drafts=False)] == ["commit", "commit", "done"]


def test_the_result_carries_tokens_reason_options_and_prompt() -> None:
    result = list(start(FakeSession([[5, STOP]]), seed=9))[-1].result
    assert result is not None
    assert (result.tokens.tolist(), result.finish_reason, result.options.seed) == ([5, STOP], "stop", 9)
    assert (result.prompt_tokens.tolist(), result.text, result.trace) == ([2], None, None)


def test_a_draft_tells_canvas_step_settled_and_mean_entropy() -> None:
    draft = next(start(FakeSession([[5, 6]])))
    assert (draft.canvas_index, draft.step, draft.mean_entropy) == (0, 2, 0.25)
    assert draft.tokens is not None and draft.settled is not None
    assert draft.tokens.tolist() == [5, 6] and draft.settled.all()


def test_the_trace_has_one_entry_per_step_even_without_drafts() -> None:
    result = list(start(FakeSession([[5], [STOP]]), drafts=False, trace=True))[-1].result
    assert result is not None and result.trace is not None
    assert [(t.canvas_index, t.step, t.soft_out is None) for t in result.trace] == [
        (0, 2, False), (0, 1, True), (1, 2, False), (1, 1, True)
    ]  # fmt: skip


def test_commit_texts_join_to_the_result_text_across_canvases(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a€b")
    events = list(start(FakeSession([ids[:2], ids[2:3], [*ids[3:], STOP]]), tokenizer))
    pieces = [event.text for event in events if event.kind == "commit"]
    assert pieces == ["a", "", "€b"]
    assert events[-1].result is not None and events[-1].result.text == "a€b"


def test_text_held_back_to_the_end_comes_in_a_last_commit(tokenizer: Tokenizer) -> None:
    events = list(start(FakeSession([tokenizer.encode("a€")[:2]]), tokenizer, drafts=False))
    assert [(event.kind, event.text) for event in events[:-1]] == [("commit", "a"), ("commit", "\ufffd")]


def test_draft_text_ends_before_the_first_stop_id(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ab")
    draft = next(start(FakeSession([[ids[0], STOP, ids[1]]]), tokenizer))
    assert draft.text == "a"


@pytest.mark.parametrize(("place", "error"), [("prefill", OutOfMemory), ("step", RuntimeError)])
def test_an_error_of_the_worker_is_raised_in_the_caller(place: str, error: type[Exception]) -> None:
    events = start(FakeSession([[5]], fail_in=place))
    with pytest.raises(error):
        list(events)
    assert live_workers() == 0


def test_nothing_runs_before_the_first_event_is_asked_for() -> None:
    session = FakeSession([[5]])
    start(session).close()
    assert not session.running.is_set() and live_workers() == 0


def test_cancel_ends_the_stream_with_a_cancelled_result() -> None:
    session = FakeSession([[5], [6]], slow=True)
    events = start(session)
    threading.Thread(target=lambda: (session.running.wait(), events.cancel())).start()
    *before, done = events
    assert before == []  # the canvas was never committed
    result = done.result
    assert result is not None and result.finish_reason == "cancelled" and result.tokens.size == 0


def test_a_prefill_that_was_cancelled_gives_a_cancelled_result() -> None:
    result = list(start(FakeSession([[5]], fail_in="cancelled prefill")))[-1].result
    assert result is not None and result.finish_reason == "cancelled"


def test_closing_early_cancels_and_joins_the_worker() -> None:
    session = FakeSession([[5]] * 10_000)  # more than it can do before it is closed
    with start(session) as events:
        next(events)
    assert session.cancelled.is_set() and live_workers() == 0
    assert list(events) == []


def test_a_session_whose_generation_has_ended_is_not_cancelled() -> None:
    session = FakeSession([[5]])
    with start(session) as events:
        last = list(events)[-1]
        events.cancel()
    assert last.kind == "done" and not session.cancelled.is_set() and live_workers() == 0


def test_dropping_the_stream_stops_the_worker() -> None:
    session = FakeSession([[5]] * 1000)
    for _ in start(session):
        break
    gc.collect()
    assert session.cancelled.is_set() and live_workers() == 0


def test_an_interrupt_while_waiting_cancels_joins_and_is_raised() -> None:
    import _thread

    session = FakeSession([[5]], slow=True)
    threading.Thread(target=lambda: (session.running.wait(), time.sleep(0.05), _thread.interrupt_main())).start()
    with pytest.raises(KeyboardInterrupt):
        list(start(session))
    assert session.cancelled.is_set() and live_workers() == 0


def test_two_streams_run_side_by_side() -> None:
    first, second = start(FakeSession([[5], [STOP]])), start(FakeSession([[6], [STOP]]))
    pairs = list(zip(first, second, strict=True))
    assert [(a.kind, b.kind) for a, b in pairs][-1] == ("done", "done")
