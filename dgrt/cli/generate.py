"""`dgrt generate`: text or token ids in, text out; optionally the canvas as it settles, JSON, statistics, a trace."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dgrt.cli.arguments import (
    add_engine,
    add_generation,
    add_runtime,
    generate_options,
    readable,
    runtime_keywords,
    token_ids,
    utf8_text,
)

if TYPE_CHECKING:
    from dgrt import GenerateOptions, GenerateResult, Runtime
    from dgrt.prompt import Prompt

_EPILOG = """\
examples:
  ln -s "$(dgrt demo --path)" engine                     mini, the small model that dgrt ships
  printf 'json\\nname=Ana; age=34' > task                its prompts have several lines
  dgrt generate engine < task                            the prompt from stdin
  dgrt generate engine "$(cat task)" --show --seed 7     watch the canvas settle
  dgrt generate engine --json < task                     text, tokens and statistics
  dgrt generate engine --trace steps.npz < task          every denoise step, for analysis
  dgrt generate engine --guarantee causal --drafter suffix --stats < task      token by token, from the causal pass
  dgrt generate engine --guarantee verified --draft '{"name":"Ana","age":34}' < task    start from what you expect
and for a chat model:
  dgrt generate engine "Why is the sky blue?" --system "Answer in French."
  dgrt generate engine --tokens 2,105,228 --json         token ids in, JSON out
