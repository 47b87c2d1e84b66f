"""The vocabulary head at the released model's shape against PyTorch: python benchmarks/head.py --out FILE

256 rows, width 2816, 262,144 ids: scores, softcap, softmax, entropy, argmax, one sample, soft embedding. On the other
side the same in PyTorch, in bf16 and in fp32; bf16 takes minutes where the processor has no instructions for it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from environment import environment

ROWS, WIDTH, VOCAB, SOFTCAP, TEMPERATURE = 256, 2816, 262_144, 30.0, 0.6
SPREAD = 3.0  # standard deviation of the scores


def inputs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The table as bf16 bits [V, D], and hidden states [L, D]."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((VOCAB, WIDTH), dtype=np.float32)
    table *= WIDTH**-0.5
    hidden = SPREAD * rng.standard_normal((ROWS, WIDTH), dtype=np.float32)
    return (table.view(np.uint32) >> 16).astype(np.uint16), hidden


def torch_head(hidden: np.ndarray, bits: np.ndarray, dtype: str) -> Callable[[], object]:
    """The same arithmetic as a PyTorch program would write it."""
    import torch

    kind = getattr(torch, dtype)
    table = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).to(kind)
    rows = torch.from_numpy(hidden).to(kind)

    def run() -> object:
        logits = SOFTCAP * torch.tanh(rows @ table.T / SOFTCAP)
        probs = torch.softmax(logits.float() / TEMPERATURE, dim=-1)
        entropy = -(probs * probs.clamp_min(1e-37).log()).sum(-1)
        return logits.argmax(-1), entropy, torch.multinomial(probs, 1), probs.to(kind) @ table * WIDTH**0.5

    return run


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Median after one run that is not counted."""
    times = []
    for _ in range(1 + rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--dtypes", nargs="+", default=["bfloat16", "float32"], metavar="DTYPE", help="of PyTorch (default: both)"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "passive"
    import torch

    from dgrt import _native

    torch.set_num_threads(args.threads)
    here = environment()
    bits, hidden = inputs(0)
    uniform = np.random.default_rng(1).random(ROWS)

    def ours(bf16_products: bool) -> Callable[[], object]:
        return lambda: _native.vocabulary_head(
            hidden, bits, softcap=SOFTCAP, temperature=TEMPERATURE, embed_scale=WIDTH**0.5, uniform=uniform,
            bf16_products=bf16_products, threads=args.threads,
        )  # fmt: skip

    row = {"threads": args.threads, "rounds": args.rounds}
    for name, bf16_products in (("dgrt_s", False), ("dgrt_bf16_s", True)):
        row[name] = seconds(ours(bf16_products), args.rounds)
    for dtype in args.dtypes:
        row[f"{dtype}_s"] = seconds(torch_head(hidden, bits, dtype), args.rounds)
    print(", ".join(f"{name[:-2]} {value:.2f} s" for name, value in row.items() if name.endswith("_s")))
    if args.out:
        args.out.write_text(json.dumps({**row, **here}, indent=1) + "\n")


if __name__ == "__main__":
    main()
