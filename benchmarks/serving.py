"""Many requests at once against the same requests one after the other, and what a short request waits among long ones.

    python benchmarks/serving.py engines/mini --out benchmarks/results/serving.json

Per round, in turns: eight prompts of mixed tasks through `generate` one by one, and submitted together. Their tokens
must be equal. Then a stream of requests long enough to hide its ends shows how much of the threads' time is inside
passes (the rest is scheduling). Then seven long requests run while short ones come and go: their latency against the
same requests alone. With --checkpoint also Hugging Face, the same prompts one by one and as one batch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path

from accuracy import TASKS
from dgrt_train.tasks.case import HELD_OUT_SEED
from environment import environment
from results_file import store
from run import best_hf_setting, run_worker

import dgrt

MIXED = ("sudoku_4x4", "sudoku_6x6", "sudoku_9x9", "json", "edit", "json", "edit", "sudoku_9x9")
MAX_NEW_TOKENS = 384
# Goes on for as long as it is let: no canvas is ever confident enough, and nothing stops the text.
LONG = {"max_denoising_steps": 48, "confidence_threshold": 1e-30, "stop_ids": ()}


def prompts(runtime: dgrt.Runtime) -> list:
    """Returns one held-out prompt per place of MIXED, as token ids."""
    return [runtime.encode(TASKS[task][0](HELD_OUT_SEED, index).prompt) for index, task in enumerate(MIXED)]


def throughput(runtime: dgrt.Runtime, rounds: int) -> dict:
    """Returns tokens/s one after the other and together, medians of rounds, and the ratio of each round."""
    work = prompts(runtime)
    alone, together = [], []
    for number in range(1 + rounds):
        start = time.perf_counter()
        expected = [runtime.generate(p, seed=i, max_new_tokens=MAX_NEW_TOKENS) for i, p in enumerate(work)]
        middle = time.perf_counter()
        futures = [runtime.submit(p, seed=i, max_new_tokens=MAX_NEW_TOKENS) for i, p in enumerate(work)]
        found = [future.result() for future in futures]
        end = time.perf_counter()
        if any(a.tokens.tolist() != b.tokens.tolist() for a, b in zip(expected, found, strict=True)):
            sys.exit("a request has other tokens together with others than alone")
        tokens = sum(result.tokens.size for result in expected)
        if number > 0:  # the first opens graphs
            alone.append(tokens / (middle - start))
            together.append(tokens / (end - middle))
    ratios = sorted(b / a for a, b in zip(alone, together, strict=True))
    return {
        "requests": len(work), "rounds": rounds, "alone_tokens_per_s": statistics.median(alone),
        "together_tokens_per_s": statistics.median(together), "ratio": statistics.median(ratios),
        "ratio_low": ratios[0], "ratio_high": ratios[-1],
    }  # fmt: skip


def scheduling(runtime: dgrt.Runtime, repeats: int) -> dict:
    """Returns the share of the threads' time that is spent inside passes while there is always enough to do."""
    work = prompts(runtime)
    before, start = runtime.serving_stats(), time.perf_counter()
    futures = [runtime.submit(p, seed=i, max_new_tokens=MAX_NEW_TOKENS) for i in range(repeats) for p in work]
    for future in futures:
        future.result()
    wall_ms, after = 1e3 * (time.perf_counter() - start), runtime.serving_stats()
    busy = (after.busy_thread_ms - before.busy_thread_ms) / (wall_ms * runtime.threads)
    passes = after.passes - before.passes
    return {
        "passes": passes, "narrow_share": (after.narrow_passes - before.narrow_passes) / passes,
        "busy_share": busy, "overhead_share": 1 - busy,
        "pass_ms": (after.busy_thread_ms - before.busy_thread_ms) / passes,
    }  # fmt: skip


def latency(runtime: dgrt.Runtime, count: int) -> dict:
    """Returns the latency of short requests alone and among seven that never end, ms."""
    short = runtime.encode(TASKS["json"][0](HELD_OUT_SEED, 0).prompt)
    long = runtime.encode(TASKS["edit"][0](HELD_OUT_SEED, 0).prompt)

    def measure() -> list[float]:
        times = []
        for seed in range(count):
            start = time.perf_counter()
            runtime.submit(short, seed=seed).result()
            times.append(1e3 * (time.perf_counter() - start))
        return sorted(times)

    solo = measure()
    stop = threading.Event()

    def keep_busy(number: int) -> None:
        while not stop.is_set():
            future = runtime.submit(long, seed=number, **LONG)
            while not future.done() and not stop.wait(0.01):
                pass
            future.cancel()

    clients = [threading.Thread(target=keep_busy, args=(number,)) for number in range(7)]
    for client in clients:
        client.start()
    while runtime.serving_stats().running < 7:
        time.sleep(0.01)
    time.sleep(1.0)  # until they have been served more than a newcomer
    before = runtime.serving_stats()
    loaded = measure()
    after = runtime.serving_stats()
    stop.set()
    for client in clients:
        client.join()
    tick = (after.busy_thread_ms - before.busy_thread_ms) / max(1, after.passes - before.passes)
    p95 = loaded[int(0.95 * (len(loaded) - 1))]
    return {
        "count": count, "solo_p50_ms": statistics.median(solo), "loaded_p50_ms": statistics.median(loaded),
        "loaded_p95_ms": p95, "tick_ms": tick, "bar_ms": 2 * statistics.median(solo) + tick,
    }  # fmt: skip


def hugging_face(checkpoint: Path, runtime: dgrt.Runtime, rounds: int, threads: int) -> dict:
    """Returns Hugging Face's tokens/s on the same prompts, one by one and as a batch, in its fastest setting."""
    work = {
        "checkpoint": str(checkpoint), "threads": threads, "prompts": [p.tolist() for p in prompts(runtime)],
        "warmup": [], "max_new_tokens": MAX_NEW_TOKENS, "max_denoising_steps": None, "rounds": rounds,
        "canvas_len": runtime.info.canvas_len, "stop_ids": list(runtime.defaults.stop_ids or ()),
    }  # fmt: skip
    setting, _ = best_hf_setting(work)
    output = run_worker("hf_batch_worker.py", {**work, "hf_setting": setting})
    rates = {
        way: statistics.median(r[way]["tokens"] / r[way]["seconds"] for r in output["rounds"])
        for way in ("alone", "batch")
    }
    return {"setting": setting, **{f"{way}_tokens_per_s": rate for way, rate in rates.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engine", help="engine package folder")
    parser.add_argument("--checkpoint", type=Path, help="also measure Hugging Face on this checkpoint")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--short", type=int, default=60, help="short requests of the latency part (default 60)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="write the figures as JSON; rows of other engines in it stay")
    args = parser.parse_args()
    here = environment()
    with dgrt.Runtime(args.engine, threads=args.threads) as runtime:
        report = {
            "engine": runtime.description, "threads": args.threads,
            "throughput": throughput(runtime, args.rounds),
            "scheduling": scheduling(runtime, repeats=6),
            "latency": latency(runtime, args.short),
        }  # fmt: skip
        if args.checkpoint:
            report["hugging_face"] = hugging_face(args.checkpoint, runtime, args.rounds, args.threads)
    print(json.dumps(report, indent=1))
    if args.out:
        store({**report, **here}, args.out, "engine", [])


if __name__ == "__main__":
    main()
