"""`dgrt bench`: a quick measurement of one engine on this machine, over seeded prompts.

Inside the clock: prefill, refinement and commits, as `Stats` counts them. Outside: loading, tokenising, warm-up runs.
The careful benchmarks with baselines and parity are in `benchmarks/`.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgrt.cli.arguments import (
    add_engine,
    add_generation,
    add_runtime,
    generate_options,
    integer,
    readable,
    runtime_keywords,
    utf8_text,
)
from dgrt.cli.demo import PUZZLE
from dgrt.errors import DgrtError
from dgrt.prompts_file import PromptLine, read_prompts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dgrt import GenerateOptions, GenerateResult, Runtime
    from dgrt.prompt import Prompt

GENERAL_PROMPTS = (
    "Why is the sky blue? Answer in two sentences.",
    "Write a JSON object with the keys name, age and city.",
    "List the planets of the solar system in order.",
    "Rewrite in the past tense: The cat sits on the mat and watches the rain.",
    "Write a Python function that returns the n-th Fibonacci number.",
)
# The bundled model knows its own tasks and nothing else.
MINI_PROMPTS = (
    "json\nname=Ana Silva; age=34; active=yes",
    "sudoku 4x4\n..2.\n..14\n4..2\n2..1",
    "sudoku 6x6\n536.21\n1.4..6\n..5.4.\n41.6..\n24...3\n.5.214",
    PUZZLE,
    "edit: rename price to time\nfor price in seed:\n    total = total + price",
)
_MINI = "mini"  # the name that its manifest gives
RANDOM_PROMPT_LEN = 64  # tokens of a prompt for engines without a tokenizer
DEFAULT_MAX_NEW_TOKENS = 256
DEFAULT_RUNS = 5
_METRICS = {
    "denoise_ms_per_step": "denoise pass, ms per step",
    "head_ms_per_step": "vocabulary head, ms per step",
    "steps_per_canvas": "denoise steps per canvas",
    "tokens_per_second": "tokens per second",
    "tokens_per_pass": "tokens per pass",
    "prefill_ms": "prefill, ms",
    "total_ms": "total, ms",
}
_RATES = ("tokens_per_second", "tokens_per_pass")  # more is better: their bad end is the low one
_EPILOG = """\
The built-in prompts are general questions, or for mini, the model that dgrt ships, its tasks. Figures are of what the
model does with a prompt: choose prompts that it can answer. A prompts file is plain text, one prompt per line, or JSON
lines as for 'dgrt distill': objects with prompt (text), messages (role and content) or tokens (ids).

examples:
  dgrt bench engine
  dgrt bench engine --prompts-file prompts.jsonl --runs 10 --threads 2
  dgrt bench engine --json > bench.json
