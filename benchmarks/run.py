"""The single entry of the end-to-end benchmarks: dgrt against Hugging Face, same machine, same prompts, same minutes.

    python benchmarks/run.py                                  # every scenario in benchmarks/scenarios
    python benchmarks/run.py --scenario mini --out benchmarks/results/e2e.json
    python -m venv .cache/mlx && .cache/mlx/bin/pip install "mlx[cpu]" mlx-vlm
    python benchmarks/run.py --scenario mid --mlx .cache/mlx/bin/python --out benchmarks/results/e2e.json

Each side runs in a process of its own (so peak RSS is its own), the sides alternate for `--rounds` rounds, and both
wait passively (OMP_WAIT_POLICY=passive), because a spinning pool on a busy machine fakes large wins. The Hugging Face
side first tries its experts implementations in bf16 and fp32 and competes with the fastest. benchmarks/README.md
defines the columns.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from e2e import workload
from environment import environment
from results_file import store

HERE = Path(__file__).resolve().parent
HF_SETTINGS = [
    {"dtype": dtype, "experts": experts}
    for dtype in ("bfloat16", "float32")
    for experts in ("grouped_mm", "batched_mm", "eager")
]
MLX_DTYPE = "float32"


def run_worker(script: str, work: dict, timeout_s: float | None = None, python: str = sys.executable) -> dict:
    """Runs one side in a fresh process and returns what it printed. RuntimeError: it failed, or took too long."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump(work, file)
    env = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(work["threads"])}
    try:
        done = subprocess.run(
            [python, str(HERE / "e2e" / script), file.name],
            env=env, capture_output=True, text=True, check=False, timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{script}: given up after {timeout_s:.0f} s") from error
    finally:
        os.unlink(file.name)
    if done.returncode != 0:
        raise RuntimeError(f"{script} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def summary(outputs: list[dict]) -> dict:
    """Medians over all prompts and rounds of one side."""
    rows = [row for output in outputs for row in output["rows"]]
    per_step = sorted(row["ms_per_step"] for row in rows)
    engine = [what for what in ("ms_per_pass", "encoder_ms") if what in rows[0]]
    return {
        "ms_per_step": statistics.median(per_step),
        "ms_per_step_p95": per_step[int(0.95 * (len(per_step) - 1))],
        **{what: statistics.median(row[what] for row in rows) for what in engine},
        "tokens_per_s": 1e3 * sum(r["tokens"] for r in rows) / sum(r["total_ms"] for r in rows),
        "steps_per_canvas": sum(r["steps"] for r in rows) / sum(r["canvases"] for r in rows),
        "peak_rss_mb": max(output["peak_rss_bytes"] for output in outputs) / 2**20,
    }


def best_hf_setting(work: dict) -> tuple[dict, dict[str, float]]:
    """Tries every setting on one prompt and returns the fastest with all times (ms per denoise step).

    A setting that takes four times as long as the quickest so far is given up: on some processors one takes minutes.
    """
    trial = {**work, "prompts": work["prompts"][:1]}
    times, quickest = {}, math.inf
    for setting in HF_SETTINGS:
        begun = time.perf_counter()
        try:
            patience = 4 * quickest if math.isfinite(quickest) else None
            output = run_worker("hf_worker.py", {**trial, "hf_setting": setting}, patience)
        except RuntimeError as error:
            print(f"  {setting}: {str(error).splitlines()[-1][:100]}", flush=True)
            continue
        quickest = min(quickest, time.perf_counter() - begun)
        times[f"{setting['dtype']} {setting['experts']}"] = output["rows"][0]["ms_per_step"]
    best = min(times, key=times.__getitem__)
    return dict(zip(("dtype", "experts"), best.split(), strict=True)), times


def parity(work: dict, count: int) -> str:
    """Compares tokens under shared noise: Hugging Face in fp32 driven by dgrt.reference.noise."""
    import numpy as np
    import torch
    from transformers import DiffusionGemmaForBlockDiffusion

    import dgrt
    from dgrt.reference.hf import generate_batch
    from dgrt.reference.noise import NoiseKey

    torch.set_num_threads(work["threads"])
    model = DiffusionGemmaForBlockDiffusion.from_pretrained(work["checkpoint"], dtype=torch.float32).eval()
    runtime = dgrt.Runtime(work["engine"], threads=work["threads"])
    options = {"max_new_tokens": work["max_new_tokens"]}
    if work["max_denoising_steps"]:
        options["max_denoising_steps"] = work["max_denoising_steps"]
    same = 0
    for seed, ids in enumerate(work["prompts"][:count]):
        (expected,) = generate_batch(model, np.array([ids], dtype=np.int32), [NoiseKey(seed=seed)], **options)
        same += np.array_equal(runtime.generate(ids, seed=seed, **options).tokens, expected)
    return f"{same}/{count} prompts token-identical under shared noise"


def run_scenario(scenario: dict, rounds: int, threads: int, cache_dir: Path, mlx: str | None) -> dict:
    """Measures one scenario and returns its row; `mlx` is the interpreter of an environment with mlx-vlm."""
    from dgrt_export import export

    checkpoint = workload.checkpoint(scenario, cache_dir)
    engine = cache_dir / f"{scenario['name']}-engine"
    export(checkpoint, engine, precision=scenario["precision"], profile=scenario["profile"], force=True)
    manifest = json.loads((engine / "manifest.json").read_text())
    prompts = workload.prompts(scenario)
    work = {
        "checkpoint": str(checkpoint), "engine": str(engine), "threads": threads, "prompts": prompts,
        "warmup": prompts[:1], "max_new_tokens": scenario["max_new_tokens"],
        "max_denoising_steps": scenario["max_denoising_steps"], "canvas_len": manifest["model"]["canvas_len"],
        "stop_ids": manifest["generation"]["stop_ids"],
    }
    setting, tried = best_hf_setting(work)
    print(f"{scenario['name']}: best Hugging Face setting {setting} of {tried}", flush=True)
    hf, ours = [], []
    for _ in range(rounds):
        hf.append(run_worker("hf_worker.py", {**work, "hf_setting": setting}))
        ours.append(run_worker("dgrt_worker.py", work))
    row = {
        "scenario": scenario["name"], "threads": threads, "rounds": rounds, "prompts": len(prompts),
        "hf_setting": setting, "hf_tried_ms_per_step": tried, "hf": summary(hf), "dgrt": summary(ours),
        "profile": scenario["profile"], "precision": scenario["precision"],
        "parity": parity(work, scenario["parity_prompts"]) if scenario["parity_prompts"] else "not compared",
    }
    if mlx is not None:  # minutes per answer: one prompt, once
        once = {**work, "prompts": prompts[:1], "warmup": [], "mlx_dtype": MLX_DTYPE}
        output = run_worker("mlx_worker.py", once, python=mlx)
        row["mlx"] = {**summary([output]), "dtype": MLX_DTYPE, "versions": output["versions"]}
    row["speedup_step"] = row["hf"]["ms_per_step"] / row["dgrt"]["ms_per_step"]
    row["speedup_end_to_end"] = row["dgrt"]["tokens_per_s"] / row["hf"]["tokens_per_s"]
    return row


def main() -> None:
    names = sorted((path.stem for path in (HERE / "scenarios").glob("*.json")), key=lambda name: (name != "mini", name))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenario", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds of both sides (default 3)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--mlx", metavar="PYTHON", help="also mlx-vlm: the interpreter of an environment that has it")
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache" / "benchmarks", help="work folder")
    parser.add_argument("--out", type=Path, help="write the rows as JSON; rows of other scenarios in it stay")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    here = environment()  # once: a results file that is being written makes the tree dirty
    for name in args.scenario:
        scenario = json.loads((HERE / "scenarios" / f"{name}.json").read_text())
        row = {**run_scenario(scenario, args.rounds, args.threads, args.cache, args.mlx), **here}
        for side in ("hf", "mlx", "dgrt"):
            if side not in row:
                continue
            r = row[side]
            print(
                f"{name:5} {side:4} {r['ms_per_step']:8.2f} ms/step (p95 {r['ms_per_step_p95']:.2f})  "
                f"{r['tokens_per_s']:8.1f} tokens/s  {r['steps_per_canvas']:5.1f} steps/canvas  "
                f"{r['peak_rss_mb']:7.0f} MB peak RSS"
            )
        print(
            f"{name:5} dgrt/HF: {row['speedup_step']:.2f}x per step, {row['speedup_end_to_end']:.2f}x end to end; "
            f"{row['parity']}",
            flush=True,
        )
        if args.out:
            store(row, args.out, "scenario", names)


if __name__ == "__main__":
    main()
