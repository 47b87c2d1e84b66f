"""Sudoku puzzles of sizes 4x4, 6x6 (boxes of 2 rows x 3 columns) and 9x9.

The prompt holds the puzzle with dots for blanks, the answer the solved rows.
Every puzzle has exactly one solution. `generate` builds a fresh puzzle with the
solver of `sudoku_solver.py`; `augment` draws a random symmetric image of a pool
puzzle, which keeps uniqueness and costs no search (used for training).
"""
import random
from collections.abc import Sequence

from .case import Case, case_rng
from .sudoku_solver import Geometry, carve, random_solution

GEOMETRY = {"4x4": Geometry(2, 2), "6x6": Geometry(2, 3), "9x9": Geometry(3, 3)}
# Clue ranges per level. "9x9" is the level with 36 clues or more; "9x9-few" has fewer.
CLUES = {"4x4": (5, 9), "6x6": (12, 20), "9x9": (36, 48), "9x9-few": (28, 35)}
LEVELS = tuple(CLUES)


def generate(seed: int, index: int, level: str | None = None) -> Case:
    """Builds puzzle number `index` of the stream `seed`.

    Args:
        seed: Stream number; training and held-out streams differ.
        index: Position in the stream.
        level: One of `LEVELS`; None takes them in turn.
    """
    level = level or LEVELS[index % len(LEVELS)]
    rng = case_rng("sudoku-" + level, seed, index)
    geometry = GEOMETRY[level[:3]]
    target = rng.randint(*CLUES[level])
    while True:
        solution = random_solution(geometry, rng)
        puzzle = carve(solution, geometry, target, rng)
        # Carving can get stuck above the target; the level still bounds the clue count.
        if sum(map(bool, puzzle)) <= CLUES[level][1]:
            return to_case(puzzle, solution, level)


def augment(pool: Sequence[tuple[Sequence[int], Sequence[int]]], seed: int, index: int, level: str) -> Case:
    """Returns a random symmetric image of a pool puzzle, with extra clues up to a random target.

    Symmetries are digit relabelling, row and column swaps inside bands, band and stack swaps
    and, for square boxes, transposition. Adding clues of the solution keeps uniqueness too.
    """
    rng = case_rng("sudoku-augment-" + level, seed, index)
    geometry = GEOMETRY[level[:3]]
    n = geometry.size
    puzzle, solution = pool[rng.randrange(len(pool))]
    rows, cols = _line_order(geometry.box_rows, n, rng), _line_order(geometry.box_cols, n, rng)
    transpose = geometry.box_rows == geometry.box_cols and rng.random() < 0.5
    digits = [0] + rng.sample(range(1, n + 1), n)
    cells = [(c * n + r) if transpose else (r * n + c) for r in rows for c in cols]
    new_puzzle = [digits[puzzle[i]] for i in cells]
    new_solution = [digits[solution[i]] for i in cells]
    missing = rng.randint(*CLUES[level]) - sum(map(bool, new_puzzle))
    if missing > 0:
        blanks = [i for i, v in enumerate(new_puzzle) if not v]
        for i in rng.sample(blanks, min(missing, len(blanks))):
            new_puzzle[i] = new_solution[i]
    return to_case(new_puzzle, new_solution, level)


def check(case: Case, output_text: str) -> bool:
    """True if the text is a complete valid grid that agrees with every clue."""
    geometry = GEOMETRY[case.meta["size"]]
    n = geometry.size
    rows = output_text.strip("\n").split("\n")
    if len(rows) != n or any(len(r) != n for r in rows):
        return False
    text = "".join(rows)
    if any(ch not in "123456789"[:n] for ch in text):
        return False
    grid = [int(ch) for ch in text]
    clues = case.prompt.split("\n", 1)[1].replace("\n", "")
    if any(clue != "." and clue != ch for clue, ch in zip(clues, text)):
        return False
    return all(len({grid[i] for i in unit}) == n for unit in geometry.units)


def to_case(puzzle: Sequence[int], solution: Sequence[int], level: str) -> Case:
    """Writes a puzzle and its solution as text."""
    size = level[:3]
    n = GEOMETRY[size].size
    prompt = f"sudoku {size}\n" + _text(puzzle, n)
    return Case(prompt, _text(solution, n), {"task": "sudoku", "level": level, "size": size})


def _text(grid: Sequence[int], n: int) -> str:
    digits = "".join(str(v) if v else "." for v in grid)
    return "\n".join(digits[r : r + n] for r in range(0, n * n, n))


def _line_order(band: int, n: int, rng: random.Random) -> list[int]:
    bands = rng.sample(range(n // band), n // band)
    return [b * band + i for b in bands for i in rng.sample(range(band), band)]
