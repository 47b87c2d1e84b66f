"""How the verbs print: human units, aligned rows, JSON. Colours only on a terminal; lines are never cut."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


_PLAIN_WIDTH = 80  # where the terminal does not say
# A list of numbers spread over lines. JSON strings hold no raw line breaks, so this never matches inside one.
_NUMBERS = re.compile(r"\[\n[-+0-9.eE,\s]+\]")


def make_console(*, stderr: bool = False) -> Console:
    """Returns a console that colours on a terminal and prints plain text elsewhere."""
    from rich.console import Console

    width = _PLAIN_WIDTH if os.environ.get("COLUMNS", "").strip() == "0" else None  # rich would print nothing
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def print_line(*pieces: tuple[str, str], stderr: bool = False) -> None:
    """Prints a line of pieces, each with its style; without styles where 'rich' is not installed.

    Example:
        >>> print_line(("ok", "green"), ("  Python", ""))
        ok  Python
    """
    try:
        from rich.text import Text
    except ImportError:
        print("".join(text for text, _ in pieces), file=sys.stderr if stderr else sys.stdout)
    else:
        make_console(stderr=stderr).print(Text.assemble(*pieces), soft_wrap=True)


def human_bytes(count: int) -> str:
    """Returns bytes in the largest binary unit that keeps the number at 1 or above.

    Example:
        >>> human_bytes(1_572_864)
        '1.5 MiB'
    """
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def parity_text(parity: Mapping[str, Any], prefix: str = "") -> str:
    """Returns what the exporter's gate found, on one line; `prefix` of the figures: "" or "drafter_".

    Example:
        >>> parity_text({"max_abs_error": 0.035, "max_rel_error": 0.0081, "limit": 0.02})
        '3.5e-02 absolute, 8.1e-03 of the largest value, limit 2.0e-02: passed'
    """
    error, share, limit = (parity[f"{prefix}{key}"] for key in ("max_abs_error", "max_rel_error", "limit"))
    verdict = "passed" if share <= limit else "failed"
    return f"{error:.1e} absolute, {share:.1e} of the largest value, limit {limit:.1e}: {verdict}"


def print_title(title: str, *, stderr: bool = False) -> None:
    """Prints a section's title."""
    print_line((title, "bold"), stderr=stderr)


def print_rows(rows: Iterable[tuple[str, str]], *, stderr: bool = False, indent: int = 2) -> None:
    """Prints `label  value` lines with the values aligned."""
    rows = list(rows)
    width = max((len(label) for label, _ in rows), default=0)
    for label, value in rows:
        print_line((" " * indent, ""), (label.ljust(width), "dim"), (f"  {value}", ""), stderr=stderr)


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """Gives a function that says on stderr what is going on: one line that comes and goes at a terminal, else lines.

    Example:
        >>> with progress_line() as show:
        ...     show("run 1 of 5")
    """
    terminal = sys.stderr.isatty()

    def show(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}" if terminal else f"{text}\n")
        sys.stderr.flush()

    try:
        yield show
    finally:
        if terminal:
            show("")


def print_json(value: Any) -> None:
    """Prints one JSON document on stdout, indented, with lists of numbers on one line.

    Where stdout is not UTF-8, characters beyond ASCII are escaped: the document is the same in every locale.
    """
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") in ("utf8", "utf8sig")
    text = json.dumps(value, ensure_ascii=not is_utf8, indent=2)
    sys.stdout.write(_NUMBERS.sub(lambda found: " ".join(found[0].split()), text) + "\n")
