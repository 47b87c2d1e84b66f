"""`dgrt bench`: a quick measurement of one engine on this machine, over seeded prompts.

Inside the clock: prefill, refinement and commits, as `Stats` counts them. Outside: loading, tokenising, warm-up runs.
The careful benchmarks with baselines and parity are in `benchmarks/`.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgrt.cli.arguments import add_engine, add_generation, add_runtime, generate_options, integer, runtime_keywords

if TYPE_CHECKING:
    from dgrt import EngineInfo, GenerateResult, Runtime
    from dgrt.prompt import Prompt

PROMPTS = (
    "Why is the sky blue? Answer in two sentences.",
    "Write a JSON object with the keys name, age and city.",
    "List the planets of the solar system in order.",
    "Rewrite in the past tense: The cat sits on the mat and watches the rain.",
    "Write a Python function that returns the n-th Fibonacci number.",
)
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
_EPILOG = """\
examples:
  dgrt bench engine
  dgrt bench engine --prompt "Explain TCP." --runs 10 --threads 2
  dgrt bench engine --prompts-file prompts.txt --json > bench.json
"""


def add_parser(subparsers: Any) -> None:
    """Adds the verb to the parser of `dgrt`."""
    parser = subparsers.add_parser(
        "bench",
        help="measure an engine on this machine",
        description="Measure an engine: median and 95th percentile over seeded prompts, after a warm-up. "
        "Run i uses prompt i (round robin) and seed SEED + i.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_engine(parser)
    group = parser.add_argument_group("measurement")
    either = group.add_mutually_exclusive_group()
    either.add_argument("--prompt", metavar="TEXT", help="measure this prompt instead of the built-in ones")
    either.add_argument("--prompts-file", metavar="FILE", help="one prompt per line")
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
    texts = _read_prompts(args)
    options = generate_options(args)
    with Runtime(args.engine, prefix_cache=0, **runtime_keywords(args)) as runtime:  # prompts come more than once
        prompts: list[Prompt] = list(texts) if runtime.tokenizer else _random_prompts(runtime.info, args.seed)

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
        >>> measure(rt.generate("Hi", max_new_tokens=8))["tokens_per_second"] > 0
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


def _read_prompts(args: argparse.Namespace) -> list[str]:
    from dgrt.cli import CommandError

    if args.prompt is not None:
        return [args.prompt]
    if args.prompts_file is None:
        return list(PROMPTS)
    lines = [line for line in Path(args.prompts_file).read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise CommandError(f"{args.prompts_file} holds no prompts")
    return lines


def _random_prompts(info: EngineInfo, seed: int) -> list[Prompt]:
    import numpy as np

    generator = np.random.default_rng(seed)
    return [generator.integers(0, info.vocab_size, RANDOM_PROMPT_LEN, dtype=np.int32) for _ in PROMPTS]


def _report(args: argparse.Namespace, runtime: Runtime, results: list[GenerateResult]) -> dict[str, Any]:
    import numpy as np

    from dgrt import __version__
    from dgrt.cli.checks import cpu_model

    runs = [
        {"seed": r.options.seed, "tokens": r.stats.tokens, "finish_reason": r.finish_reason, **measure(r)}
        for r in results
    ]
    options = asdict(results[0].options)
    return {
        "engine": args.engine,
        "model": runtime.info.name,
        "precision": runtime.info.precision,
        "profile": runtime.info.profile,
        "execution": runtime.description,
        "dgrt_version": __version__,
        "cpu": cpu_model(),
        "python": platform.python_version(),
        "threads": runtime.threads,
        "prompts": args.prompts_file or args.prompt or ("built-in" if runtime.tokenizer else "random tokens"),
        "warmup": args.warmup,
        "options": options,
        "summary": {
            name: {
                "median": float(np.median([one[name] for one in runs])),
                "p95": float(np.percentile([one[name] for one in runs], 95)),
            }
            for name in _METRICS
        },
        "runs": runs,
    }


def _print_text(report: dict[str, Any]) -> None:
    from dgrt.cli.display import print_rows, print_title

    print_title(f"{report['model']} ({report['precision']}, {report['profile']}) on {report['cpu']}")
    print_rows([("runs on", f"{report['execution']}, {report['threads']} threads")])
    print_rows([("prompts", f"{report['prompts']}, {len(report['runs'])} runs after {report['warmup']} warm-up")])
    print_title(f"{'':<32}{'median':>10}{'p95':>10}")
    for name, label in _METRICS.items():
        row = report["summary"][name]
        print_rows([(f"{label:<28}", f"{row['median']:>10.2f}{row['p95']:>10.2f}")])