"""


def add_parser(subparsers: Any) -> None:
    """Adds the verb to the parser of `dgrt`."""
    parser = subparsers.add_parser(
        "bench",
        help="measure an engine on this machine",
        description="Measure an engine over seeded prompts, after a warm-up: medians, and the bad end, which is the "
        "95th percentile of times and the 5th of rates. Run i uses prompt i (round robin) and seed SEED + i.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_engine(parser)
    group = parser.add_argument_group("measurement")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--prompt", type=utf8_text, metavar="TEXT", help="measure this prompt instead of the built-in ones"
    )
    either.add_argument("--prompts-file", metavar="FILE", help="prompts, plain text or JSON lines")
    group.add_argument(
        "--runs", type=integer, default=DEFAULT_RUNS, metavar="N", help=f"measured runs (default: {DEFAULT_RUNS})"
    )
    group.add_argument("--warmup", type=integer, default=1, metavar="N", help="runs before the clock (default: 1)")
    group.add_argument("--json", action="store_true", help="print one JSON object")
    add_generation(parser, max_new_tokens=DEFAULT_MAX_NEW_TOKENS)
    add_runtime(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from dgrt import Runtime
    from dgrt.cli import CommandError
    from dgrt.cli.display import progress_line

    if args.runs < 1 or args.warmup < 0:
        raise CommandError("--runs must be at least 1 and --warmup at least 0")
    given = _given_prompts(args)
    options = generate_options(args)
    most_runs = max(args.runs, args.warmup)
    replace(options, seed=options.seed + most_runs - 1)  # the last seed has to be one, too
    with Runtime(args.engine, prefix_cache=0, **runtime_keywords(args)) as runtime:  # prompts come more than once
        for line in given[:most_runs]:  # before the first run, which may take minutes
            _check_prompt(runtime, line, options)
        prompts = [line.content for line in given] or _default_prompts(runtime, args.seed)

        def generate(index: int) -> GenerateResult:
            return runtime.generate(prompts[index % len(prompts)], options, seed=options.seed + index)

        results = []
        with progress_line() as show:
            for index in range(args.warmup):
                show(f"warm-up {index + 1} of {args.warmup}")
                generate(index)
            for index in range(args.runs):
                show(f"run {index + 1} of {args.runs}")
                results.append(generate(index))
        report = _report(args, runtime, results)
    if args.json:
        from dgrt.cli.display import print_json

        print_json(report)
    else:
        _print_text(report)
    return 0


def measure(result: GenerateResult) -> dict[str, float]:
    """Returns the metrics of one run, by the names of the report.

    Example:
        >>> measure(rt.generate("json\\nname=Ana"))["tokens_per_second"] > 0
        True
    """
    stats = result.stats
    return {
        "denoise_ms_per_step": stats.denoise_ms / max(stats.denoise_passes, 1),
        "head_ms_per_step": stats.head_ms / max(sum(stats.steps_per_canvas), 1),
        "steps_per_canvas": sum(stats.steps_per_canvas) / max(stats.canvases, 1),
        "tokens_per_second": stats.tokens_per_second,
        "tokens_per_pass": stats.tokens_per_pass,
        "prefill_ms": stats.prefill_ms,
        "total_ms": stats.total_ms,
    }


def _given_prompts(args: argparse.Namespace) -> list[PromptLine]:
    if args.prompt is not None:
        return [PromptLine(args.prompt, where="--prompt")]
    return [] if args.prompts_file is None else read_prompts(Path(args.prompts_file), plain=True)


def _check_prompt(runtime: Runtime, line: PromptLine, options: GenerateOptions) -> None:
    from dgrt.cli import CommandError

    try:
        runtime.encode(line.content, options)
    except DgrtError as error:
        raise CommandError(f"{line.where}: {error}") from None


def _default_prompts(runtime: Runtime, seed: int) -> list[Prompt]:
    import numpy as np

    if runtime.tokenizer is not None:
        return list(MINI_PROMPTS if runtime.info.name == _MINI else GENERAL_PROMPTS)
    generator = np.random.default_rng(seed)
    size = runtime.info.vocab_size
    return [generator.integers(0, size, RANDOM_PROMPT_LEN, dtype=np.int32) for _ in range(DEFAULT_RUNS)]


def _warnings(results: list[GenerateResult]) -> list[str]:
    """What makes the figures those of a model that cannot answer, rather than of one that does."""
    empty = sum(result.text is not None and not result.text.strip() for result in results)
    cut = sum(result.finish_reason == "length" for result in results)
    advice = "choose prompts that this model can answer with --prompts-file"
    warnings = []
    if empty:
        warnings.append(f"{empty} of {len(results)} answers have no text: {advice}")
    if 2 * cut > len(results):
        warnings.append(f"{cut} of {len(results)} answers ended by length: {advice}, or raise --max-new-tokens")
    return warnings


def _report(args: argparse.Namespace, runtime: Runtime, results: list[GenerateResult]) -> dict[str, Any]:
    import numpy as np

    from dgrt import __version__
    from dgrt.cli.checks import cpu_model

    runs = [
        {"seed": r.options.seed, "tokens": r.stats.tokens, "finish_reason": r.finish_reason, **measure(r)}
        for r in results
    ]
    options = asdict(results[0].options)
    built_in = "built-in" if runtime.tokenizer else "random tokens"
    file = args.prompts_file and readable(args.prompts_file)
    return {
        "engine": readable(args.engine),
        "model": runtime.info.name,
        "precision": runtime.info.precision,
        "profile": runtime.info.profile,
        "execution": runtime.description,
        "dgrt_version": __version__,
        "cpu": cpu_model(),
        "python": platform.python_version(),
        "threads": runtime.threads,
        "prompts": file or args.prompt or built_in,
        "warmup": args.warmup,
        "options": options,
        "summary": {name: _summarise(name, np.array([one[name] for one in runs])) for name in _METRICS},
        "warnings": _warnings(results),
        "runs": runs,
    }


def _summarise(name: str, values: NDArray[Any]) -> dict[str, float]:
    import numpy as np

    percent = 5 if name in _RATES else 95
    return {"median": float(np.median(values)), f"p{percent}": float(np.percentile(values, percent))}


def _print_text(report: dict[str, Any]) -> None:
    from dgrt.cli.display import print_rows, print_title

    print_title(f"{report['model']} ({report['precision']}, {report['profile']}) on {report['cpu']}")
    print_rows([("runs on", f"{report['execution']}, {report['threads']} threads")])
    print_rows([("prompts", f"{report['prompts']}, {len(report['runs'])} runs after {report['warmup']} warm-up")])
    print_title(f"{'':<32}{'median':>10}{'bad end':>10}")
    for name, label in _METRICS.items():
        (_, median), (percentile, bad) = report["summary"][name].items()
        print_rows([(f"{label:<28}", f"{median:>10.2f}{bad:>10.2f} {percentile}")])
    for warning in report["warnings"]:
        print(f"\nwarning: {warning}")
