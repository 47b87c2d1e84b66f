"""`dgrt demo`: the model that the package ships solves a Sudoku. Needs no checkpoint, no export, no torch."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgrt.cli.arguments import add_runtime, readable, runtime_keywords

if TYPE_CHECKING:
    from dgrt import Event, GenerateResult, Runtime

ENGINE = Path(__file__).resolve().parents[1] / "models" / "mini-engine"
PUZZLE = """\
sudoku 9x9
..9..56.1
.2..7.8.5
.45..1.27
.7.4..5..
3..8172.9
...5.237.
..36.87..
5..123.8.
..6.4.1.."""
_PAUSE_S = 0.4  # between two steps on a terminal: the model is faster than the eye
_MAX_NEW_TOKENS = 192  # two canvases; the answer takes one
_EPILOG = """\
examples:
  dgrt demo
  dgrt demo --json | jq .stats
  printf 'json\\nname=Ana' | dgrt generate "$(dgrt demo --path)"     its engine with a prompt of your own
"""


def add_parser(subparsers: Any) -> None:
    """Adds the verb to the parser of `dgrt`."""
    parser = subparsers.add_parser(
        "demo",
        help="watch the model that dgrt ships solve a Sudoku",
        description="Solves a Sudoku with mini, the small model that dgrt ships as an engine, and says what happened. "
        "On a terminal the steps are shown one by one, slower than they ran.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "engine", nargs="?", metavar="ENGINE", help="another export of mini (default: the one that dgrt ships)"
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--path", action="store_true", help="print the folder of the shipped engine, nothing else")
    either.add_argument("--json", action="store_true", help="print one JSON object")
    add_runtime(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from dgrt import Runtime

    if args.path:
        print(ENGINE)
        return 0
    with Runtime(args.engine or ENGINE, **runtime_keywords(args)) as runtime:
        with runtime.stream(PUZZLE, seed=0, max_new_tokens=_MAX_NEW_TOKENS) as stream:
            events = list(stream)
        result = events[-1].result
        assert result is not None
        if args.json:
            _print_json(runtime, result)
        else:
            _print_text(runtime, events, result, next_commands(args.engine))
    return 0


def next_commands(engine: str | None) -> list[str]:
    """Returns commands for any shell that work with the engine of the demo.

    Args:
        engine: Its folder. None: the shipped one.

    Example:
        >>> next_commands("engines/mini")[-1]
        'dgrt bench engines/mini'
    """
    folder = '"$(dgrt demo --path)"' if engine is None else shlex.quote(engine)
    return [
        rf"printf 'json\nname=Ana Silva; age=34; active=yes' | dgrt generate {folder}",
        f"dgrt inspect {folder}",
        f"dgrt bench {folder}",
    ]


def is_solved(text: str) -> bool:
    """Whether rows, columns and boxes hold the digits 1 to 9, and what the puzzle gave is still there.

    Example:
        >>> is_solved("123456789")
        False
    """
    rows, given = text.split("\n"), PUZZLE.split("\n")[1:]
    if [len(row) for row in rows] != [9] * 9:
        return False
    boxes = ["".join(row[x : x + 3] for row in rows[y : y + 3]) for y in (0, 3, 6) for x in (0, 3, 6)]
    kept = all(there in (".", digit) for there, digit in zip("".join(given), "".join(rows)))
    return kept and all(sorted(group) == list("123456789") for group in [*rows, *map("".join, zip(*rows)), *boxes])


def _print_text(runtime: Runtime, events: list[Event], result: GenerateResult, commands: list[str]) -> None:
    from dgrt.cli.show import draw, summary

    print(f"{PUZZLE}\n", flush=True)
    if sys.stdout.isatty():
        draw(runtime, events, result.options, pause_s=_PAUSE_S)
    else:
        print(result.text)
    verdict = "solved" if is_solved(result.text or "") else "not solved (mini solves nine in ten)"
    threads = runtime.threads
    print(f"\n{verdict}: {summary(result)}, {threads} thread{'s' * (threads != 1)}")
    print("\nnext:", *commands, sep="\n  ")


def _print_json(runtime: Runtime, result: GenerateResult) -> None:
    from dgrt.cli.display import print_json

    print_json(
        {
            "engine": readable(str(runtime.path)),
            "prompt": PUZZLE,
            "text": result.text,
            "solved": is_solved(result.text or ""),
            "finish_reason": result.finish_reason,
            "threads": runtime.threads,
            "stats": result.stats.to_dict(),
        }
    )
