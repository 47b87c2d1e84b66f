"""`dgrt generate --show`: draws the canvas in the terminal while it settles.

Text that is final scrolls up as ordinary lines (what was committed as drafted in green, what a draft had otherwise in
yellow); below it live the unfinished last line, the canvas (settled tokens normal, unsettled dimmed) and a status line.
Only the drawing is here; it reads events and never touches a session.
"""

from __future__ import annotations

import re
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dgrt.cli.display import make_console
from dgrt.result import ORIGINS
from dgrt.tokenizer import Detokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from rich.console import Console
    from rich.text import Text

    from dgrt import Event, GenerateOptions, GenerateResult, Runtime
    from dgrt.prompt import Prompt
    from dgrt.tokenizer import Tokenizer

_FRAME_S = 1 / 30
_SETTLED, _UNSETTLED, _STATUS = "", "dim", "cyan"
_FINAL = ("bold", "bold green", "bold yellow")  # by origin, as in `dgrt.result.ORIGINS`
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]")


def show(runtime: Runtime, prompt: Prompt, options: GenerateOptions) -> GenerateResult:
    """Generates with an animation on stdout, which must be a terminal; leaves the final text, and on stderr one line.

    Args:
        runtime: The engine.
        prompt: As for `Runtime.generate`.
        options: As for `Runtime.generate`.

    Returns:
        The result.

    Example:
        >>> show(rt, "Hello", GenerateOptions())                    # doctest: +SKIP
    """
    from rich.text import Text

    with runtime.stream(prompt, options) as events:
        result = draw(runtime, events, options)
    make_console(stderr=True).print(Text(summary(result), style=_STATUS), soft_wrap=True)
    return result


def summary(result: GenerateResult) -> str:
    """Returns in one line what a generation took.

    Example:
        >>> summary(result)                                         # doctest: +SKIP
        '90 tokens in 3 denoise steps, 1 canvas: 11 ms, 8,285 tokens per second'
    """
    stats = result.stats
    steps, canvases = sum(stats.steps_per_canvas), stats.canvases
    how = f"{stats.causal_passes} causal passes"
    if result.options.guarantee != "causal":
        how = f"{steps} denoise step{'s' * (steps != 1)}, {canvases} canvas{'es' * (canvases != 1)}"
    return f"{stats.tokens} tokens in {how}: {stats.total_ms:.0f} ms, {stats.tokens_per_second:,.0f} tokens per second"


def draw(
    runtime: Runtime, events: Iterable[Event], options: GenerateOptions, *, pause_s: float = 0.0
) -> GenerateResult:
    """Draws events as they come, or recorded ones with a pause after each step; leaves only the final text.

    Args:
        runtime: The engine.
        events: Of one generation, the last one with its result.
        options: Of that generation.
        pause_s: Seconds between two steps. 0: no pause, and steps that come faster than the eye sees are left out.

    Returns:
        The result.

    Example:
        >>> draw(rt, events, GenerateOptions(), pause_s=0.4)        # doctest: +SKIP
    """
    from rich.live import Live

    console = make_console()
    view = CanvasView(console, runtime.tokenizer, options.resolved(runtime.info.generation))
    with Live(console=console, auto_refresh=False, transient=True) as live:
        last_frame = 0.0
        for event in events:
            if event.result is not None:
                break
            for line in view.take(event):
                console.print(line, soft_wrap=True)
            now = time.monotonic()
            if pause_s or event.kind == "commit" or now - last_frame >= _FRAME_S:
                live.update(view.frame(), refresh=True)
                last_frame = now
            if event.kind == "draft":
                time.sleep(pause_s)
    rest = view.unfinished_line()
    if rest.plain:
        console.print(rest, soft_wrap=True)
    assert event.result is not None
    return event.result


