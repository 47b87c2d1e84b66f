"""`mini` answers: held-out cases of every task through the native runtime, as `benchmarks/accuracy.py` asks them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cases import MINI_FLOORS
from dgrt_train.tasks import HELD_OUT_SEED, Case, edit, json_record, sudoku

import dgrt

TASKS: dict[str, tuple[Callable[[int, int], Case], Callable[[Case, str], bool]]] = {
    "sudoku_4x4": (lambda seed, i: sudoku.generate(seed, i, "4x4"), sudoku.check),
    "sudoku_6x6": (lambda seed, i: sudoku.generate(seed, i, "6x6"), sudoku.check),
    "sudoku_9x9": (lambda seed, i: sudoku.generate(seed, i, "9x9"), sudoku.check),
    "json": (json_record.generate, json_record.check),
    "edit_short": (lambda seed, i: edit.generate(seed, i, "short"), edit.check),
}


@pytest.mark.parametrize("task", MINI_FLOORS)
def test_mini_answers_held_out_cases(mini: dgrt.Runtime, task: str) -> None:
    generate, check = TASKS[task]
    cases, floor = MINI_FLOORS[task]
    wrong = []
    for index in range(cases):
        case = generate(HELD_OUT_SEED, index)
        # An answer takes one canvas; the limit keeps one that never ends short.
        text = mini.generate(case.prompt, seed=index, max_new_tokens=2 * mini.info.canvas_len).text
        if not check(case, text or ""):
            wrong.append((index, text))
    assert cases - len(wrong) >= floor * cases, f"{len(wrong)} of {cases} wrong, such as {wrong[:3]}"
