"""The three held-out tasks of dgrt-mini: sudoku, JSON records and edits.

Each module offers `generate(seed, index) -> Case` and `check(case, text) -> bool`.
A case depends only on (seed, index), so a stream can be resumed or split anywhere.
This package uses the standard library only; benchmarks import it without torch.
"""
from . import edit, json_record, sudoku
from .case import HELD_OUT_SEED, TRAIN_SEED, Case

TASKS = {"sudoku": sudoku, "json_record": json_record, "edit": edit}

__all__ = ["Case", "TASKS", "TRAIN_SEED", "HELD_OUT_SEED", "edit", "json_record", "sudoku"]
