"""Passes and speed of each way to generate per task, on held-out cases of the bundled model.

    python benchmarks/speculation.py engines/mini --cases 100 --out benchmarks/results/speculation.json

The modes take turns on every case, so a slow moment of the machine is shared. Prints, per task and mode: the share of
exact answers, target passes and token rows per case (prefill, denoise, commit, packed and causal passes), tokens/s from
token ids to token ids, and its ratio to the plain refinement loop in the same run. Stops if a mode of the exact tier
emits other tokens than the plain loop.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from accuracy import TASKS
from dgrt_train.tasks.case import HELD_OUT_SEED
from environment import environment

import dgrt

PLAIN = "exact, pipeline off"
MODES = {
    PLAIN: {"pipeline": "off"},
    "exact, pipeline auto": {},
    "exact, pipeline on": {"pipeline": "on"},
    "causal, none": {"guarantee": "causal", "temperature": 0.0},
    "causal, suffix": {"guarantee": "causal", "temperature": 0.0, "drafter": "suffix"},
}


def measure(runtime: dgrt.Runtime, task: str, cases: int) -> list[dict]:
    """Runs one task in every mode and returns a row per mode."""
    generate, check = TASKS[task]
    rows = {
        mode: {"task": task, "mode": mode, "cases": cases, "correct": 0, "tokens": 0, "passes": 0, "row_tokens": 0,
               "seconds": 0.0, "accepted_drafts": 0, "draft_ms": 0.0}
        for mode in MODES
    }  # fmt: skip
    for index in range(cases):
        case = generate(HELD_OUT_SEED, index)
        prompt = runtime.encode(case.prompt)
        for mode, options in MODES.items():
            start = time.perf_counter()
            result = runtime.generate(prompt, seed=index, max_new_tokens=384, **options)
            row, stats = rows[mode], result.stats
            row["seconds"] += time.perf_counter() - start
            if mode == PLAIN:
                expected = result.tokens.tolist()
            elif mode.startswith("exact") and result.tokens.tolist() != expected:
                sys.exit(f"{task} {index}: {mode} emitted other tokens than {PLAIN}")
            row["correct"] += check(case, result.text or "")
            row["tokens"] += stats.tokens
            row["passes"] += stats.prefill_passes + stats.denoise_passes + stats.commit_passes
            row["passes"] += stats.packed_passes + stats.causal_passes
            row["row_tokens"] += stats.row_tokens
            row["accepted_drafts"] += stats.accepted_drafts
            row["draft_ms"] += stats.draft_ms
        if sys.stderr.isatty():
            print(f"{task:11} {index + 1} of {cases}", end="\r", file=sys.stderr, flush=True)
    plain = rows[PLAIN]["tokens"] / rows[PLAIN]["seconds"]
    for row in rows.values():
        row["tokens_per_s"] = row["tokens"] / row["seconds"]
        row["speedup"] = row["tokens_per_s"] / plain
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engine", help="engine package folder")
    parser.add_argument("--cases", type=int, default=100, help="held-out cases per task (default 100)")
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), default=list(TASKS))
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    args = parser.parse_args()
    runtime = dgrt.Runtime(args.engine, threads=args.threads)
    for options in MODES.values():  # loading of graphs and first touch of weights; several canvases, so all graphs
        tokens = 3 * runtime.info.canvas_len
        runtime.generate("json\nname=Ana Silva", max_new_tokens=tokens, stop_ids=(), **options)
    rows = []
    for task in args.tasks:
        for row in measure(runtime, task, args.cases):
            rows.append(row)
            print(
                f"{task:11} {row['mode']:20} {100 * row['correct'] / row['cases']:6.1f} %  "
                f"{row['passes'] / row['cases']:6.1f} passes  {row['row_tokens'] / row['cases']:7.0f} rows  "
                f"{row['tokens_per_s']:7.0f} tokens/s  {row['speedup']:5.2f}x",
                flush=True,
            )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"rows": rows, **environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
