"""`dgrt distill`: trains a drafter for an engine; the work is in `dgrt_train.distill`."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from dataclasses import fields
from typing import Any

from dgrt.cli.arguments import add_engine, integer
from dgrt.hints import install_hint

_GOOD_HELD_TOKENS = 4.0  # with fewer, the drafter's own passes cost about what its tokens save
_EPILOG = """\
The data is a file of JSON lines, each with one of prompt (text), messages (role and content) or tokens (ids), and
optionally task, a name that the report groups by. The target writes the answers itself. What takes long is kept in
DRAFTER.work: the same command goes on after an interruption.

examples:
  dgrt distill engine --data prompts.jsonl -o drafter
  dgrt distill engine --data prompts.jsonl -o drafter --layers 3 --steps 8000 --threads 2
  dgrt distill engine --data prompts.jsonl -o better --layers 3 --steps 8000 --start drafter
  dgrt export CHECKPOINT -o engine --drafter drafter --force
  dgrt generate engine "..." --guarantee causal --drafter model
"""


def add_parser(subparsers: Any) -> None:
    """Adds the verb to the parser of `dgrt`."""
    parser = subparsers.add_parser(
        "distill",
        help="train a drafter for an engine",
        description="Trains a block drafter from an engine's own answers: a small network that proposes the next "
        "tokens in one pass, from the engine's KV memory.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_engine(parser)
    parser.add_argument("--data", metavar="FILE", required=True, help="prompts, one JSON object per line")
    parser.add_argument("-o", "--output", metavar="DRAFTER", required=True, help="folder to write")
    for name, text in (
        ("layers", "layers of the drafter (default: one per full layer of the target, at most 5)"),
        ("intermediate-size", "width of its MLPs (default: twice the hidden size)"),
        ("num-heads", "query heads (default: the target's)"),
        ("block-len", "most tokens of a draft (default: the canvas)"),
        ("max-new-tokens", "most tokens of an answer (default: four canvases)"),
        ("steps", "training steps (default: 6000)"),
        ("batch-size", "blocks per step (default: 32)"),
        ("seed", "of the answers and the training (default: 0)"),
        ("threads", "CPU threads (default: all)"),
    ):
        parser.add_argument(f"--{name}", type=integer, metavar="N", help=text)
    parser.add_argument(
        "--start", metavar="DRAFTER", help="go on from the weights of an earlier drafter of the same shape"
    )
    parser.add_argument("--json", action="store_true", help="print settings and held-out figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from dgrt.cli import CommandError
    from dgrt.cli.display import print_json, progress_line

    try:
        from dgrt_export.errors import ExportError
        from dgrt_train.distill.errors import DistillError
        from dgrt_train.distill.run import Settings, distill
    except ImportError as error:
        raise CommandError(f"distill: expected the export extra ({install_hint('export')}), found {error}") from error
    given = {f.name: getattr(args, f.name) for f in fields(Settings) if getattr(args, f.name) is not None}
    stops: list[int] = []
    before = {number: signal.signal(number, lambda n, _: stops.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with progress_line() as show:
            facts = distill(
                args.engine, args.data, args.output, Settings(**given), threads=args.threads,
                progress=_shower(show), stopping=lambda: bool(stops),
            )  # fmt: skip
    except (DistillError, ExportError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(str(error), 1) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{args.output}.work is kept; the same command goes on from there") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if args.json:
        print_json(facts)
    else:
        _summarise(args.output, facts)
    return 0


def _shower(show: Any) -> Any:
    """Progress of every step on a terminal, elsewhere of every hundredth."""
    terminal, last = sys.stderr.isatty(), ""

    def tell(stage: str, done: int, total: int, note: str) -> None:
        nonlocal last
        last = note or (last if stage == "train" else "")
        if terminal or done % 100 == 0 or done == total:
            show(f"{stage} {done} of {total}" + (f", {last}" if last else ""))

    return tell


def _verdict(tasks: dict[str, Any]) -> str:
    """Good or weak, by the tokens of a first draft that hold: the causal tier saves one pass for each of them."""
    drafts = sum(row["drafts"] for row in tasks.values())
    held = sum(row["drafts"] * row["prefix"] for row in tasks.values()) / drafts
    advice = "" if held >= _GOOD_HELD_TOKENS else " (more prompts or --steps, or go on with --start)"
    return f"{'weak' if advice else 'good'}: {held:.1f} tokens of a draft hold on average{advice}"


def _summarise(output: str, facts: dict[str, Any]) -> None:
    found = facts["held_out"]
    print(output)
    for task, row in found["first_draft"].items():
        print(
            f"  {task:<12} {100 * row['recall']:5.1f} % of tokens, {row['prefix']:5.1f} of {row['tokens']:5.1f} before "
            f"the first wrong one, {100 * row['whole']:5.1f} % of drafts right to the end"
        )
    after = found["after_a_denoise_pass"]
    if "recall_unsettled" in after:
        print(f"  behind a denoise pass: {100 * after['recall_unsettled']:.1f} % of what it had not settled")
    print(f"  calibration error {found['calibration']['ece']:.3f}")
    then = f"dgrt export CHECKPOINT -o ENGINE --drafter {shlex.quote(output)} --force"
    print(f"{_verdict(found['first_draft'])}; next: {then}")
