"""Arguments that several verbs share: the engine, runtime options, sampler options. Text to values, nothing more.

Ranges are checked by `GenerateOptions` and `Runtime`, so that Python and the command line refuse the same things.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import fields
from decimal import Decimal
from typing import Any

from dgrt.options import DRAFTERS, GUARANTEES, PIPELINES, GenerateOptions, make_options
from dgrt.plain import named

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Adds the positional ENGINE."""
    parser.add_argument("engine", metavar="ENGINE", help="folder that 'dgrt export' wrote")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `dgrt.Runtime`."""
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--threads", type=integer, metavar="N", help="CPU threads (default: all; never changes a result)"
    )
    group.add_argument("--memory-limit", type=size, metavar="SIZE", help="most KV and workspace memory, such as 2G")
    group.add_argument("--ort-library", metavar="PATH", help="ONNX Runtime library (default: the installed wheel's)")


def add_generation(parser: argparse.ArgumentParser, *, max_new_tokens: int | None = None) -> None:
    """Adds the options of one generation; their destinations are the fields of `GenerateOptions`.

    Args:
        parser: Whose options.
        max_new_tokens: Default of --max-new-tokens.
    """
    most = "until a stop id or the context ends" if max_new_tokens is None else str(max_new_tokens)
    group = parser.add_argument_group("generation")
    group.add_argument("--seed", type=integer, default=0, metavar="N", help="same seed, same tokens (default: 0)")
    group.add_argument(
        "--max-new-tokens", type=integer, default=max_new_tokens, metavar="N", help=f"most tokens (default: {most})"
    )
    group.add_argument(
        "--stop-ids", type=stop_ids, metavar="IDS", help="stop ids, such as 1,106, or 'none' (default: the engine's)"
    )
    group.add_argument(
        "--guarantee", default="exact", metavar="NAME",
        help=f"{', '.join(GUARANTEES)}: tokens of the refinement loop, of the causal pass, or of checked drafts"
        " (default: exact)",
    )  # fmt: skip
    group.add_argument(
        "--drafter", default="none", metavar="NAME",
        help=f"{', '.join(DRAFTERS)}: who proposes tokens; model is the engine's own network, overlap"
        " begins a canvas before the last one is done (default: none)",
    )  # fmt: skip
    group.add_argument(
        "--pipeline", default="auto", metavar="WHEN",
        help=f"{', '.join(PIPELINES)}: compute the commit ahead; changes the speed only (default: auto)",
    )  # fmt: skip
    group.add_argument(
        "--logprobs", action="store_true", help="also score the tokens with the causal pass (in --json and --stats)"
    )
    group.add_argument(
        "--thinking", action=argparse.BooleanOptionalAction,
        help="whether the model shall think first (default: as the chat template has it)",
    )  # fmt: skip
    group.add_argument("--temperature", type=number, metavar="T", help="of --guarantee causal; 0: greedy (default: 1)")
    group = parser.add_argument_group("sampler (defaults: the engine's)")
    group.add_argument("--max-denoising-steps", type=integer, metavar="N", help="most denoise steps per canvas")
    group.add_argument("--entropy-bound", type=number, metavar="NATS", help="entropy that one step may accept")
    group.add_argument("--t-min", type=number, metavar="T", help="temperature at the end of the schedule")
    group.add_argument("--t-max", type=number, metavar="T", help="temperature of the first step")
    group.add_argument("--stability-threshold", type=integer, metavar="N", help="unchanged steps before a stop")
    group.add_argument("--confidence-threshold", type=number, metavar="NATS", help="mean entropy that allows a stop")


def runtime_keywords(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the keywords of `dgrt.Runtime` from parsed arguments."""
    return {"threads": args.threads, "memory_limit": args.memory_limit, "ort_library": args.ort_library}


def generate_options(args: argparse.Namespace, **more: Any) -> GenerateOptions:
    """Returns the generation options from parsed arguments; `more` sets the fields that have no argument."""
    given = {
        f.name: getattr(args, f.name) for f in fields(GenerateOptions) if f.name not in more and hasattr(args, f.name)
    }
    return make_options(None, {**given, **more})


def utf8_text(given: str) -> str:
    """Returns a text argument as UTF-8, whatever the locale takes its bytes for.

    Example:
        >>> utf8_text("Jos\\udcc3\\udca9")  # what a POSIX locale makes of "José"
        'José'
    """
    try:
        given.encode()
        return given
    except UnicodeEncodeError:
        pass
    try:
        return given.encode(sys.getfilesystemencoding(), "surrogateescape").decode("utf-8")
    except UnicodeError:
        raise argparse.ArgumentTypeError("the text is not UTF-8") from None


def readable(path: str) -> str:
    """Returns a path argument for a report: as UTF-8 if it is, else with the bytes that are not as U+FFFD.

    Example:
        >>> readable("engines/Jos\\udcc3\\udca9")
        'engines/José'
    """
    return os.fsencode(path).decode("utf-8", "replace")


def integer(text: str) -> int:
    """Parses an integer; underscores are allowed.

    Example:
        >>> integer("4_096")
        4096
    """
    try:
        return int(text, 10)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{named(text)} is not an integer") from None


def number(text: str) -> float:
    """Parses a number.

    Example:
        >>> number("0.1")
        0.1
    """
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{named(text)} is not a number") from None


def token_ids(text: str) -> list[int]:
    """Parses token ids separated by commas or spaces, brackets allowed.

    Example:
        >>> token_ids("[2, 105,228]")
        [2, 105, 228]
    """
    words = re.split(r"[,\s]+", text.strip().strip("[]").strip(", \t\r\n"))
    ids = []
    for word in words:
        if not re.fullmatch(r"[+-]?[0-9]{1,100}", word):
            raise argparse.ArgumentTypeError(f"{named(word)} is not a token id" if word else "no token ids given")
        ids.append(int(word))
    return ids


def stop_ids(text: str) -> list[int]:
    """Parses token ids, or "none" for no ids at all.

    Example:
        >>> stop_ids("none")
        []
    """
    return [] if text == "none" else token_ids(text)


def size(text: str) -> int:
    """Parses a size in bytes, with K, M, G or T for powers of 1024.

    Example:
        >>> size("1.5G")
        1610612736
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{named(text)} is not a size such as 512M or 2G")
    return int(Decimal(match[1]) * _UNITS[match[2].upper()])
