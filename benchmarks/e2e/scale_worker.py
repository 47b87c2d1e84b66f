"""One engine with the released widths, loaded and run in a process of its own: times per pass, peak memory.

    python scale_worker.py ENGINE '{"threads": 2, "prompt_tokens": 512, "steps": 4, "rounds": 3}'   ->   one JSON line
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np

import dgrt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from e2e.workload import peak_rss_bytes


def memory(name: str) -> dict[str, int]:
    """The numbers of a file of this process in /proc, in bytes."""
    lines = (line.partition(":") for line in Path("/proc/self", name).read_text().splitlines())
    return {key: int(value.split()[0]) * 1024 for key, _, value in lines if value.endswith(" kB")}


class PeakMemory:
    """The most pages of its own that this process has inside the block, weights not among them: every 10 ms a look."""

    def __enter__(self) -> PeakMemory:
        self.own_bytes, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            now = memory("status")
            self.own_bytes = max(self.own_bytes, now["RssAnon"] + now["RssShmem"])


def main() -> None:
    work = json.loads(sys.argv[2])
    started = time.perf_counter()
    runtime = dgrt.Runtime(sys.argv[1], threads=work["threads"], prefix_cache=0)
    load_seconds = time.perf_counter() - started
    prompt = np.random.default_rng(0).integers(0, runtime.info.vocab_size, work["prompt_tokens"])
    # One canvas that may not stop before its last step.
    options = {
        "max_new_tokens": runtime.info.canvas_len, "max_denoising_steps": work["steps"], "stop_ids": (),
        "confidence_threshold": 1e-30,
    }  # fmt: skip
    rows = []
    for seed in range(1 + work["rounds"]):  # the first one reads the weights from disk
        with PeakMemory() as peak:
            stats = runtime.generate(prompt, seed=seed, **options).stats
        rows.append({
            "first_seconds": stats.total_ms / 1e3,
            "prefill_ms": stats.prefill_ms,
            "denoise_ms": stats.denoise_ms / stats.denoise_passes,
            "head_ms": stats.head_ms / stats.denoise_passes,
            "kv_bytes": stats.peak_kv_bytes,
            "own_bytes": peak.own_bytes,
        })  # fmt: skip
    warm = {key: statistics.median(row[key] for row in rows[1:]) for key in rows[0] if key != "first_seconds"}
    print(json.dumps({
        "load_seconds": round(load_seconds, 2), "first_seconds": round(rows[0]["first_seconds"], 2), **warm,
        "weight_bytes": runtime.memory().weight_bytes, "peak_rss_bytes": peak_rss_bytes(),
        "pss_bytes": memory("smaps_rollup")["Pss"],  # pages that are shared or mapped twice count once
    }))  # fmt: skip


if __name__ == "__main__":
    main()
