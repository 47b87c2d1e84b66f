"""Pool of unique sudoku puzzles for training, built once and cached on disk.

Uniqueness needs a search, which is too slow to run for every training case. The
pool holds sparse puzzles; `tasks.sudoku.augment` turns each into billions of images.
"""
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from .tasks.case import TRAIN_SEED, case_rng
from .tasks.sudoku import GEOMETRY
from .tasks.sudoku_solver import carve, random_solution

# (number of puzzles, clue count to carve down to) per size; sparse, since clues can be added back.
SIZES = {"4x4": (1000, 4), "6x6": (1500, 11), "9x9": (4000, 30)}


def _one(args: tuple[str, int]) -> tuple[list[int], list[int]]:
    size, index = args
    rng = case_rng("sudoku-pool-" + size, TRAIN_SEED, index)
    solution = random_solution(GEOMETRY[size], rng)
    return carve(solution, GEOMETRY[size], SIZES[size][1], rng), solution


def load_pool(path: Path, workers: int = 2) -> dict[str, list[tuple[list[int], list[int]]]]:
    """Reads the pool from `path`, building it first if it is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(workers) as executor:
            pool = {
                size: list(executor.map(_one, [(size, i) for i in range(count)], chunksize=32))
                for size, (count, _) in SIZES.items()
            }
        partial = path.with_suffix(".tmp")
        partial.write_text(json.dumps(pool))
        os.replace(partial, path)
    return json.loads(path.read_text())


if __name__ == "__main__":
    import sys

    load_pool(Path(sys.argv[1]))