class CanvasView:
    """What is on the screen: the unfinished line of final text, the newest draft, and the status.

    Args:
        console: Gives the terminal's size.
        tokenizer: The engine's; None shows token ids.
        options: Resolved options: the number of steps and the stop ids.

    Example:
        >>> view = CanvasView(Console(), None, options)             # doctest: +SKIP
        >>> view.take(event); view.frame()                          # doctest: +SKIP
    """

    def __init__(self, console: Console, tokenizer: Tokenizer | None, options: GenerateOptions) -> None:
        self._console = console
        self._tokenizer = tokenizer
        self._options = options
        self._start = time.monotonic()
        self._pieces: list[tuple[str, str]] = []  # of the unfinished line: text and style
        self._detokenizer = Detokenizer(tokenizer, options.stop_ids or ()) if tokenizer is not None else None
        self._num_tokens = 0
        self._num_by_origin = np.zeros(len(ORIGINS), np.int64)
        self._draft: Event | None = None

    def take(self, event: Event) -> list[Text]:
        """Takes one event and returns the lines of final text that it completed."""
        from rich.text import Text

        if event.kind == "draft":
            self._draft = event
            return []
        assert event.origins is not None
        self._draft = None
        self._num_tokens += event.origins.size
        self._num_by_origin += np.bincount(event.origins, minlength=len(ORIGINS))
        lines = []
        for text, style in self._final(event):
            *ended, rest = printable(text).split("\n")
            for line in ended:
                lines.append(Text.assemble(*self._pieces, (line, style)))
                self._pieces = []
            self._pieces.append((rest, style))
        return lines

    def unfinished_line(self) -> Text:
        """Returns the final text after the last line break."""
        from rich.text import Text

        return Text.assemble(*self._pieces)

    def frame(self) -> Text:
        """Returns the live part of the screen, cut to the terminal's height."""
        from rich.text import Text

        body = self.unfinished_line()
        if self._draft is not None:
            body.append_text(self._canvas(self._draft))
        room = max(self._console.height - 3, 1)
        lines = list(body.wrap(self._console, self._console.width))[:room]
        return Text("\n").join([*lines, Text(self._status(), style=_STATUS)])

    def _canvas(self, draft: Event) -> Text:
        """Renders runs of equally settled tokens, up to the first stop id."""
        from rich.text import Text

        assert draft.tokens is not None and draft.settled is not None
        stops = np.flatnonzero(np.isin(draft.tokens, self._options.stop_ids or ()))
        length = int(stops[0]) if stops.size else draft.tokens.size
        text = Text()
        for begin, end in _runs(draft.settled[:length]):
            style = _SETTLED if draft.settled[begin] else _UNSETTLED
            text.append(self._decode(draft.tokens[begin:end]), style=style)
        return text

    def _final(self, event: Event) -> Iterator[tuple[str, str]]:
        """Yields the text of runs of tokens that came from the same place, with its style."""
        assert event.tokens is not None and event.origins is not None
        if not event.tokens.size:  # text that was held back
            yield event.text or "", _FINAL[0]
        for begin, end in _runs(event.origins):
            run = event.tokens[begin:end]
            text = self._detokenizer.push(run) if self._detokenizer is not None else "".join(f"{i} " for i in run)
            yield text, _FINAL[event.origins[begin]]

    def _decode(self, tokens: np.ndarray) -> str:
        if self._tokenizer is None:
            return "".join(f"{i} " for i in tokens)
        return printable(self._tokenizer.decode(tokens))

    def _status(self) -> str:
        rate = self._num_tokens / max(time.monotonic() - self._start, 1e-9)
        speed = f"{self._num_tokens} tokens · {rate:.0f} tokens/s" if self._num_tokens else "nothing final yet"
        _, drafted, revised = self._num_by_origin
        if drafted or revised:
            speed += f" · {drafted} drafted, {revised} revised"
        draft = self._draft
        if draft is None or draft.step is None or draft.canvas_index is None:
            return speed
        steps = self._options.max_denoising_steps or draft.step
        done = steps - draft.step + 1
        return f"canvas {draft.canvas_index + 1} · step {done}/{steps} · entropy {draft.mean_entropy:.3f} · {speed}"


def _runs(values: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Yields begin and end of each run of equal values."""
    edges = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), values.size]
    yield from ((begin, end) for begin, end in pairwise(edges) if begin < end)


def printable(text: str) -> str:
    """Returns text that cannot move the cursor: control characters and half characters become a dot.

    Example:
        >>> printable("a\\x1b[2Jb")
        'a·[2Jb'
    """
    return _UNPRINTABLE.sub("·", text)
