"""Memory and time as the context grows, on a model of small width with the full 262,144 tokens of context.

    python benchmarks/long_context.py --out benchmarks/results/long-context.json

For each length a fresh process prefills a random prompt and takes a few denoise steps behind it. KV bytes are compared
with the formula: 2 x fp32 x (sum of the widths of full layers) per token, and a window's worth in sliding layers. Time
per prefilled token should grow with the context in full layers only, and so should a denoise step. `--seconds` stops
before the next length if it would take longer than that.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from e2e import workload
from environment import environment

HERE = Path(__file__).resolve().parent
SCENARIO = {
    "name": "long-context",
    "synthetic": {
        "vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 12, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_global_key_value_heads": 1, "head_dim": 16, "global_head_dim": 32,
        "intermediate_size": 128, "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 32,
        "sliding_window": 1024, "canvas_length": 256, "max_position_embeddings": 262144, "seed": 11,
    },
}  # fmt: skip
LENGTHS = (256, 1024, 4096, 8192, 16384, 32768, 65536, 131072, 262144 - 256)
STEPS = 4


def measure(engine: Path, length: int, threads: int) -> dict:
    """Runs one length in this process and returns its row."""
    import numpy as np

    import dgrt

    with dgrt.Runtime(engine, threads=threads, prefix_cache=0) as runtime:  # the memory of one sequence
        rng = np.random.default_rng(length)
        prompt = rng.integers(3, runtime.info.vocab_size, length, dtype=np.int32)
        runtime.generate(prompt[:64], max_new_tokens=1, max_denoising_steps=1)  # opens what is opened once
        before = workload.peak_rss_bytes()
        options = {"max_denoising_steps": STEPS, "confidence_threshold": 1e-30, "stop_ids": ()}
        stats = runtime.generate(prompt, max_new_tokens=1, seed=1, **options).stats
        return {
            "tokens": length, "prefill_s": stats.prefill_ms / 1e3,
            "prefill_us_per_token": 1e3 * stats.prefill_ms / length,
            "denoise_ms_per_step": stats.denoise_ms / stats.denoise_passes, "peak_kv_bytes": stats.peak_kv_bytes,
            "formula_bytes": formula_bytes(runtime.info, length), "layers": len(runtime.info.layers),
            "rss_growth_bytes": workload.peak_rss_bytes() - before,
        }  # fmt: skip


def formula_bytes(info, length: int) -> int:
    """KV bytes of a prompt and the canvas behind it, without rounding to pages.

    A sliding layer holds W - 1 tokens and what is being written: a chunk of the prompt or the canvas, if that is more.
    """
    rows_after = max(min(512, length), info.canvas_len)
    total = 0
    for layer in info.layers:
        rows = length + info.canvas_len
        if layer.type == "sliding":
            rows = min(rows, info.sliding_window - 1 + rows_after)
        total += 2 * 4 * layer.num_kv_heads * layer.head_dim * rows
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", choices=("fused", "portable"), default="fused")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache" / "benchmarks", help="work folder")
    parser.add_argument("--seconds", type=float, default=600, help="longest time for one length (default 600)")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)  # of the child process
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    engine = args.cache / f"long-context-{args.profile}"
    if args.length:
        print(json.dumps(measure(engine, args.length, args.threads)))
        return
    from dgrt_export import export

    here = environment()
    export(workload.checkpoint(SCENARIO, args.cache), engine, precision="fp32", profile=args.profile, force=True)
    rows: list[dict] = []
    for length in LENGTHS:
        if rows and rows[-1]["prefill_s"] * (length / rows[-1]["tokens"]) ** 2 > args.seconds:
            print(f"{length} tokens would take longer than {args.seconds:g} s: left out")
            break
        command = [sys.executable, __file__, "--length", str(length), "--cache", str(args.cache)]
        command += ["--profile", args.profile, "--threads", str(args.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(done.stderr[-2000:])
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        print(
            f"{length:7} tokens: prefill {row['prefill_us_per_token']:7.1f} us/token, denoise "
            f"{row['denoise_ms_per_step']:7.2f} ms/step, KV {row['peak_kv_bytes'] / 2**20:7.1f} MB "
            f"(formula {row['formula_bytes'] / 2**20:7.1f}), RSS +{row['rss_growth_bytes'] / 2**20:.1f} MB",
            flush=True,
        )
    if args.out:
        args.out.write_text(json.dumps({"profile": args.profile, "rows": rows, **here}, indent=1) + "\n")


if __name__ == "__main__":
    main()
