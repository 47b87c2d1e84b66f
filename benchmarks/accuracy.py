"""Task accuracy of an engine through the native runtime, on held-out cases with exact checkers.

    python benchmarks/accuracy.py engines/mini --cases 500 --out benchmarks/results/accuracy-mini.json

Every case is generated text only: what `Runtime.generate` returned is given to the checker unchanged. Held-out cases
come from another seed than training. Prints one row per task: exact rate with its 95 % Wilson interval, denoise steps
per canvas, and milliseconds per case.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

from dgrt_train.tasks import edit, json_record, sudoku
from dgrt_train.tasks.case import HELD_OUT_SEED, Case
from environment import environment

import dgrt

TASKS: dict[str, tuple[Callable[[int, int], Case], Callable[[Case, str], bool]]] = {
    "sudoku_4x4": (lambda seed, i: sudoku.generate(seed, i, "4x4"), sudoku.check),
    "sudoku_6x6": (lambda seed, i: sudoku.generate(seed, i, "6x6"), sudoku.check),
    "sudoku_9x9": (lambda seed, i: sudoku.generate(seed, i, "9x9"), sudoku.check),
    "json": (json_record.generate, json_record.check),
    "edit": (edit.generate, edit.check),
}


def wilson(successes: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson score)."""
    z, p = 1.959964, successes / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def measure(runtime: dgrt.Runtime, task: str, cases: int, seed: int) -> dict:
    """Runs one task and returns its row."""
    generate, check = TASKS[task]
    correct, steps, canvases, tokens, failures = 0, 0, 0, 0, []
    start = time.perf_counter()
    for index in range(cases):
        case = generate(seed, index)
        result = runtime.generate(case.prompt, seed=index)
        ok = check(case, result.text)
        correct += ok
        steps += result.stats.denoise_passes
        canvases += result.stats.canvases
        tokens += result.stats.tokens
        if not ok and len(failures) < 5:
            failures.append({"index": index, "expected": case.answer, "found": result.text})
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
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engine", help="engine package folder")
    parser.add_argument("--cases", type=int, default=500, help="held-out cases per task (default 500)")
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), default=list(TASKS))
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="seed of the case generators")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    args = parser.parse_args()
    runtime = dgrt.Runtime(args.engine, threads=args.threads)
    rows = []
    for task in args.tasks:
        row = measure(runtime, task, args.cases, args.seed)
        rows.append(row)
        low, high = row["interval_95"]
        print(
            f"{task:11} {100 * row['rate']:6.2f} %  [{100 * low:.1f}, {100 * high:.1f}]  "
            f"{row['correct']}/{row['cases']}  {row['steps_per_canvas']:.1f} steps/canvas  "
            f"{row['ms_per_case']:.1f} ms/case",
            flush=True,
        )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
        kept = [row for row in before if row["task"] not in args.tasks]  # tasks that were not measured now
        order = list(TASKS)
        rows = sorted(kept + rows, key=lambda row: order.index(row["task"]))
        report = {"engine": runtime.info.name, "seed": args.seed, "rows": rows, **environment()}
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
