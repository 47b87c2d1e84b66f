"""The `dgrt` command: the parser, and the one place that turns errors into exit codes.

Each verb is a file with `add_parser(subparsers)` and `run(args) -> int`. Parsers are cheap; a verb imports what it
needs when it runs. Exit codes: 0 done, 1 the verb's own "no" (doctor, export), 2 an error, 130 Ctrl-C. `DGRT_DEBUG=1`
shows tracebacks.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

from dgrt._version import __version__
from dgrt.errors import DgrtError, DgrtWarning, nearest
from dgrt.native_thread import calls_are_running

VERBS = ("demo", "generate", "inspect", "export", "distill", "bench", "doctor")
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
_python_shows_warning = warnings.showwarning
_EPILOG = """\
examples:
  dgrt demo                                 a small model solves a Sudoku
  dgrt export CHECKPOINT -o engine          make an engine package from a checkpoint
  dgrt generate engine "your prompt" --show
  dgrt inspect engine                       model facts, memory plan, files
  dgrt distill engine --data prompts.jsonl -o drafter
  dgrt bench engine                         milliseconds per step, tokens per second
  dgrt doctor                               what this machine has and lacks
"""


class CommandError(Exception):
    """What ends a verb; its text is shown after "error:", and `status` is the exit code."""

    def __init__(self, text: str, status: int = EXIT_ERROR) -> None:
        super().__init__(text)
        self.status = status


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest option where one is misspelled."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Raises CommandError instead of printing usage; `main` prints it."""
        raise CommandError(f"{message} (see '{self.prog} --help')")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Prints help and version; unlike argparse's own, a disk that is full is an error."""
        (file or sys.stderr).write(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parses; a positional that may be left out is also found behind options (argparse: from Python 3.13)."""
        found, rest = super().parse_known_args(args, namespace)
        at = next((index for index, word in enumerate(rest) if word in ("-", "--") or not word.startswith("-")), None)
        left_out = [one for one in self._actions if not one.option_strings and one.nargs == "?"]
        for action in left_out:
            if at is None or rest[at:] == ["--"] or getattr(found, action.dest) is not None:
                continue
            if rest[at] == "--":
                del rest[at]
            try:
                setattr(found, action.dest, self._get_values(action, [rest.pop(at)]))
            except argparse.ArgumentError as error:
                self.error(str(error))
        return found, rest

    def option_names(self) -> list[str]:
        """Returns every option string of this parser."""
        return [name for action in self._actions for name in action.option_strings]


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """Returns the parser of `dgrt` and the parsers of its verbs.

    Example:
        >>> build_parser()[0].prog
        'dgrt'
    """
    parser = Parser(
        prog="dgrt",
        description="Run DiffusionGemma natively: export a checkpoint once, then generate, inspect and measure.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dgrt {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for verb in VERBS:
        try:
            _verb_module(verb).add_parser(subparsers)
        except ImportError as error:  # said when the verb is used, so that the others still work
            subparsers.add_parser(verb, help=f"not available: {error}", add_help=False)
    return parser, dict(subparsers.choices)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
        argv: Arguments without the program's name. None: those of the process.

    Example:
        >>> main(["doctor", "--help"])                              # doctest: +SKIP
        0
    """
    _prepare_streams()
    try:
        if sys.stdout is None:
            raise CommandError("standard output is closed; send it to a file or to /dev/null")
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt as interrupt:
        if argv is None:  # the process is ending: another Ctrl-C must not break into that
            _ignore_interrupts()
        print(", ".join(filter(None, ("interrupted", str(interrupt)))), file=sys.stderr)
        if argv is None and calls_are_running():  # loading cannot be cancelled, and the interpreter would wait for it
            os._exit(EXIT_INTERRUPTED)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `dgrt generate ... | head`
        _drop_output()
        return 1
    except (CommandError, DgrtError, OSError, MemoryError) as error:
        if os.environ.get("DGRT_DEBUG") == "1":
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        if isinstance(error, OSError):
            _drop_output()
        return error.status if isinstance(error, CommandError) else EXIT_ERROR
    except Exception as error:
        if os.environ.get("DGRT_DEBUG") == "1":
            raise
        print(f"error: {type(error).__name__}: {_one_line(error)} (DGRT_DEBUG=1 shows where)", file=sys.stderr)
        return EXIT_ERROR


def _prepare_streams() -> None:
    """Makes sure that stdin and stderr exist and that any text can be printed."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:  # else what is meant for it would go to stdout
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character gets a question mark
            stream.reconfigure(errors="replace")


def _drop_output() -> None:
    """Lets go of what could not be written to stdout, or the end of the interpreter would try it again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Shows a warning of ours as one line without the place in our code; others as Python does."""
    if issubclass(category, DgrtWarning):
        print(f"warning: {message}", file=sys.stderr)
    else:
        _python_shows_warning(message, category, filename, lineno, file, line)


def _run(argv: Sequence[str]) -> int:
    parser, verbs = build_parser()
    if not argv:
        parser.print_help()
        return 0
    first = argv[0]
    if not first.startswith("-") and first not in verbs:
        raise CommandError(f"unknown verb '{first}'{nearest(first, verbs)} (known: {', '.join(verbs)})")
    try:
        args, unknown = parser.parse_known_args(argv)
    except SystemExit as done:  # --help and --version
        sys.stdout.flush()
        return done.code if isinstance(done.code, int) else EXIT_ERROR
    if args.verb is None:
        parser.error(f"unrecognized argument {unknown[0]}" if unknown else "a verb is missing")
    try:
        module = _verb_module(args.verb)
    except ImportError as error:
        raise CommandError(_missing(args.verb, error)) from error
    if unknown:
        chosen = verbs[args.verb]
        hint = nearest(unknown[0].split("=")[0], chosen.option_names()) if unknown[0].startswith("-") else ""
        chosen.error(f"unrecognized argument '{unknown[0]}'{hint}")
    try:
        code: int = module.run(args)
    except ImportError as error:
        raise CommandError(_missing(args.verb, error)) from error
    sys.stdout.flush()
    return code


def _verb_module(verb: str) -> ModuleType:
    return importlib.import_module(f"dgrt.cli.{verb}")


def _ignore_interrupts() -> None:
    while True:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return
        except KeyboardInterrupt:  # one that was waiting to be delivered
            continue


def _missing(verb: str, error: ImportError) -> str:
    return f"dgrt {verb} needs a package that is missing: {error} (see 'dgrt doctor')"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


__all__ = ["CommandError", "Parser", "build_parser", "main"]
