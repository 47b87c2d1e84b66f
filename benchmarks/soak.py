"""Many clients at once for many minutes: every answer is right, memory stays flat, nothing is left behind.

    python benchmarks/soak.py engines/mini --clients 64 --minutes 10 --out benchmarks/results/soak.json

Each client keeps asking: submitted requests, calls of `generate`, streams left early, requests that are cancelled or
given too little time, more than the queue takes. Answers are compared with those of the same requests alone. Resident
memory is read after a warm-up and at the end. Stops with exit code 1 at the first wrong answer, unexpected error, or if
a client does not come to an end.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

from accuracy import TASKS
from dgrt_train.tasks.case import HELD_OUT_SEED
from environment import environment

import dgrt
from dgrt import _native

OPTIONS = {"max_denoising_steps": 2, "max_new_tokens": 96}


def rss_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Client:
    """One client's loop; counts what happened to its requests."""

    def __init__(self, number: int, runtime: dgrt.Runtime, work: list, stop: threading.Event) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.problem = ""
        self._runtime, self._work, self._stop, self._rng = runtime, work, stop, random.Random(number)
        self.thread = threading.Thread(target=self._run, name=f"client-{number}", daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set() and not self.problem:
            try:
                self.counts[self._ask()] += 1
            except (dgrt.QueueFull, dgrt.DeadlineExceeded, CancelledError) as error:
                self.counts[type(error).__name__] += 1
                time.sleep(0.001)
            except Exception as error:
                self.problem = f"{type(error).__name__}: {error}"

    def _ask(self) -> str:
        prompt, seed, expected = self._rng.choice(self._work)
        way = self._rng.choice(("submit", "submit", "submit", "generate", "stream", "cancel", "deadline"))
        if way == "stream":
            with self._runtime.stream(prompt, seed=seed, **OPTIONS) as events:
                next(events)
            return way
        if way == "generate":
            result = self._runtime.generate(prompt, seed=seed, **OPTIONS)
        else:
            limit = {"deadline_s": 0.02} if way == "deadline" else {}
            future = self._runtime.submit(prompt, seed=seed, **limit, **OPTIONS)
            if way == "cancel":
                future.cancel()
            result = future.result(timeout=300)
        if result.tokens.tolist() != expected:
            self.problem = f"{way}, seed {seed}: other tokens than alone"
        return way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engine", help="engine package folder")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    here = environment()
    with dgrt.Runtime(args.engine, threads=args.threads, max_running=8, max_queued=32) as runtime:
        prompts = [runtime.encode(TASKS[task][0](HELD_OUT_SEED, 0).prompt) for task in ("json", "sudoku_4x4", "edit")]
        work = [
            (prompt, seed, runtime.generate(prompt, seed=seed, **OPTIONS).tokens.tolist())
            for prompt in prompts
            for seed in range(4)
        ]
        stop = threading.Event()
        clients = [Client(number, runtime, work, stop) for number in range(args.clients)]
        for client in clients:
            client.thread.start()
        start, warm = time.monotonic(), 0
        while (elapsed := time.monotonic() - start) < 60 * args.minutes and not any(c.problem for c in clients):
            time.sleep(0.5)
            if not warm and elapsed > 60 * min(1.0, 0.2 * args.minutes):
                warm = rss_bytes()
        stop.set()
        for client in clients:
            client.thread.join(timeout=120)
        after = rss_bytes()
        counts = sum((client.counts for client in clients), collections.Counter())
        problems = [c.problem for c in clients if c.problem] + [c.thread.name for c in clients if c.thread.is_alive()]
        serving = runtime.serving_stats()
    report = {
        "clients": args.clients, "minutes": args.minutes, "requests": sum(counts.values()), "counts": dict(counts),
        "rss_warm_bytes": warm, "rss_end_bytes": after, "left_running": serving.running + serving.queued,
        "live_handles": _native.live_handles(), "problems": problems,
    }  # fmt: skip
    print(json.dumps(report, indent=1))
    if args.out:
        args.out.write_text(json.dumps({**report, **here}, indent=1) + "\n")
    if problems or report["left_running"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
