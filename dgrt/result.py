"""What a generation returns: text, tokens, statistics, trace, and the events of a stream.

Plain frozen dataclasses of numpy arrays and numbers, made by `stream.py` from what the native side reports.
Shapes: L canvas length, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dgrt.options import GenerateOptions

FinishReason = Literal["stop", "length", "cancelled"]
# Where a token came from, in the order of the numbers in `origins`: no draft had a say; it was committed as drafted; a
# draft that was of use had another token there.
ORIGINS = ("undrafted", "drafted", "revised")


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counters of one generation. Counts are exact; times are wall clock.

    Attributes:
        prefill_passes: Engine passes over the prompt.
        denoise_passes: Passes of one denoise step.
        commit_passes: Causal passes over a finished canvas; over the last one only with `logprobs`.
        causal_passes: Passes that emit tokens of the causal distribution (guarantee "causal").
        packed_passes: Passes that hold a denoise step, a commit and a step of the next canvas (0 in the plain loop).
        packed_commits: Commits whose KV rows a packed pass had written; with "exact" each saved two passes.
        verify_passes: Passes that check a draft (guarantee "verified"); the first denoise step of a drafted canvas is
            one of them.
        draft_calls: Drafter calls (0 with drafter "none"); with "overlap" canvases begun beside the one before.
        draft_passes: Passes of the engine's drafter network.
        draft_rows: Token rows of these; `row_tokens` is without them.
        draft_commits: Canvases committed as drafted, after the checks alone.
        draft_refines: Canvases refined from what the checks left of a draft.
        draft_discards: Canvases refined from noise because the checks left too little of a draft.
        accepted_drafts: Drafted positions that were committed unchanged.
        row_tokens: Token rows over all passes.
        canvases: Finished canvases.
        steps_per_canvas: Denoise steps of each canvas, those beside the canvas before included.
        prompt_tokens: Tokens of the prompt.
        prefix_tokens: Of them, those whose KV rows were there already: from the prefix cache, or from the turns of
            a chat before.
        tokens: Emitted tokens, up to and including the first stop id.
        tokens_per_pass: Emitted tokens per target pass after the prompt's, commits included.
        prefill_ms: Engine time of the prompt, ms.
        denoise_ms: Engine time of the denoise passes, ms.
        commit_ms: Engine time of the commit passes, ms.
        causal_ms: Engine time of the causal passes, ms.
        packed_ms: Engine time of the packed passes, ms.
        verify_ms: Engine time of the passes that check a draft, ms.
        head_ms: Vocabulary head, acceptance and renoise, ms.
        draft_ms: Drafter time, ms.
        queued_ms: From `submit` to the start of the request, ms; 0 for `generate` and `stream`, which start at once.
        wait_ms: Time in which other requests had the threads, ms; part of `total_ms`.
        total_ms: From the start of prefill to the last token, ms.
        peak_kv_bytes: Bytes of KV rows held at the longest moment.
    """

    prefill_passes: int
    denoise_passes: int
    commit_passes: int
    causal_passes: int
    packed_passes: int
    packed_commits: int
    verify_passes: int
    draft_calls: int
    draft_passes: int
    draft_rows: int
    draft_commits: int
    draft_refines: int
    draft_discards: int
    accepted_drafts: int
    row_tokens: int
    canvases: int
    steps_per_canvas: tuple[int, ...]
    prompt_tokens: int
    prefix_tokens: int
    tokens: int
    tokens_per_pass: float
    prefill_ms: float
    denoise_ms: float
    commit_ms: float
    causal_ms: float
    packed_ms: float
    verify_ms: float
    head_ms: float
    draft_ms: float
    queued_ms: float
    wait_ms: float
    total_ms: float
    peak_kv_bytes: int

    @classmethod
    def from_native(cls, values: Mapping[str, Any]) -> Stats:
        """Makes a `Stats` from the dictionary of the native session.

        Example:
            >>> Stats.from_native(rt.generate([2], max_new_tokens=8).stats.to_dict()).prompt_tokens
            1
        """
        known = {field.name: values[field.name] for field in fields(cls)}
        return cls(**{**known, "steps_per_canvas": tuple(known["steps_per_canvas"])})

    @property
    def tokens_per_second(self) -> float:
        """Emitted tokens per second of `total_ms`, prompt included; 0 if nothing ran."""
        return 1000.0 * self.tokens / self.total_ms if self.total_ms > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields and `tokens_per_second` as plain Python values, ready for JSON.

        Example:
            >>> rt.generate([2, 5], max_new_tokens=8).stats.to_dict()["prompt_tokens"]
            2
        """
        return {
            **asdict(self),
            "steps_per_canvas": list(self.steps_per_canvas),
            "tokens_per_second": self.tokens_per_second,
        }


@dataclass(frozen=True, kw_only=True)
class ServingStats:
    """What a runtime's queue and lanes have done so far.

    Attributes:
        queued: Requests that wait for their start now.
        running: Requests that were started and are not done.
        finished: Requests that ended by a stop id, their length or the context.
        failed: Requests that ended with an error; a deadline is one.
        cancelled: Requests that were cancelled.
        refused: Requests that `submit` refused because the queue was full.
        planned_kv_bytes: The most KV memory that the running requests can come to take.
        passes: Engine passes of all requests, those of `generate` and `stream` included.
        narrow_passes: Of these, passes on one thread with others beside them.
        busy_thread_ms: Threads times time of all passes, ms.
    """

    queued: int
    running: int
    finished: int
    failed: int
    cancelled: int
    refused: int
    planned_kv_bytes: int
    passes: int
    narrow_passes: int
    busy_thread_ms: float


@dataclass(frozen=True, kw_only=True, eq=False)
class StepTrace:
    """One denoise step in full, so that anyone can check a run without sharing random numbers.

    Attributes:
        canvas_index: Which canvas, from 0.
        step: n of the schedule, counting down from N to 1.
        temperature: T_n.
        kv_len: Committed tokens that the canvas sees.
        canvas_in: Tokens the step started from, [L] int32.
        soft_in: Self-conditioning embedding it was given, [L, D] float32.
        argmax: Most likely tokens, [L] int32.
        entropy: Entropy of the tempered distribution, [L] float32, nats.
        sampled: Sampled tokens, [L] int32.
        accepted: Positions that keep their sampled token, [L] bool.
        canvas_out: Tokens of the next step: sampled where accepted, else fresh noise, [L] int32.
        soft_out: Self-conditioning embedding of the next step, [L, D] float32; None on the last step of a canvas.
        stopped: Whether the stop rule held on this step.
    """

    canvas_index: int
    step: int
    temperature: float
    kv_len: int
    canvas_in: NDArray[np.int32]
    soft_in: NDArray[np.float32]
    argmax: NDArray[np.int32]
    entropy: NDArray[np.float32]
    sampled: NDArray[np.int32]
    accepted: NDArray[np.bool_]
    canvas_out: NDArray[np.int32]
    soft_out: NDArray[np.float32] | None
    stopped: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class GenerateResult:
    """The outcome of one generation.

    Attributes:
        text: The tokens as text without stop ids and special tokens; None if the engine has no tokenizer.
        tokens: Every emitted token, the stop id included, [n] int32.
        prompt_tokens: The prompt as the engine saw it, [m] int32.
        finish_reason: "stop" (a stop id), "length" (max_new_tokens or the context's end) or "cancelled".
        stats: Counters and times.
        options: The options in force, the engine's defaults filled in; names guarantee and drafter.
        trace: One `StepTrace` per denoise step if it was asked for, else None.
        logprobs: Log-probability that the causal pass gives each of `tokens`, given prompt and all tokens before it,
            [n] float32, nats, if it was asked for, else None.
        origins: Where each of `tokens` came from, [n] uint8: 0, no draft had a say; 1, committed as drafted; 2, a draft
            that was of use had another token there.
    """

    text: str | None
    tokens: NDArray[np.int32]
    prompt_tokens: NDArray[np.int32]
    finish_reason: FinishReason
    stats: Stats
    options: GenerateOptions
    origins: NDArray[np.uint8]
    trace: list[StepTrace] | None = None
    logprobs: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Event:
    """One thing that happened during a stream. Fields that do not belong to the kind are None.

    Attributes:
        kind: "draft" (a denoise step finished), "commit" (tokens became final) or "done" (always last).
        canvas_index: draft, commit: which canvas, from 0.
        step: draft: n of the schedule, counting down to 1.
        tokens: draft: the argmax canvas, [L] int32; commit: the newly final tokens, [k] int32.
        text: draft: the canvas as text, up to its first stop id; commit: newly final text, never half a character.
            None if the engine has no tokenizer.
        settled: draft: positions whose token was accepted in this step, [L] bool.
        mean_entropy: draft: mean entropy of the canvas, nats.
        origins: commit: where each of `tokens` came from, as in `GenerateResult.origins`, [k] uint8.
        result: done: what `Runtime.generate` would have returned.
    """

    kind: Literal["draft", "commit", "done"]
    canvas_index: int | None = None
    step: int | None = None
    tokens: NDArray[np.int32] | None = None
    text: str | None = None
    settled: NDArray[np.bool_] | None = None
    mean_entropy: float | None = None
    origins: NDArray[np.uint8] | None = None
    result: GenerateResult | None = None
