"""The three held-out tasks of dgrt-mini: sudoku, JSON records and edits.

Each module offers `generate(seed, index) -> Case` and `check(case, text) -> bool`.
A case depends only on (seed, index), so a stream can be resumed or split anywhere.
This package uses the standard library only; benchmarks import it without torch.
"""
from .case import Case, TRAIN_SEED, HELD_OUT_SEED
from . import edit, json_record, sudoku

TASKS = {"sudoku": sudoku, "json_record": json_record, "edit": edit}

__all__ = ["Case", "TASKS", "TRAIN_SEED", "HELD_OUT_SEED", "edit", "json_record", "sudoku"]
