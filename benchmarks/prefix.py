"""The second turn of a chat whose first 4,096 tokens are known already: without the prefix cache and with it.

    python benchmarks/prefix.py --out benchmarks/results/prefix.json

A turn asks a short question about a long text; the second turn repeats text, question and answer and asks again. It
runs in two runtimes of one engine, one without a prefix cache and one that has seen the first turn, by turns. Inside
the clock: from token ids to the first draft of a canvas on the screen, and to the first canvas that is final. Stops if
the two emit other tokens. `random` is a seeded calm model of 16,384 tokens of context; mini has 4,096, so its text is
shorter.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from pathlib import Path

from e2e import workload
from environment import environment

import dgrt

HERE = Path(__file__).resolve().parent
SCENARIOS = {
    "random": {
        "name": "prefix",
        "synthetic": {
            "vocab_size": 4096, "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4,
            "num_key_value_heads": 2, "num_global_key_value_heads": 1, "head_dim": 64, "global_head_dim": 128,
            "intermediate_size": 512, "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 128,
            "sliding_window": 512, "canvas_length": 256, "max_position_embeddings": 16384, "seed": 11,
        },
        "shared_tokens": 4096,
    },
    "mini": {"name": "mini", "checkpoint": "dgrt/models/mini", "shared_tokens": 3584},
}  # fmt: skip
QUESTION_TOKENS, ANSWER_TOKENS = 24, 32
MAX_DENOISING_STEPS = 6


def turn(runtime: dgrt.Runtime, prompt: list[int]) -> dict:
    """One turn: when the first draft and the first commit came, and what was emitted."""
    start = time.perf_counter()
    seen: dict[str, float] = {}
    options = {"max_new_tokens": ANSWER_TOKENS, "max_denoising_steps": MAX_DENOISING_STEPS, "stop_ids": (), "seed": 1}
    for event in runtime.stream(prompt, **options):
        seen.setdefault(event.kind, 1e3 * (time.perf_counter() - start))
        result = event.result
    assert result is not None
    stats = result.stats
    return {
        "first_draft_ms": seen["draft"], "first_canvas_ms": seen["commit"], "prefill_ms": stats.prefill_ms,
        "prefix_tokens": stats.prefix_tokens, "prompt_tokens": stats.prompt_tokens, "tokens": result.tokens.tolist(),
    }  # fmt: skip


def measure(name: str, scenario: dict, rounds: int, threads: int, cache_dir: Path) -> dict:
    """Both sides of one scenario."""
    from dgrt_export import export

    engine = cache_dir / f"{scenario['name']}-engine"
    export(workload.checkpoint(scenario, cache_dir), engine, force=True)
    cold, warm = dgrt.Runtime(engine, threads=threads, prefix_cache=0), dgrt.Runtime(engine, threads=threads)
    rows: dict[str, list[dict]] = {"cold": [], "warm": []}
    for number in range(rounds + 1):  # the first one warms up: graphs, weights, memory
        rng = random.Random(number)

        def text(count: int, rng: random.Random = rng) -> list[int]:
            return [rng.randrange(5, cold.info.vocab_size) for _ in range(count)]

        first = text(scenario["shared_tokens"]) + text(QUESTION_TOKENS)
        second = first + turn(warm, first)["tokens"] + text(QUESTION_TOKENS)
        sides = {"cold": turn(cold, second), "warm": turn(warm, second)}
        if sides["cold"]["tokens"] != sides["warm"]["tokens"]:
            sys.exit(f"{name}: other tokens with the prefix cache than without")
        for side, row in sides.items():
            if number > 0:
                rows[side].append(row)
    stats = warm.prefix_stats()
    out = {
        "scenario": name, "threads": threads, "rounds": rounds, "max_denoising_steps": MAX_DENOISING_STEPS,
        "prompt_tokens": rows["warm"][0]["prompt_tokens"], "prefix_tokens": rows["warm"][0]["prefix_tokens"],
        "cache_bytes": stats.bytes,
    }  # fmt: skip
    for metric in ("prefill_ms", "first_draft_ms", "first_canvas_ms"):
        before, after = (statistics.median(row[metric] for row in rows[side]) for side in ("cold", "warm"))
        out[metric] = {"cold": before, "warm": after, "ratio": before / after}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenario", nargs="+", choices=sorted(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache" / "benchmarks", help="work folder")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in args.scenario:
        row = measure(name, SCENARIOS[name], args.rounds, args.threads, args.cache)
        rows.append(row)
        print(f"{name}: {row['prefix_tokens']} of {row['prompt_tokens']} prompt tokens from the cache")
        for metric in ("prefill_ms", "first_draft_ms", "first_canvas_ms"):
            cold, warm, ratio = (row[metric][key] for key in ("cold", "warm", "ratio"))
            print(f"  {metric:16} {cold:9.1f} -> {warm:8.1f}  {ratio:5.1f}x")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"rows": rows, **environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
