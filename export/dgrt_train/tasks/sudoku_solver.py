"""Bit-mask sudoku solver: counts solutions, draws random solved grids, removes clues.

A candidate set is an int with one bit per digit. The search always branches on the
cell with the fewest candidates, which solves naked singles without branching.
"""
import random


class Geometry:
    """Rows, columns and boxes of one grid size."""

    def __init__(self, box_rows: int, box_cols: int):
        self.box_rows, self.box_cols = box_rows, box_cols
        n = self.size = box_rows * box_cols
        per_band = n // box_cols
        self.row = [i // n for i in range(n * n)]
        self.col = [i % n for i in range(n * n)]
        self.box = [(i // n // box_rows) * per_band + (i % n) // box_cols for i in range(n * n)]
        maps = (self.row, self.col, self.box)
        self.units = [[i for i in range(n * n) if unit_of[i] == u] for unit_of in maps for u in range(n)]


class _Search:
    """State of one depth-first search over a partly filled grid."""

    def __init__(self, grid: list[int], geometry: Geometry, rng: random.Random | None):
        self.g, self.grid, self.rng = geometry, list(grid), rng
        n = geometry.size
        self.rows, self.cols, self.boxes = [[(1 << n) - 1] * n for _ in range(3)]
        self.blanks = [i for i, v in enumerate(grid) if not v]
        for i, v in enumerate(grid):
            if v:
                self._toggle(i, 1 << (v - 1))

    def _toggle(self, i: int, bit: int) -> None:
        self.rows[self.g.row[i]] ^= bit
        self.cols[self.g.col[i]] ^= bit
        self.boxes[self.g.box[i]] ^= bit

    def count(self, limit: int) -> int:
        """Counts solutions up to `limit`; the grid holds the last one found."""
        if not self.blanks:
            return 1
        row, col, box = self.g.row, self.g.col, self.g.box
        best, best_size, best_mask = -1, 99, 0
        for k, i in enumerate(self.blanks):
            mask = self.rows[row[i]] & self.cols[col[i]] & self.boxes[box[i]]
            size = mask.bit_count()
            if size < best_size:
                best, best_size, best_mask = k, size, mask
                if size < 2:
                    break
        if not best_mask:
            return 0
        blanks = self.blanks
        i = blanks[best]
        blanks[best] = blanks[-1]
        blanks.pop()
        bits = [1 << b for b in range(self.g.size) if best_mask >> b & 1]
        if self.rng:
            self.rng.shuffle(bits)
        found = 0
        for bit in bits:
            self._toggle(i, bit)
            self.grid[i] = bit.bit_length()
            found += self.count(limit - found)
            if found >= limit:
                return found
            self._toggle(i, bit)
        self.grid[i] = 0
        blanks.append(i)
        blanks[best], blanks[-1] = blanks[-1], blanks[best]
        return found


def count_solutions(grid: list[int], geometry: Geometry, limit: int = 2) -> int:
    """Counts the solutions of `grid` (0 = blank), stopping at `limit`."""
    return _Search(grid, geometry, None).count(limit)


def random_solution(geometry: Geometry, rng: random.Random) -> list[int]:
    """Draws a solved grid; the random branch order makes every grid reachable."""
    search = _Search([0] * geometry.size**2, geometry, rng)
    search.count(1)
    return search.grid


def carve(solution: list[int], geometry: Geometry, clues: int, rng: random.Random) -> list[int]:
    """Removes clues in random order while the solution stays unique, down to `clues`."""
    puzzle = list(solution)
    left = len(puzzle)
    for i in rng.sample(range(len(puzzle)), len(puzzle)):
        if left <= clues:
            break
        value, puzzle[i] = puzzle[i], 0
        if count_solutions(puzzle, geometry) == 1:
            left -= 1
        else:
            puzzle[i] = value
    return puzzle
