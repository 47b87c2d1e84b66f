"""`dgrt generate --show`: draws the canvas in the terminal while it settles.

Text that is final scrolls up as ordinary lines; below it live the unfinished last line, the canvas (settled tokens
normal, unsettled dimmed) and a status line. Only the drawing is here; it reads events and never touches a session.
"""

from __future__ import annotations

import re
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dgrt.cli.display import make_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from dgrt import Event, GenerateOptions, GenerateResult, Runtime
    from dgrt.prompt import Prompt
    from dgrt.tokenizer import Tokenizer

_FRAME_S = 1 / 30
_FINAL, _SETTLED, _UNSETTLED, _STATUS = "bold", "", "dim", "cyan"
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]")


def show(runtime: Runtime, prompt: Prompt, options: GenerateOptions) -> GenerateResult:
    """Generates with an animation on stdout, which must be a terminal; leaves only the final text.

    Args:
        runtime: The engine.
        prompt: As for `Runtime.generate`.
        options: As for `Runtime.generate`.

    Returns:
        The result.

    Example:
        >>> show(rt, "Hello", GenerateOptions())                    # doctest: +SKIP
    """
    from rich.live import Live

    console = make_console()
    view = CanvasView(console, runtime.tokenizer, options.resolved(runtime.info.generation))
    with (
        runtime.stream(prompt, options) as events,
        Live(console=console, auto_refresh=False, transient=True) as live,
    ):
        last_frame = 0.0
        for event in events:
            if event.result is not None:
                break
            for line in view.take(event):
                console.print(line, soft_wrap=True)
            now = time.monotonic()
            if event.kind == "commit" or now - last_frame >= _FRAME_S:
                live.update(view.frame(), refresh=True)
                last_frame = now
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
        self._unfinished = ""
        self._num_tokens = 0
        self._draft: Event | None = None

    def take(self, event: Event) -> list[Text]:
        """Takes one event and returns the lines of final text that it completed."""
        from rich.text import Text

        if event.kind == "draft":
            self._draft = event
            return []
        assert event.tokens is not None
        self._draft = None
        self._num_tokens += event.tokens.size
        text = event.text if event.text is not None else "".join(f"{i} " for i in event.tokens)
        *lines, self._unfinished = (self._unfinished + printable(text)).split("\n")
        return [Text(line, style=_FINAL) for line in lines]

    def unfinished_line(self) -> Text:
        """Returns the final text after the last line break."""
        from rich.text import Text

        return Text(self._unfinished, style=_FINAL)

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
        settled = draft.settled[:length]
        edges = [0, *(np.flatnonzero(settled[1:] != settled[:-1]) + 1).tolist(), length]
        text = Text()
        for begin, end in pairwise(edges):
            if begin < end:
                text.append(self._decode(draft.tokens[begin:end]), style=_SETTLED if settled[begin] else _UNSETTLED)
        return text

    def _decode(self, tokens: np.ndarray) -> str:
        if self._tokenizer is None:
            return "".join(f"{i} " for i in tokens)
        return printable(self._tokenizer.decode(tokens))

    def _status(self) -> str:
        rate = self._num_tokens / max(time.monotonic() - self._start, 1e-9)
        speed = f"{rate:.0f} tokens/s" if self._num_tokens else "… tokens/s"
        draft = self._draft
        if draft is None or draft.step is None or draft.canvas_index is None:
            return f"{self._num_tokens} tokens · {speed}"
        steps = self._options.max_denoising_steps or draft.step
        done = steps - draft.step + 1
        return (
            f"canvas {draft.canvas_index + 1} · step {done}/{steps} · entropy {draft.mean_entropy:.3f} · "
            f"{self._num_tokens} tokens · {speed}"
        )


def printable(text: str) -> str:
    """Returns text that cannot move the cursor: control characters and half characters become a dot.

    Example:
        >>> printable("a\\x1b[2Jb")
        'a·[2Jb'
    """
    return _UNPRINTABLE.sub("·", text)
