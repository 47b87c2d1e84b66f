"""Trains dgrt-mini on CPU: python -m dgrt_train.train --out DIR --minutes 120 [--resume | --init MODEL]

The learning rate warms up, stays flat and falls linearly to zero over the last
part of the wall-clock budget. A checkpoint (weights, optimiser, average, counters)
is written atomically every few minutes and on Ctrl-C or SIGTERM; `--resume`
continues the data stream exactly and may change the time budget and the task mix.
`--init` starts from the weights of a published folder with a fresh optimiser; give
`--first-step` the step its card names, so that the data stream moves on.
"""
import argparse
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from .config import ModelConfig
from .data import TASK_NAMES, Bucket, Stream
from .hf_format import load_text_tensors
from .model import DiffusionGemmaMini
from .objective import batch_loss
from .optim import Optimiser, WeightAverage
from .pool import load_pool

# One step runs the first bucket and then one of the others, in this order.
ONE_CANVAS = Bucket("one-canvas", 128, 1, (0, 0), 16, {
    "9x9": 0.22, "9x9-few": 0.04, "6x6": 0.20, "4x4": 0.10, "json": 0.22, "edit-short": 0.22})
TWO_CANVASES = Bucket("two-canvases", 256, 2, (0, 1), 4, {"edit-medium": 1.0})
THREE_CANVASES = Bucket("three-canvases", 320, 3, (0, 1, 2), 3, {"edit-long": 1.0})
CAUSAL = Bucket("causal", 128, 2, (), 8, {
    "9x9": 0.25, "6x6": 0.1, "4x4": 0.1, "json": 0.3, "edit-short": 0.25})
CYCLE = (TWO_CANVASES, THREE_CANVASES, TWO_CANVASES, CAUSAL)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--minutes", type=float, required=True, help="wall-clock budget of this run, cooldown included")
    p.add_argument("--cooldown", type=float, default=35.0, help="minutes of the linear cooldown at the end")
    start = p.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="continue from checkpoint.pt in --out")
    start.add_argument("--init", type=Path, help="start from the weights of a published model folder")
    p.add_argument("--first-step", type=int, default=0, help="step of the weights given with --init")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--noise-power", type=float, default=0.8, help="t = u ** power; smaller means noisier canvases")
    p.add_argument("--lr", type=float, default=1.0, help="multiplies both learning rates")
    p.add_argument("--checkpoint-minutes", type=float, default=3.0)
    p.add_argument("--max-steps", type=int, default=0, help="stop early; for smoke runs")
    p.add_argument("--no-compile", action="store_true")
    return p.parse_args()


def save(path: Path, state: dict) -> None:
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def main() -> None:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    stream = Stream(load_pool(args.out / "sudoku_pool.json"), ModelConfig().canvas_length)
    model = DiffusionGemmaMini(ModelConfig(), compile_layers=not args.no_compile)
    optimiser, average = Optimiser(model), WeightAverage(model)
    step, counters = 0, {b.name: 0 for b in (ONE_CANVAS, *CYCLE)}
    path = args.out / "checkpoint.pt"
    if args.resume:
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average.average = saved["average"]
        step, counters = saved["step"], {**counters, **saved["counters"]}
    elif args.init:
        load_text_tensors(model, load_file(args.init / "model.safetensors"))
        average = WeightAverage(model)
        # Steps and batches advance together: the batches seen before are not seen again.
        step, counters = args.first_step, dict.fromkeys(counters, args.first_step)

    def checkpoint() -> None:
        save(path, {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average.average,
                    "step": step, "counters": counters})

    stopping = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopping.append(True))
    end = time.time() + 60 * args.minutes
    last_save = last_log = time.time()
    sums = {f"{kind}/{task}": [0.0, 0] for kind in ("denoise", "causal") for task in TASK_NAMES}
    log = (args.out / "curve.jsonl").open("a")
    first = step
    while not stopping and time.time() < end and not (args.max_steps and step - first >= args.max_steps):
        scale = args.lr * min(1.0, (step - args.first_step + 1) / 150, max(end - time.time(), 0) / (60 * args.cooldown))
        model.zero_grad(set_to_none=True)
        for bucket, share in ((ONE_CANVAS, 0.7), (CYCLE[step % len(CYCLE)], 0.3)):
            number = counters[bucket.name]
            batch = stream.batch(bucket, number)
            rng = np.random.default_rng([7, step, bucket.prompt, bucket.blocks])
            loss, denoising, causal = batch_loss(model, bucket, batch, rng, args.noise_power)
            (loss * share).backward()
            counters[bucket.name] = number + 1
            for kind, values in (("denoise", denoising), ("causal", causal)):
                for task, value in zip(batch.tasks, [] if values is None else values.tolist()):
                    entry = sums[f"{kind}/{TASK_NAMES[task]}"]
                    entry[0] += value
                    entry[1] += 1
        norm = torch.nn.utils.clip_grad_norm_(optimiser.adam, 1.0).item()
        optimiser.step(scale)
        step += 1
        average.update(step)
        if step % 50 == 0:
            now = time.time()
            losses = {k: round(s / n, 4) for k, (s, n) in sums.items() if n}
            log.write(json.dumps({"step": step, "time": round(now), "seconds_per_step": round((now - last_log) / 50, 3),
                                  "lr": round(scale, 4), "norm": round(norm, 3), **losses}) + "\n")
            log.flush()
            last_log, sums = now, {k: [0.0, 0] for k in sums}
        if time.time() - last_save > 60 * args.checkpoint_minutes:
            checkpoint()
            last_save = time.time()
    checkpoint()


if __name__ == "__main__":
    main()
