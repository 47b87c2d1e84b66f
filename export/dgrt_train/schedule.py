"""What each step of the run trains on and how fast: batches, noise, unrolling (`PHASES`), learning rate.

Three things are learned in this order, and each phase looks where the next one is: letters and the shape of an answer;
copying from clean neighbours and from a settled left part; answering from noise and from the model's own mistakes.
"""
from dataclasses import dataclass, replace

import numpy as np

from .data import Bucket, Noise

# Row counts give the three batches of a step about the same cost as one another's worker: 0.9 s on one core.
PUZZLES = Bucket("puzzles", 72, 1, (0, 0), 10, {"6x6": 0.7, "4x4": 0.3})
ONE_CANVAS = Bucket("one-canvas", 128, 1, (0, 0), 8, {"json": 0.36, "edit-short": 0.36, "9x9": 0.28})
TWO_CANVASES = Bucket("two-canvases", 256, 2, (0, 1), 8, {"edit-medium": 1.0})
THREE_CANVASES = Bucket("three-canvases", 320, 3, (0, 1, 2), 4, {"edit-long": 1.0})
CAUSAL = Bucket("causal", 128, 2, (), 20, {"9x9": 0.1, "6x6": 0.1, "4x4": 0.1, "json": 0.3, "edit-short": 0.4})


@dataclass(frozen=True)
class Phase:
    """A stretch of the run.

    Attributes:
        first: Its first step.
        puzzle_noise, text_noise: How canvases are noised.
        unroll: Whether self-conditioned cases get the canvas that the sampler makes of the first pass.
        one_canvas: In every step.
        long_edits: One of these in turn, in every step.
        third: One of these in turn, in every step.
    """

    first: int
    puzzle_noise: Noise
    text_noise: Noise
    unroll: bool
    one_canvas: Bucket
    long_edits: tuple[Bucket, ...]
    third: tuple[Bucket, ...]


_START = Phase(0, Noise(0.8), Noise(0.8), False, ONE_CANVAS,
               2 * (TWO_CANVASES, THREE_CANVASES) + (CAUSAL,), (PUZZLES,))
_COPY = replace(_START, first=700, text_noise=Noise(1.5, front_share=0.5))
_OWN_MISTAKES = replace(_COPY, first=1300, puzzle_noise=Noise(0.6), text_noise=Noise(0.8, front_share=0.5), unroll=True)
# Small puzzles, JSON and the causal loss are nearly learned by here; 9x9 and edits are not.
_ONE_CANVAS_2 = replace(ONE_CANVAS, mix={"json": 0.2, "edit-short": 0.4, "9x9": 0.4})
_HARD_ONES = replace(
    _OWN_MISTAKES, first=2500, one_canvas=_ONE_CANVAS_2, third=(PUZZLES, _ONE_CANVAS_2),
    long_edits=4 * (TWO_CANVASES, THREE_CANVASES) + (TWO_CANVASES, CAUSAL))
# Begins with the second, shorter cycle of the learning rate. For lack of 4x4 those with few clues had suffered.
_ALL_TOGETHER = replace(
    _HARD_ONES, first=7000, one_canvas=replace(ONE_CANVAS, mix={"json": 0.1, "edit-short": 0.5, "9x9": 0.4}),
    third=(replace(PUZZLES, mix={"6x6": 0.5, "4x4": 0.5}),))
# A third cycle. What was wrong before it were small puzzles: one digit, or two that stand for each other.
_SMALL_PUZZLES = replace(
    _ALL_TOGETHER, first=9500, third=(replace(PUZZLES, rows=18, mix={"6x6": 0.45, "4x4": 0.55}),))
PHASES = (_START, _COPY, _OWN_MISTAKES, _HARD_ONES, _ALL_TOGETHER, _SMALL_PUZZLES)

# (step, share of the full learning rates), straight lines between; the last step is the length of the run.
LEARNING_RATE = ((0, 0.0), (150, 1.0), (2000, 1.0), (7000, 0.0), (7100, 0.5), (9500, 0.0), (9600, 0.5), (13000, 0.0))
LAST_STEP = LEARNING_RATE[-1][0]
# From here a run goes on from what it would publish (the average, in bf16) with a new optimiser, so that this cycle
# can also be run on a published folder alone.
RESTART = _SMALL_PUZZLES.first


def learning_rate(step: int) -> float:
    """Share of the full learning rates for the update that follows `step` updates."""
    return float(np.interp(step + 1, *zip(*LEARNING_RATE)))


def phase_at(step: int) -> Phase:
    return [p for p in PHASES if p.first <= step][-1]


def step_batches(step: int) -> list[tuple[Bucket, int, float]]:
    """The batches of a step: bucket, number of the batch in its stream, weight of its loss.

    Worker r of w runs every w-th from the r-th on.
    """
    phase = phase_at(step)
    third = phase.third[step % len(phase.third)]
    return [(phase.one_canvas, 2 * step, 0.35), (phase.long_edits[step % len(phase.long_edits)], step, 0.35),
            (third, 2 * step + 1, 0.3)]
