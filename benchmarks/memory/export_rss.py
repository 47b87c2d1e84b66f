"""Peak memory of `dgrt export` on a large synthetic checkpoint: it must not grow with the checkpoint.

Writes a seeded, sharded bf16 checkpoint with the widths of the released model (as many layers as --size-gb asks for),
exports it in a child process and reports the child's VmHWM. Needs no download; deletes what it wrote. Run:

    python benchmarks/memory/export_rss.py --size-gb 8 --out benchmarks/results/export-rss.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.extend(str(Path(__file__).resolve().parents[2] / name) for name in ("benchmarks", "export", ""))
from e2e.released import released_config, run_export, weight_bytes, write_checkpoint
from environment import environment

LIMIT_BYTES = 3_000_000_000  # what an export may use, whatever the size of the checkpoint


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """Generates, exports in a child, and returns the numbers."""
    raw = next(raw for raw in map(released_config, range(2, 31)) if weight_bytes(raw) >= args.size_gb * 1e9)
    started = time.perf_counter()
    size = write_checkpoint(folder / "checkpoint", raw, args.seed)
    written = time.perf_counter() - started
    result = run_export(
        folder / "checkpoint", folder / "engine", threads=args.threads, precision=args.precision, profile="portable"
    )
    layers = raw["text_config"]["num_hidden_layers"]
    return {
        "checkpoint_bytes": size, "layers": layers, "write_seconds": round(written, 1), "precision": args.precision,
        **result, "limit_bytes": LIMIT_BYTES, "within_limit": result["peak_rss_bytes"] < LIMIT_BYTES,
        **environment(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-gb", type=float, default=8.0, help="least size of the checkpoint, 1e9 bytes")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="convert while exporting")
    parser.add_argument("--folder", help="where to write (default: the system's temporary folder)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the parity gate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    parent = Path(args.folder or tempfile.gettempdir())
    needed = args.size_gb * 1e9 * (3.2 if args.precision == "fp32" else 1.2)
    if (free := shutil.disk_usage(parent).free) < needed:
        raise SystemExit(f"error: disk space in {parent}: expected {needed / 1e9:.0f} GB, found {free / 1e9:.0f} GB")
    folder = Path(tempfile.mkdtemp(prefix="export_rss.", dir=parent))
    try:
        result = measure(args, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
