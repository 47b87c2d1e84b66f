"""The task generators and their exact checkers: what the accuracy figures stand on."""

from __future__ import annotations

import json

import pytest
from dgrt_train.tasks import HELD_OUT_SEED, TRAIN_SEED, edit, json_record, sudoku
from dgrt_train.tasks.sudoku_solver import count_solutions

CASES = 25
GENERATORS = {
    "4x4": lambda seed, i: sudoku.generate(seed, i, "4x4"),
    "6x6": lambda seed, i: sudoku.generate(seed, i, "6x6"),
    "9x9": lambda seed, i: sudoku.generate(seed, i, "9x9"),
    "json": json_record.generate,
    "edit": edit.generate,
}
CHECKS = {"4x4": sudoku.check, "6x6": sudoku.check, "9x9": sudoku.check, "json": json_record.check, "edit": edit.check}


@pytest.mark.parametrize("task", GENERATORS)
def test_a_case_depends_on_seed_and_index_only(task: str) -> None:
    first = [GENERATORS[task](HELD_OUT_SEED, i) for i in range(5)]
    assert first == [GENERATORS[task](HELD_OUT_SEED, i) for i in reversed(range(5))][::-1]


@pytest.mark.parametrize("task", GENERATORS)
def test_held_out_cases_are_not_training_cases(task: str) -> None:
    train = {GENERATORS[task](TRAIN_SEED, i).prompt for i in range(CASES)}
    assert not train & {GENERATORS[task](HELD_OUT_SEED, i).prompt for i in range(CASES)}


@pytest.mark.parametrize("task", GENERATORS)
def test_the_checker_takes_the_answer_and_refuses_one_changed_byte(task: str) -> None:
    for index in range(CASES):
        case = GENERATORS[task](HELD_OUT_SEED, index)
        assert CHECKS[task](case, case.answer)
        place = next(i for i, ch in enumerate(case.answer) if ch.isalnum())
        wrong = case.answer[:place] + ("1" if case.answer[place] != "1" else "2") + case.answer[place + 1 :]
        assert not CHECKS[task](case, wrong)
        assert not CHECKS[task](case, "")


@pytest.mark.parametrize("size", ["4x4", "6x6", "9x9"])
def test_every_puzzle_has_exactly_one_solution(size: str) -> None:
    geometry = sudoku.GEOMETRY[size]
    for index in range(CASES):
        case = sudoku.generate(HELD_OUT_SEED, index, size)
        clues = [0 if ch == "." else int(ch) for ch in case.prompt.split("\n", 1)[1].replace("\n", "")]
        low, high = sudoku.CLUES[size]
        assert low <= sum(map(bool, clues)) <= high
        assert count_solutions(clues, geometry, limit=2) == 1


def test_json_answers_parse_to_the_typed_fields_in_order() -> None:
    for index in range(CASES):
        case = json_record.generate(HELD_OUT_SEED, index)
        fields = [field.split("=", 1) for field in case.prompt.split("\n", 1)[1].split("; ")]
        parsed = json.loads(case.answer)
        assert list(parsed) == [key for key, _ in fields]
        assert list(parsed.values()) == [json_record.typed(value) for _, value in fields]


def test_edit_answers_span_one_to_three_canvases_of_96() -> None:
    lengths = [len(edit.generate(HELD_OUT_SEED, i).answer) for i in range(200)]
    assert {length // 96 for length in lengths} == {0, 1, 2}
    assert max(lengths) <= 256
