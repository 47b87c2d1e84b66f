"""One export in a process of its own, so that its peak memory is its own.

    python export_worker.py CHECKPOINT ENGINE '{"threads": 1, "profile": "fused"}'   ->   one JSON line
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.extend(str(Path(__file__).resolve().parents[2] / name) for name in ("benchmarks", "export", ""))
from e2e.workload import peak_rss_bytes


def main() -> None:
    checkpoint, engine, text = sys.argv[1:]
    options = json.loads(text)
    import torch
    from dgrt_export import export

    torch.set_num_threads(options.pop("threads"))
    started = time.perf_counter()
    report = export(checkpoint, engine, **options).to_json()
    seconds = time.perf_counter() - started
    manifest = report.pop("manifest")
    del report["output"]
    print(json.dumps({
        "peak_rss_bytes": peak_rss_bytes(), "total_seconds": round(seconds, 1), **report,
        "experts": manifest["experts"], "parity": manifest["parity"],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
