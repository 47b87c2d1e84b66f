"""The training loop: cross-entropy of a block's tokens through the target's vocabulary head.

Data depends on the step alone, so a resumed run goes on exactly. A checkpoint is written every few minutes and when the
run is told to stop.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..optim import Optimiser
from .blocks import Batch, Blocks
from .network import BlockDrafter

CHECKPOINT_SECONDS = 120.0
WARM_UP, COOL_DOWN = 0.02, 0.5  # shares of the steps
CURVE_EVERY = 50


@dataclass(frozen=True)
class TrainSettings:
    """How long, and how many blocks per step."""

    steps: int
    batch_size: int
    seed: int = 0
    is_continued: bool = False  # from weights that have seen the blocks of the same seed


def predict(drafter: BlockDrafter, blocks: Blocks, batch: Batch) -> torch.Tensor:
    """Logits [N, B, V]."""
    hidden = drafter(batch.anchor, batch.position, batch.evidence, batch.past, batch.seen)
    return blocks.target.logits(hidden)


def train(
    drafter: BlockDrafter, blocks: Blocks, settings: TrainSettings, path: Path, progress: Callable[[int, str], None],
    stopping: Callable[[], bool],
) -> None:
    """Trains `drafter` to the last step, from the checkpoint at `path` where there is one.

    `progress` is told the steps done, and now and then the mean loss; `stopping` is asked between two steps.

    Raises:
        KeyboardInterrupt: it was to stop; the checkpoint is written.
    """
    optimiser = Optimiser(drafter, dtype=torch.float32)
    step = _resume(path, drafter, optimiser)
    saved, losses = time.monotonic(), []
    while step < settings.steps:
        batch = blocks.draw(np.random.default_rng([settings.seed, step, settings.is_continued]), settings.batch_size)
        logits = predict(drafter, blocks, batch)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.target.flatten(), ignore_index=-1)
        drafter.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(optimiser.adam, 1.0)
        optimiser.step(_schedule(step, settings.steps))
        step += 1
        losses.append(loss.item())
        mean = f"loss {np.mean(losses):.3f}" if step % CURVE_EVERY == 0 else ""
        if mean:
            losses.clear()
        progress(step, mean)
        if stopping() or step == settings.steps or time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(path, drafter, optimiser, step)
            saved = time.monotonic()
        if stopping():
            raise KeyboardInterrupt


def _schedule(step: int, steps: int) -> float:
    """Share of the full rate: up, flat, then linearly to zero."""
    return min(1.0, (step + 1) / (WARM_UP * steps + 1), (steps - step) / (COOL_DOWN * steps))


def _save(path: Path, drafter: BlockDrafter, optimiser: Optimiser, step: int) -> None:
    state = {"step": step, "drafter": drafter.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(state, path.with_suffix(".partial"))
    os.replace(path.with_suffix(".partial"), path)


def _resume(path: Path, drafter: BlockDrafter, optimiser: Optimiser) -> int:
    if not path.exists():
        return 0
    state = torch.load(path)
    drafter.load_state_dict(state["drafter"])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"]