"""


def add_parser(subparsers: Any) -> None:
    """Adds the verb to the parser of `dgrt`."""
    parser = subparsers.add_parser(
        "generate",
        help="generate text with an engine",
        description="Generate text. The prompt becomes a user turn of the engine's chat template, unless --raw.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_engine(parser)
    parser.add_argument(
        "prompt", nargs="?", type=utf8_text, metavar="PROMPT", help="the prompt; '-' or nothing: read stdin"
    )
    group = parser.add_argument_group("prompt")
    group.add_argument("--system", type=utf8_text, metavar="TEXT", help="a system turn before the prompt")
    group.add_argument("--raw", action="store_true", help="feed the text as it is, without the chat template")
    group.add_argument("--tokens", type=token_ids, metavar="IDS", help="token ids instead of text, such as 2,105,228")
    group.add_argument("--tokens-file", metavar="FILE", help="a file with token ids ('-': stdin)")
    group.add_argument(
        "--draft", type=utf8_text, metavar="TEXT", help="the output as you expect it (with --guarantee verified)"
    )
    group.add_argument("--draft-file", metavar="FILE", help="a file with that text")
    group = parser.add_argument_group("output")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--show", action="store_true",
        help="animate the canvas while it settles (on a terminal); drafted tokens are green, revised ones yellow",
    )  # fmt: skip
    either.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    group.add_argument("--stats", action="store_true", help="a table of counts and times on stderr")
    group.add_argument(
        "--trace", metavar="FILE",
        help="write every denoise step to FILE, a numpy .npz ('-': to stdout; the text then goes to stderr)",
    )  # fmt: skip
    group.add_argument("--force", action="store_true", help="let --trace replace a file that is no trace")
    add_generation(parser)
    add_runtime(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    _check_usage(args)
    if args.draft_file is not None:
        args.draft = _read_text(args.draft_file).rstrip("\r\n")
    options = generate_options(args, trace=args.trace is not None)
    prompt = _read_prompt(args)
    from dgrt import Runtime

    with Runtime(args.engine, **runtime_keywords(args)) as runtime:
        if args.json:
            result = runtime.generate(prompt, options)
            _print_json(args, result)
        elif args.show and sys.stdout.isatty():
            from dgrt.cli.show import show

            result = show(runtime, prompt, options)
        else:
            result = _print_text(runtime, prompt, options, sys.stderr if args.trace == "-" else sys.stdout)
        if not args.json and result.tokens.size and result.text == "":
            count = f"{result.tokens.size} tokens" if result.tokens.size > 1 else "1 token"
            print(f"note: no text: {count}, all of them special (--json shows them)", file=sys.stderr)
    if args.trace is not None:
        from dgrt.cli.trace_file import write_trace

        write_trace(args.trace, result, overwrite=args.force)
    if args.stats:
        _print_stats(result)
    return 0


def _check_usage(args: argparse.Namespace) -> None:
    from dgrt.cli import CommandError

    given = [args.prompt is not None, args.tokens is not None, args.tokens_file is not None]
    if sum(given) > 1:
        raise CommandError("give one of PROMPT, --tokens and --tokens-file, not several")
    as_tokens = args.tokens is not None or args.tokens_file is not None
    for name in ("raw", "system"):
        if as_tokens and getattr(args, name) not in (None, False):
            raise CommandError(f"--{name} is for text prompts, not for token ids")
    if args.raw and args.system is not None:
        raise CommandError("--system needs the chat template, which --raw leaves out")
    if args.draft is not None and args.draft_file is not None:
        raise CommandError("give one of --draft and --draft-file, not both")
    prompt_from_stdin = args.tokens_file == "-" or (not as_tokens and args.prompt in (None, "-"))
    if args.draft_file == "-" and prompt_from_stdin:
        raise CommandError("stdin cannot be both the prompt and the draft: give one of them as a file or an argument")
    if args.trace is None:
        return
    from dgrt.cli.trace_file import check_trace_path

    if args.trace == "-" and (args.json or args.show):
        raise CommandError("--trace - writes the trace to stdout: give it a file, or leave out --json and --show")
    check_trace_path(args.trace, overwrite=args.force)


def _read_prompt(args: argparse.Namespace) -> Prompt:
    from dgrt.cli import CommandError

    if args.tokens is not None:
        return list(args.tokens)
    if args.tokens_file is not None:
        text = _read_text(args.tokens_file)
        try:
            return token_ids(text)
        except argparse.ArgumentTypeError as error:
            raise CommandError(f"{args.tokens_file}: {error}") from None
    prompt = args.prompt
    if prompt is None and sys.stdin.isatty():
        raise CommandError("no prompt; give PROMPT, pipe it into stdin, or use --tokens")
    if prompt is None or prompt == "-":
        prompt = _read_text("-").rstrip("\r\n")
    if not prompt:
        raise CommandError("the prompt is empty")
    if args.system is not None:
        return [{"role": "system", "content": args.system}, {"role": "user", "content": prompt}]
    return str(prompt)


def _read_text(name: str) -> str:
    from dgrt.cli import CommandError

    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode("utf-8-sig")  # a byte order mark is not part of the text
    except UnicodeDecodeError as error:
        raise CommandError(f"{'stdin' if name == '-' else name} is not UTF-8 text: {error.reason}") from None


def _print_text(runtime: Runtime, prompt: Prompt, options: GenerateOptions, out: IO[str]) -> GenerateResult:
    """Prints each piece as it becomes final; token ids where the engine has no tokenizer."""
    last = ""
    with runtime.stream(prompt, options, drafts=False) as events:
        for event in events:
            if event.result is not None:
                result = event.result
            elif event.tokens is not None:
                piece = event.text if event.text is not None else "".join(f"{i} " for i in event.tokens)
                out.write(piece)
                out.flush()
                last = piece or last
    if not last.endswith("\n"):
        out.write("\n")
    return result


def _print_json(args: argparse.Namespace, result: GenerateResult) -> None:
    from dgrt.cli.display import print_json

    print_json(
        {
            "engine": readable(args.engine),
            "text": result.text,
            "tokens": result.tokens.tolist(),
            "finish_reason": result.finish_reason,
            "seed": result.options.seed,
            "options": asdict(result.options),
            **({"origins": result.origins.tolist()} if _drafts(result.options) else {}),
            **({} if result.logprobs is None else {"logprobs": [round(float(x), 6) for x in result.logprobs]}),
            "stats": result.stats.to_dict(),
        }
    )


def _drafts(options: GenerateOptions) -> bool:
    return options.drafter != "none" or options.draft is not None


def _logprob_rows(result: GenerateResult) -> list[tuple[str, str]]:
    if result.logprobs is None or not result.logprobs.size:
        return []
    mean, least = float(result.logprobs.mean()), int(result.logprobs.argmin())
    worst = f"least {float(result.logprobs[least]):.3f} at token {least}"
    return [("causal pass", f"mean log-probability {mean:.4f} nats, {worst}")]


def _print_stats(result: GenerateResult) -> None:
    from dgrt.cli.display import human_bytes, print_rows

    stats = result.stats
    canvases, passes = [], []
    network = f", {stats.draft_passes} passes of its network" if stats.draft_passes else ""
    if result.options.guarantee != "causal":
        steps = ", ".join(str(count) for count in stats.steps_per_canvas) or "none"
        canvases = [("canvases", f"{stats.canvases} (denoise steps: {steps})")]
        passes = [
            ("denoise", f"{stats.denoise_ms:.1f} ms in {stats.denoise_passes} passes"),
            ("commit", f"{stats.commit_ms:.1f} ms in {stats.commit_passes} passes"),
            ("packed", f"{stats.packed_ms:.1f} ms in {stats.packed_passes} passes, {stats.packed_commits} commits"),
        ]
        if result.options.drafter == "overlap":
            passes.append(("begun ahead", f"{stats.draft_calls} canvases"))
        elif result.options.guarantee == "verified":
            passes[-1:] = [
                ("verify", f"{stats.verify_ms:.1f} ms in {stats.verify_passes} passes"),
                ("drafts", f"{stats.draft_commits} committed, {stats.draft_refines} refined, "
                           f"{stats.draft_discards} discarded; {stats.accepted_drafts} tokens drafted right"),
                ("drafter", f"{stats.draft_ms:.1f} ms in {stats.draft_calls} calls{network}"),
            ]  # fmt: skip
    else:
        drafted = f", {stats.accepted_drafts} tokens drafted right in {stats.draft_calls} calls{network}"
        passes = [
            ("causal", f"{stats.causal_ms:.1f} ms in {stats.causal_passes} passes"),
            ("drafter", f"{stats.draft_ms:.1f} ms{drafted if stats.draft_calls else ''}"),
        ]
    print_rows(
        [
            ("finished by", result.finish_reason),
            ("tokens", f"{stats.tokens} ({stats.tokens_per_second:.1f} per second, prompt {stats.prompt_tokens})"),
            *canvases,
            ("tokens per pass", f"{stats.tokens_per_pass:.2f}"),
            ("prefill", f"{stats.prefill_ms:.1f} ms in {stats.prefill_passes} passes"),
            *passes,
            ("head", f"{stats.head_ms:.1f} ms"),
            *_logprob_rows(result),
            ("total", f"{stats.total_ms:.1f} ms"),
            ("peak KV", human_bytes(stats.peak_kv_bytes)),
        ],
        stderr=True,
        indent=0,
    )
