"""Batches of fixed shape: cases to left-padded contexts and noised canvases.

A bucket fixes every tensor shape, so each layer compiles once per bucket. The
task of row i of batch b depends on (bucket, b, i) only: with the step as the batch
number a resumed run continues the stream exactly.
"""
from dataclasses import dataclass

import numpy as np

from .tasks import edit, json_record, sudoku
from .tasks.case import TRAIN_SEED, Case
from .tokens import PAD, TURN_END, VOCAB_SIZE, encode_bytes, encode_prompt

FRONT_NOISE = 0.02  # in front of the place where a canvas with a front turns into noise
TASK_NAMES = ("9x9", "9x9-few", "6x6", "4x4", "json", "edit-short", "edit-medium", "edit-long")
PUZZLE_TASKS = sudoku.LEVELS


@dataclass(frozen=True)
class Bucket:
    """Shapes and task mix of one kind of batch.

    Attributes:
        prompt: Prompt length after left padding.
        blocks: Answer blocks per case; block k follows prompt + 96 k answer tokens.
        canvas_blocks: Block number of each canvas of a case.
        rows: Cases per batch.
        mix: Relative weight of each task.
    """

    name: str
    prompt: int
    blocks: int
    canvas_blocks: tuple[int, ...]
    rows: int
    mix: dict[str, float]

    def context(self, canvas: int) -> int:
        """Length of the context after which blocks continue."""
        return self.prompt + canvas * (self.blocks - 1)


@dataclass(frozen=True)
class Noise:
    """How canvases are noised.

    Attributes:
        power: Exponent p of the noise level t = u ** p; below one favours high noise, where decoding starts.
        front_share: Share of canvases that are noise behind a random place of the answer and nearly clean before it:
            text settles from left to right, so that is what the sampler mostly sees of it.
    """

    power: float
    front_share: float = 0.0


@dataclass
class Batch:
    """Arrays of one batch; `context` and `targets` are [rows, ...] token ids."""

    context: np.ndarray
    pad: np.ndarray
    targets: np.ndarray
    tasks: np.ndarray


class Stream:
    """Deterministic stream of training batches."""

    def __init__(self, pool: dict, canvas: int, seed: int = TRAIN_SEED):
        self.pool, self.canvas, self.seed = pool, canvas, seed

    def case(self, task: str, index: int) -> Case:
        if task == "json":
            return json_record.generate(self.seed, index)
        if task.startswith("edit-"):
            return edit.generate(self.seed, index, task.removeprefix("edit-"))
        return sudoku.augment(self.pool[task[:3]], self.seed, index, task)

    def batch(self, bucket: Bucket, number: int) -> Batch:
        """Builds batch `number` of a bucket."""
        rng = np.random.default_rng([self.seed, number, sum(map(ord, bucket.name))])
        names = list(bucket.mix)
        weights = np.array(list(bucket.mix.values()), dtype=float)
        chosen = rng.choice(len(names), size=bucket.rows, p=weights / weights.sum())
        length = bucket.context(self.canvas)
        context = np.full((bucket.rows, length), PAD, dtype=np.int64)
        targets = np.full((bucket.rows, bucket.blocks * self.canvas), PAD, dtype=np.int64)
        pad = np.zeros(bucket.rows, dtype=np.int64)
        tasks = np.zeros(bucket.rows, dtype=np.int64)
        for row, choice in enumerate(chosen):
            task = names[choice]
            case = self.case(task, number * bucket.rows + row)
            prompt, answer = encode_prompt(case.prompt), [*encode_bytes(case.answer), TURN_END]
            pad[row] = bucket.prompt - len(prompt)
            context[row, pad[row] : bucket.prompt] = prompt
            targets[row, : len(answer)] = answer
            tasks[row] = TASK_NAMES.index(task)
        context[:, bucket.prompt :] = targets[:, : length - bucket.prompt]
        return Batch(context, pad, targets, tasks)


def add_noise(
    targets: np.ndarray, rng: np.random.Generator, power: np.ndarray, front_share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Replaces each token by a uniform random id with probability t, one t per canvas.

    Args:
        targets: Clean canvases [canvases, length].
        rng: Source of noise.
        power: `Noise.power` of each canvas.
        front_share: `Noise.front_share` of each canvas.

    Returns:
        The noised canvases and t; for a front the share of noise.
    """
    count, length = targets.shape
    u = (rng.permutation(count) + rng.random(count)) / count  # stratified over the batch
    t = u**power
    place = rng.integers(0, (targets != PAD).sum(1) + 1)
    behind = np.arange(length) >= place[:, None]
    front = rng.random(count) < front_share
    level = np.where(front[:, None], np.where(behind, 1.0, FRONT_NOISE), t[:, None])
    t = np.where(front, 1 - place / length, t)
    hit = rng.random(targets.shape) < level
    return np.where(hit, rng.integers(0, VOCAB_SIZE, targets.shape), targets), t
