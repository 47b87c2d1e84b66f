"""From what the native side reports of one generation to events and the result.

The one place that does it: `stream.py` (a session on the caller's behalf) and `serving.py` (a submitted request) both
feed it, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from dgrt.options import GenerateOptions
from dgrt.result import Event, FinishReason, GenerateResult, Stats, StepTrace
from dgrt.tokenizer import Detokenizer, Tokenizer


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A generation that is ready to run; made by `Runtime`."""

    prompt: NDArray[np.int32]
    options: GenerateOptions  # resolved: no None in the sampler fields that its guarantee uses
    tokenizer: Tokenizer | None
    want_drafts: bool

    @property
    def want_steps(self) -> bool:
        """Whether every denoise step has to be reported."""
        return self.want_drafts or self.options.trace


class Outcome(NamedTuple):
    """How the native side says a generation ended."""

    finish_reason: str
    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32] | None
    stats: Mapping[str, Any]


class Translator:
    """One generation's way from native reports to events, in the order in which they come.

    Example:
        >>> prepared = Prepared(
        ...     prompt=rt.encode("Hi"), options=rt.defaults, tokenizer=tokenizer, want_drafts=False
        ... )
        >>> tokens = rt.encode("Hi", raw=True)
        >>> report = tokens, np.zeros(tokens.size, np.uint8)
        >>> [event.text for event in Translator(prepared).events("commit", report)]
        ['Hi']
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._stop_ids = prepared.options.stop_ids or ()
        tokenizer = prepared.tokenizer
        self._detokenizer = Detokenizer(tokenizer, self._stop_ids) if tokenizer is not None else None
        self._trace: list[StepTrace] | None = [] if prepared.options.trace else None
        self._canvas_index = 0
        self._origins: list[NDArray[np.uint8]] = []

    def events(self, kind: str, value: Any) -> Iterator[Event]:
        """Yields what a report of kind "step" (the fields of `StepTrace`) or "commit" (tokens, origins) means."""
        if kind == "step":
            if self._trace is not None:
                self._trace.append(StepTrace(**value))
            if self._prepared.want_drafts:
                yield self._draft(value)
        else:
            tokens, origins = value
            text = self._detokenizer.push(tokens) if self._detokenizer is not None else None
            self._origins.append(origins)
            yield Event(kind="commit", canvas_index=self._canvas_index, tokens=tokens, text=text, origins=origins)
            self._canvas_index += 1

    def end(self, outcome: Outcome) -> Iterator[Event]:
        """Yields the text that was held back, if any, and "done"."""
        rest = self._detokenizer.finish() if self._detokenizer is not None else ""
        if rest:
            last = max(self._canvas_index - 1, 0)
            nothing = np.empty(0, np.int32)
            yield Event(kind="commit", canvas_index=last, tokens=nothing, text=rest, origins=nothing.astype(np.uint8))
        yield Event(
            kind="done",
            result=GenerateResult(
                text=self._detokenizer.text if self._detokenizer is not None else None,
                tokens=outcome.tokens,
                prompt_tokens=self._prepared.prompt,
                finish_reason=cast(FinishReason, outcome.finish_reason),
                stats=Stats.from_native(outcome.stats),
                options=self._prepared.options,
                trace=self._trace,
                logprobs=outcome.logprobs,
                origins=np.concatenate([np.empty(0, np.uint8), *self._origins]),
            ),
        )

    def _draft(self, view: dict[str, Any]) -> Event:
        canvas = view["argmax"]
        shown = canvas
        stops = np.flatnonzero(np.isin(canvas, self._stop_ids))
        if stops.size:
            shown = canvas[: stops[0]]
        tokenizer = self._prepared.tokenizer
        return Event(
            kind="draft",
            canvas_index=view["canvas_index"],
            step=view["step"],
            tokens=canvas,
            text=tokenizer.decode(shown) if tokenizer is not None else None,
            settled=view["accepted"],
            mean_entropy=float(np.mean(view["entropy"])),
        )
