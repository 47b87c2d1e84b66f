"""Engines with the released model's widths on this machine: what an export and a step cost, in time and memory.

    python benchmarks/scale.py --layers 6 --precision bf16 int4 --out benchmarks/results/scale.json
    python benchmarks/scale.py --layers 30 --precision int4 --rounds 1 --out benchmarks/results/scale.json

Writes a seeded synthetic bf16 checkpoint (kept in --cache for the next precision, deleted with --clean), exports it in
the `fused` profile and generates one canvas, each in a process of its own. Products and bytes per second are those of a
denoise pass to hidden states, beside what PyTorch reaches on the same machine in the same minute: a large fp32 and bf16
matrix product, a sum over 1 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from e2e.released import released_config, run_export, weight_bytes, write_checkpoint
from environment import environment
from results_file import store

HERE = Path(__file__).resolve().parent
PRECISIONS = ("bf16", "int8", "int4")
ENGINE_SIZE = {"bf16": 0.01, "int8": 0.6, "int4": 0.4}  # of the checkpoint's, at most; bf16 shares its files


def multiplications(raw: dict, past: int) -> float:
    """Multiply-adds of one denoise pass to hidden states over one canvas, `past` tokens behind it."""
    text, canvas = raw["text_config"], raw["canvas_length"]
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    experts = text["num_experts"] + 3 * text["top_k_experts"] * text["moe_intermediate_size"]
    per_token = 3 * hidden * text["intermediate_size"]  # self-conditioning
    for kind in text["layer_types"]:
        full = kind == "full_attention"
        width = text["global_head_dim"] if full else text["head_dim"]
        kv = text["num_global_key_value_heads"] if full else text["num_key_value_heads"]
        seen = canvas + (past if full else min(past, text["sliding_window"] - 1))
        projections = hidden * width * (2 * heads + (1 if full else 2) * kv)  # full layers: values are the keys
        per_token += projections + 2 * seen * heads * width + 3 * hidden * text["intermediate_size"] + hidden * experts
    return float(canvas * per_token)


def machine(threads: int) -> dict[str, float]:
    """What PyTorch reaches on this machine now: GFLOP/s of a matrix product per type, GB/s of reading."""
    import torch

    torch.set_num_threads(threads)

    def best(work: Callable[[], object], repeats: int) -> float:
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return min(times)

    rates = {}
    for name, dtype, size in (("fp32", torch.float32, 2048), ("bf16", torch.bfloat16, 1024)):
        a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
        rates[f"{name}_gflops"] = 2e-9 * size**3 / best(lambda a=a, b=b: a @ b, 8)
    large = torch.ones(1 << 28)
    rates["read_gb_per_s"] = 4e-9 * large.numel() / best(large.sum, 5)
    return rates


def run_worker(engine: Path, work: dict) -> dict:
    command = [sys.executable, str(HERE / "e2e" / "scale_worker.py"), str(engine), json.dumps(work)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    if done.returncode:
        raise SystemExit(f"error: {engine.name} failed\n{done.stderr[-4000:]}")
    result: dict = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(args: argparse.Namespace, precision: str) -> dict:
    """One row: checkpoint (unless it is there), export, machine, run."""
    raw = released_config(args.layers)
    checkpoint = args.cache / f"released-{args.layers}"
    engine = args.cache / f"released-{args.layers}-{precision}"
    if not (checkpoint / "config.json").exists():
        size = weight_bytes(raw)
        needed = (1 + ENGINE_SIZE[precision]) * size
        if (free := shutil.disk_usage(args.cache).free) < needed:
            raise SystemExit(f"error: disk space: expected {needed / 1e9:.0f} GB, found {free / 1e9:.0f} GB")
        print(f"writing {size / 1e9:.1f} GB", flush=True)
        shutil.rmtree(args.cache / "partial", ignore_errors=True)
        write_checkpoint(args.cache / "partial", raw, seed=0)
        (args.cache / "partial").rename(checkpoint)
    print(f"exporting {precision}", flush=True)
    shutil.rmtree(engine, ignore_errors=True)
    exported = run_export(checkpoint, engine, threads=args.threads, profile="fused", precision=precision)
    print(f"  {json.dumps(exported['seconds'])}, peak {exported['peak_rss_bytes'] / 1e9:.2f} GB", flush=True)
    rates = machine(args.threads)
    work = {"threads": args.threads, "prompt_tokens": args.prompt_tokens, "steps": args.steps, "rounds": args.rounds}
    run = run_worker(engine, work)
    shutil.rmtree(engine)
    seconds = run["denoise_ms"] / 1e3
    return {
        "name": f"{args.layers} layers, {precision}", "layers": args.layers, "precision": precision, **work,
        "checkpoint_bytes": weight_bytes(raw), "export": exported, "machine": rates, **run,
        "gflops": 2e-9 * multiplications(raw, args.prompt_tokens) / seconds,
        "weights_gb_per_s": 1e-9 * run["weight_bytes"] / seconds,
        "beyond_weights_and_kv_bytes": run["own_bytes"] - run["kv_bytes"],  # weights are pages of the mapped files
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=6, help="of the released model's 30 (default 6)")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["bf16", "int4"])
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4, help="denoise steps of the one canvas (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="generations after a first one (default 3)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache" / "benchmarks", help="work folder")
    parser.add_argument("--clean", action="store_true", help="delete the checkpoint at the end")
    parser.add_argument("--out", type=Path, help="write the rows as JSON; other rows in it stay")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    here = environment()
    for precision in args.precision:
        row = {**measure(args, precision), **here}
        print(
            f"{row['name']}: {row['denoise_ms']:.0f} + {row['head_ms']:.0f} ms/step, "
            f"prefill {row['prefill_ms']:.0f} ms, "
            f"{row['gflops']:.0f} GFLOP/s, {row['weights_gb_per_s']:.1f} GB/s of weights, "
            f"load {row['load_seconds']} s, {row['pss_bytes'] / 1e9:.2f} GB resident, of it "
            f"{row['beyond_weights_and_kv_bytes'] / 1e6:.0f} MB beside weights and KV",
            flush=True,
        )
        if args.out:
            store(row, args.out, "name", ())
    if args.clean:
        shutil.rmtree(args.cache / f"released-{args.layers}", ignore_errors=True)


if __name__ == "__main__":
    main()
