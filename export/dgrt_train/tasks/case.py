"""The record that every task generator returns, and the seeds of the three splits.

Training, probe (looked at while a model is made) and held-out (reported) cases come
from the same generators with different seeds; the seed enters a hash, so the streams share no random state.
"""
import random
from dataclasses import dataclass, field
from typing import Any

TRAIN_SEED = 1
PROBE_SEED = 30_001
HELD_OUT_SEED = 20_001


@dataclass(frozen=True)
class Case:
    """One task instance.

    Attributes:
        prompt: Content of the user turn.
        answer: The text the model should produce (without the end-of-turn token).
        meta: Facts that the checker or a report needs, e.g. the sudoku size.
    """

    prompt: str
    answer: str
    meta: dict[str, Any] = field(default_factory=dict)


def case_rng(task: str, seed: int, index: int) -> random.Random:
    """Returns a generator that depends on (task, seed, index) and on nothing else."""
    return random.Random(f"{task}:{seed}:{index}")
