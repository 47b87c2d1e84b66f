"""Task accuracy of an engine through the native runtime, on held-out cases with exact checkers.

    python benchmarks/accuracy.py engines/mini --cases 500 --out benchmarks/results/accuracy-mini.json
    python benchmarks/accuracy.py engines/mini-bf16 engines/mini-int8 engines/mini-int4 --per-precision --cases 500 \
        --out benchmarks/results/accuracy-precision.json

Every case is generated text only: what `Runtime.generate` returned is given to the checker unchanged. Held-out cases
come from another seed than training. Prints one row per task: exact rate with its 95 % Wilson interval, denoise steps
per canvas, and milliseconds per case. Each row is written as soon as its task is done, with the weights, seed,
environment and command it comes from; rows of tasks that were not measured now stay as they are. With --per-precision a
file has a row for each precision and task.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dgrt_train.tasks import edit, json_record, sudoku
from dgrt_train.tasks.case import HELD_OUT_SEED, Case
from environment import environment
from results_file import store

import dgrt

TASKS: dict[str, tuple[Callable[[int, int], Case], Callable[[Case, str], bool]]] = {
    "sudoku_4x4": (lambda seed, i: sudoku.generate(seed, i, "4x4"), sudoku.check),
    "sudoku_6x6": (lambda seed, i: sudoku.generate(seed, i, "6x6"), sudoku.check),
    "sudoku_9x9": (lambda seed, i: sudoku.generate(seed, i, "9x9"), sudoku.check),
    "json": (json_record.generate, json_record.check),
    "edit": (edit.generate, edit.check),
}
PRECISIONS = ("fp32", "bf16", "int8", "int4")


def wilson(successes: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson score)."""
    z, p = 1.959964, successes / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def measure(runtime: dgrt.Runtime, task: str, cases: int, seed: int) -> dict:
    """Runs one task and returns its row. Progress goes to stderr if that is a terminal."""
    generate, check = TASKS[task]
    correct, steps, canvases, tokens, failures = 0, 0, 0, 0, []
    start = time.perf_counter()
    for index in range(cases):
        case = generate(seed, index)
        result = runtime.generate(case.prompt, seed=index)
        ok = check(case, result.text)
        correct += ok
        steps += sum(result.stats.steps_per_canvas)
        canvases += result.stats.canvases
        tokens += result.stats.tokens
        if not ok and len(failures) < 5:
            failures.append({"index": index, "expected": case.answer, "found": result.text})
        if sys.stderr.isatty():
            end = "\r" if index + 1 < cases else "\r\x1b[K"
            print(f"{task:11} {correct}/{index + 1} of {cases}", end=end, file=sys.stderr, flush=True)
    low, high = wilson(correct, cases)
    return {
        "task": task,
        "cases": cases,
        "correct": correct,
        "rate": correct / cases,
        "interval_95": [low, high],
        "steps_per_canvas": steps / canvases,
        "canvases_per_case": canvases / cases,
        "tokens_per_case": tokens / cases,
        "ms_per_case": 1e3 * (time.perf_counter() - start) / cases,
        "failures": failures,
        "engine": runtime.info.name,
        "profile": runtime.info.profile,
        "precision": runtime.info.precision,
        "precision_task": f"{runtime.info.precision} {task}",
        "weight_bytes": sum(runtime.info.files[name] for name in runtime.info.weight_files),
        "weights_sha256": {name: runtime.info.manifest["files"][name]["sha256"] for name in runtime.info.weight_files},
        "seed": seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engines", metavar="engine", nargs="+", help="engine package folder")
    parser.add_argument("--cases", type=int, default=500, help="held-out cases per task (default 500)")
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), default=list(TASKS))
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="seed of the case generators")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--per-precision", action="store_true", help="rows are of a precision and a task")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    args = parser.parse_args()
    if len(args.engines) > 1 and not args.per_precision:
        parser.error("several engines: expected --per-precision, or their rows would replace each other")
    runtimes = [dgrt.Runtime(engine, threads=args.threads) for engine in args.engines]
    key, order = "task", list(TASKS)
    if args.per_precision:
        key, order = "precision_task", [f"{precision} {task}" for precision in PRECISIONS for task in TASKS]
    here = environment()  # once: a results file that is being written makes the tree dirty
    for runtime, task in itertools.product(runtimes, args.tasks):
        row = {**measure(runtime, task, args.cases, args.seed), **here}
        if args.out:
            store(row, args.out, key, order)
        low, high = row["interval_95"]
        print(
            f"{runtime.info.precision:5} {task:11} {100 * row['rate']:6.2f} %  [{100 * low:.1f}, {100 * high:.1f}]  "
            f"{row['correct']}/{row['cases']}  {row['steps_per_canvas']:.1f} steps/canvas  "
            f"{row['ms_per_case']:.1f} ms/case",
            flush=True,
        )


if __name__ == "__main__":
    main()
