"""How far a tensor of a graph is from the reference's, and the verdict on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .errors import ParityError, mismatch


@dataclass(frozen=True)
class Difference:
    """The largest of a tensor."""

    error: float
    scale: float  # largest value of the expected tensor, but at least 1
    place: str

    @property
    def relative(self) -> float:
        return self.error / self.scale


def difference(actual: np.ndarray, expected: np.ndarray, place: str) -> Difference:
    """Infinite where either side has a value that is no number; other shapes are a ParityError."""
    if actual.shape != expected.shape:
        raise ParityError(mismatch(f"shape of {place}", expected.shape, actual.shape))
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return Difference(math.inf, 1.0, place)
    error = float(np.abs(actual - expected).max(initial=0))
    return Difference(error, max(1.0, float(np.abs(expected).max(initial=0))), place)


def require_small(worst: Difference, tolerance: float, reference: str, prefix: str = "") -> dict[str, float]:
    """The figures for the manifest, their names behind `prefix`.

    Raises:
        ParityError: the difference, relative to the largest value, is above the tolerance.
    """
    if not worst.relative <= tolerance:
        expected = f"a difference of at most {tolerance * worst.scale:.1e}"
        found = f"{worst.error:.3e} ({worst.relative:.1e} of the largest value, limit {tolerance:.1e})"
        raise ParityError(mismatch(f"parity of {worst.place} with {reference}", expected, found))
    return {
        f"{prefix}max_abs_error": worst.error, f"{prefix}max_rel_error": worst.relative, f"{prefix}limit": tolerance,
    }  # fmt: skip
