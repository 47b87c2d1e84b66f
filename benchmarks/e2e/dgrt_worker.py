"""The other side of the comparison: dgrt on an exported engine, in a process of its own.

    python dgrt_worker.py WORKLOAD.json   ->   one JSON line: per-prompt times and steps, peak RSS

The clock holds `Runtime.generate`, token ids in, token ids out, as on the other side. Time per step is what is left of
it without the engine passes of prompt and commits, which are the other side's encoder passes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import dgrt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from e2e import workload


def main() -> None:
    work = workload.load(Path(sys.argv[1]))
    runtime = dgrt.Runtime(work["engine"], threads=work["threads"], prefix_cache=0)  # a prompt comes twice
    options = {"max_new_tokens": work["max_new_tokens"]}
    if work["max_denoising_steps"]:
        options["max_denoising_steps"] = work["max_denoising_steps"]
    rows = []
    for number, ids in enumerate(work["warmup"] + work["prompts"]):
        start = time.perf_counter()
        stats = runtime.generate(ids, seed=number, **options).stats
        total_ms = 1e3 * (time.perf_counter() - start)
        steps = sum(stats.steps_per_canvas)
        rows.append({
            "total_ms": total_ms, "steps": steps, "canvases": stats.canvases, "tokens": stats.tokens,
            "ms_per_step": (total_ms - stats.prefill_ms - stats.commit_ms) / steps,
            "ms_per_pass": stats.denoise_ms / steps, "encoder_ms": stats.prefill_ms + stats.commit_ms,
        })
    print(json.dumps({"rows": rows[len(work["warmup"]):], "peak_rss_bytes": workload.peak_rss_bytes()}))


if __name__ == "__main__":
    main()
