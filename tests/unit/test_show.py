"""The drawing of the canvas, on a recorded console."""

from __future__ import annotations

import io
from typing import Any

import models
import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from dgrt import Event, GenerateOptions
from dgrt.cli.show import CanvasView, printable
from dgrt.tokenizer import Tokenizer

STOP = models.SPECIAL["<turn|>"]
OPTIONS = GenerateOptions(stop_ids=(STOP,), max_denoising_steps=8)


def console(height: int = 24, **options: Any) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=40, height=height, **options)


def draft(ids: list[int], settled: list[bool], text: str = "") -> Event:
    return Event(
        kind="draft", canvas_index=0, step=6, tokens=np.array(ids, np.int32), text=text, settled=np.array(settled),
        mean_entropy=0.125,
    )  # fmt: skip


def commit(text: str | None, ids: list[int], origins: list[int] | None = None) -> Event:
    return Event(
        kind="commit", canvas_index=0, tokens=np.array(ids, np.int32), text=text,
        origins=np.array([0] * len(ids) if origins is None else origins, np.uint8),
    )  # fmt: skip


def test_settled_tokens_are_normal_and_unsettled_ones_dim(tokenizer: Tokenizer) -> None:
    view = CanvasView(console(), tokenizer, OPTIONS)
    view.take(draft(tokenizer.encode("abcd"), [True, True, False, True]))
    styles = {str(span.style): view.frame().plain[span.start : span.end] for span in view.frame().spans}
    assert view.frame().plain.startswith("abcd\n") and styles["dim"] == "c"


def test_the_canvas_ends_at_the_first_stop_id(tokenizer: Tokenizer) -> None:
    a, b = tokenizer.encode("ab")
    view = CanvasView(console(), tokenizer, OPTIONS)
    view.take(draft([a, STOP, b], [True, True, True]))
    assert view.frame().plain.split("\n")[0] == "a"


def test_the_status_counts_canvases_and_steps_from_one(tokenizer: Tokenizer) -> None:
    view = CanvasView(console(), tokenizer, OPTIONS)
    view.take(draft(tokenizer.encode("ab"), [True, False]))
    assert view.frame().plain.split("\n")[-1].startswith("canvas 1 · step 3/8 · entropy 0.125 · nothing final yet")


def test_whole_lines_scroll_away_and_the_rest_stays(tokenizer: Tokenizer) -> None:
    view = CanvasView(console(), tokenizer, OPTIONS)
    for text, whole in (("one\ntwo\nthr", ["one", "two"]), ("ee", [])):
        assert [line.plain for line in view.take(commit(text, tokenizer.encode(text)))] == whole
    assert view.unfinished_line().plain == "three"
    assert view.frame().plain.startswith("three\n13 tokens")


def styles(text: Text) -> list[tuple[str, str]]:
    """Pieces of a line with their styles."""
    return [(text.plain[span.start : span.end], str(span.style)) for span in text.spans if span.end > span.start]


def test_drafted_tokens_are_green_and_revised_ones_yellow(tokenizer: Tokenizer) -> None:
    view = CanvasView(console(), tokenizer, OPTIONS)
    (line,) = view.take(commit("abc\nd", tokenizer.encode("abc\nd"), [1, 1, 2, 0, 1]))
    assert styles(line) == [("ab", "bold green"), ("c", "bold yellow")]
    assert styles(view.unfinished_line()) == [("d", "bold green")]
    assert "· 3 drafted, 1 revised" in view.frame().plain.split("\n")[-1]


def test_a_character_whose_bytes_came_from_two_places_is_shown_once_it_is_whole(tokenizer: Tokenizer) -> None:
    first, *rest = tokenizer.encode("€")
    view = CanvasView(console(), tokenizer, OPTIONS)
    view.take(commit("€", [first, *rest], [1, *[2] * len(rest)]))
    assert styles(view.unfinished_line()) == [("€", "bold yellow")]
    view.take(commit("", tokenizer.encode("€")[:1], [1]))
    view.take(commit("\ufffd", []))  # held back until the end
    assert view.unfinished_line().plain == "€·"


def test_without_drafts_nothing_is_said_of_them(tokenizer: Tokenizer) -> None:
    view = CanvasView(console(), tokenizer, OPTIONS)
    view.take(commit("ab", tokenizer.encode("ab")))
    assert styles(view.unfinished_line()) == [("ab", "bold")] and "drafted" not in view.frame().plain


def test_no_color_leaves_the_text(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    for name, environment in (("colour", ""), ("none", "1")):
        monkeypatch.setenv("NO_COLOR", environment)
        screen = console(color_system="standard")
        view = CanvasView(screen, tokenizer, OPTIONS)
        view.take(commit("ab", tokenizer.encode("ab"), [1, 2]))
        screen.print(view.unfinished_line())
        written[name] = screen.file.getvalue()
    assert "32m" in written["colour"] and "33m" in written["colour"]
    assert "32" not in written["none"] and "33" not in written["none"] and "a" in written["none"]


@pytest.mark.parametrize("height", [1, 4, 10])
def test_a_canvas_taller_than_the_terminal_is_cut_and_the_status_stays(tokenizer: Tokenizer, height: int) -> None:
    view = CanvasView(console(height), tokenizer, OPTIONS)
    view.take(draft(tokenizer.encode("x\n" * 50), [True] * 100))
    lines = view.frame().plain.split("\n")
    assert len(lines) <= max(height, 2) and "step 3/8" in lines[-1]


def test_without_a_tokenizer_ids_are_shown() -> None:
    view = CanvasView(console(), None, OPTIONS)
    view.take(draft([5, 6], [True, True]))
    assert view.frame().plain.startswith("5 6")
    view.take(commit(None, [7, 8]))
    assert view.unfinished_line().plain == "7 8 "


def test_text_of_the_model_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[2J\r\x00\x9bb\tc\nd\ufffd") == "a·[2J···b\tc\nd·"
