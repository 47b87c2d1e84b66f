"""The one comparison of arrays in tests: inf/NaN masks first, then absolute-or-relative, with the worst position."""

from __future__ import annotations

from typing import Any

import numpy as np
from tolerances import EXACT, Tolerance


def assert_close(actual: Any, expected: Any, limit: Tolerance = EXACT, what: str = "values") -> float:
    """Fails unless both arrays have the same shape, the same inf and NaN positions, and close values.

    Args:
        actual: numpy array, torch tensor or nested lists.
        expected: the same.
        limit: an entry of `tolerances.TOLERANCES`.
        what: named in the message.

    Returns:
        The largest absolute difference, for tests that report it.
    """
    a, e = _array(actual), _array(expected)
    assert a.shape == e.shape, f"{what}: shape {a.shape}, expected {e.shape}"
    if a.size == 0:
        return 0.0
    if a.dtype.kind not in "fc":
        different = np.argwhere(a != e)
        assert not len(different), _message(what, "differs", a, e, tuple(different[0]), len(different), limit)
        return 0.0
    a, e = a.astype(np.float64), e.astype(np.float64)
    for name, test in (("NaN", np.isnan), ("+inf", np.isposinf), ("-inf", np.isneginf)):
        different = np.argwhere(test(a) != test(e))
        assert not len(different), _message(
            what, f"{name} mask differs", a, e, tuple(different[0]), len(different), limit
        )
    finite = np.isfinite(e)
    difference = np.abs(np.where(finite, a, 0) - np.where(finite, e, 0))
    allowed = limit.absolute + limit.relative * np.abs(np.where(finite, e, 0))
    excess = difference - allowed
    worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
    bad = int((excess > 0).sum())
    assert not bad, _message(
        what, f"difference {difference[worst]:.3e} > {allowed[worst]:.3e}", a, e, worst, bad, limit
    )
    return float(difference.max())


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor, without importing torch
        value = value.detach().float() if value.is_floating_point() else value.detach()
        return np.asarray(value.cpu().numpy())
    return np.asarray(value)


def _message(
    what: str, problem: str, a: np.ndarray, e: np.ndarray, at: tuple[Any, ...], count: int, limit: Tolerance
) -> str:
    position = tuple(int(i) for i in at)
    values = f"actual {a[position]!r}, expected {e[position]!r}"
    return f"{what}: {problem} at {position}: {values}; {count} of {a.size} values ({limit.reason})"
