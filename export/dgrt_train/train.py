"""Trains dgrt-mini on CPU: python -m dgrt_train.train --out DIR [--resume | --start FOLDER]

A step is a fixed list of batches (`schedule.py`) whose gradients are added up with weights. They are dealt out to
`--workers` processes of one thread each: at this size that is 1.7 times as fast as one process with as many threads.
Noise and data depend on the step alone, so the number of workers changes nothing but rounding.

A checkpoint (weights, optimiser, average, step) is written atomically every few minutes and on Ctrl-C or SIGTERM;
`--resume` goes on from it exactly. `--start` trains the last cycle alone, on a published folder's weights.
"""
import argparse
import json
import os
import signal
import socket
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file

from .config import ModelConfig
from .data import TASK_NAMES, Stream
from .hf_format import load_text_tensors
from .model import DiffusionGemmaMini
from .objective import batch_loss
from .optim import Optimiser, WeightAverage, matrix_views
from .pool import load_pool
from .schedule import LAST_STEP, RESTART, learning_rate, phase_at, step_batches


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", type=Path, required=True, help="run folder: checkpoints, curve, puzzle pool")
    begin = p.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="continue from checkpoint.pt in --out")
    begin.add_argument("--start", type=Path, metavar="FOLDER",
                       help=f"begin at step {RESTART} with the weights of this model folder")
    p.add_argument("--workers", type=int, default=2, help="processes, one thread each (default %(default)s)")
    p.add_argument("--lr", type=float, default=1.0, help="multiplies both learning rates")
    p.add_argument("--checkpoint-minutes", type=float, default=3.0)
    p.add_argument("--max-steps", type=int, default=0, help="stop early; for smoke runs")
    p.add_argument("--max-rows", type=int, default=0, help="at most so many cases per batch; for smoke runs")
    p.add_argument("--no-compile", action="store_true")
    return p.parse_args()


def save(path: Path, state: dict) -> None:
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


class SharedGradient:
    """All gradients in one buffer that every worker adds to, and a flag that tells all of them to stop together."""

    def __init__(self, model: torch.nn.Module):
        parameters = list(model.parameters())
        self._buffer = torch.zeros(sum(p.numel() for p in parameters) + 1)
        for p, view in zip(parameters, self._buffer[:-1].split([p.numel() for p in parameters])):
            p.grad = view.view_as(p)

    def clear(self) -> None:
        self._buffer.zero_()

    def reduce(self, stop: bool) -> bool:
        """Adds up over the workers; true if any of them wants to stop."""
        self._buffer[-1] = float(stop)
        dist.all_reduce(self._buffer)
        return bool(self._buffer[-1])


class Curve:
    """Mean losses per task since the last line of curve.jsonl."""

    KEYS = tuple(f"{kind}/{task}" for kind in ("denoise", "causal") for task in TASK_NAMES)

    def __init__(self, path: Path, step: int):
        self.path, self.sums = path, torch.zeros(len(self.KEYS), 2)
        self.last_step, self.last_time = step, time.time()

    def add(self, kind: str, tasks: np.ndarray, losses: torch.Tensor | None) -> None:
        for task, loss in zip(tasks, [] if losses is None else losses.tolist()):
            self.sums[self.KEYS.index(f"{kind}/{TASK_NAMES[task]}")] += torch.tensor([loss, 1.0])

    def write(self, rank: int, step: int, **more: float) -> None:
        """Gathers the sums of all workers; worker 0 writes the line."""
        dist.all_reduce(self.sums)
        now = time.time()
        if rank == 0:
            seconds = (now - self.last_time) / (step - self.last_step)
            losses = {k: round((s / n).item(), 4) for k, (s, n) in zip(self.KEYS, self.sums) if n}
            line = {"step": step, "time": round(now), "seconds_per_step": round(seconds, 3), **more, **losses}
            with self.path.open("a") as f:
                f.write(json.dumps(line) + "\n")
        self.sums.zero_()
        self.last_step, self.last_time = step, now


def work(rank: int, args: argparse.Namespace, port: int) -> None:
    """One worker. All workers hold equal weights and optimiser states; worker 0 writes the files."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=args.workers)
    stream = Stream(load_pool(args.out / "sudoku_pool.json"), ModelConfig().canvas_length)
    model = DiffusionGemmaMini(ModelConfig(), compile_layers=not args.no_compile)
    if args.start:
        with torch.no_grad():
            load_text_tensors(model, load_file(args.start / "model.safetensors"))
    fresh = lambda: (Optimiser(model, partial(matrix_views, model)), WeightAverage(model))  # noqa: E731
    (optimiser, average), step = fresh(), RESTART if args.start else 0
    path = args.out / "checkpoint.pt"
    if args.resume:
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average.average, step = saved["average"], saved["step"]

    def checkpoint() -> None:
        if rank == 0:
            save(path, {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average.average,
                        "step": step})

    stopping = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopping.append(True))
    gradient, curve = SharedGradient(model), Curve(args.out / "curve.jsonl", step)
    last = min(LAST_STEP, step + args.max_steps) if args.max_steps else LAST_STEP
    last_save = time.time()
    while step < last:
        if step == RESTART:
            with torch.no_grad():
                average.copy_to(model)
                for p in model.parameters():
                    p.copy_(p.bfloat16())
            optimiser, average = fresh()
        scale = args.lr * learning_rate(step)
        gradient.clear()
        for bucket, number, share in step_batches(step)[rank :: args.workers]:
            if args.max_rows:
                bucket = replace(bucket, rows=min(args.max_rows, bucket.rows))
            batch = stream.batch(bucket, number)
            rng = np.random.default_rng([7, number, bucket.prompt, bucket.blocks])
            loss, denoising, causal = batch_loss(model, bucket, batch, rng, phase_at(step))
            (loss * share).backward()
            curve.add("denoise", batch.tasks, denoising)
            curve.add("causal", batch.tasks, causal)
        if gradient.reduce(bool(stopping)):
            break
        norm = torch.nn.utils.clip_grad_norm_(optimiser.adam, 1.0).item()
        optimiser.step(scale)
        step += 1
        average.update(step)
        if step % 50 == 0:
            curve.write(rank, step, lr=round(scale, 4), norm=round(norm, 3))
        if time.time() - last_save > 60 * args.checkpoint_minutes:
            checkpoint()
            last_save = time.time()
    checkpoint()
    dist.destroy_process_group()


def main() -> None:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    load_pool(args.out / "sudoku_pool.json")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for name in (signal.SIGINT, signal.SIGTERM):  # the workers stop by themselves, in step
        signal.signal(name, lambda number, _: [os.kill(p.pid, number) for p in mp.active_children()])
    mp.start_processes(work, (args, port), args.workers, start_method="spawn")


if __name__ == "__main__":
    main()
