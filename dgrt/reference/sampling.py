"""Readable twin of the native sampler: the vocabulary head, the sampling rule and entropy-bound acceptance.

Twin of `csrc/kernels` (rule in `params.h`), in float64 and with the whole [L, V] in memory. Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VOCAB_TILE = 512  # kVocabTile of params.h


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadOutput:
    """What the vocabulary head returns: argmax [L], entropy [L] (nats), sampled [L], soft [L, D], probs [L, V]."""

    argmax: NDArray[np.int32]
    entropy: NDArray[np.float64]
    sampled: NDArray[np.int32]
    soft: NDArray[np.float64]
    probs: NDArray[np.float64]


def temperature(step: int, max_steps: int, t_min: float, t_max: float) -> float:
    """Returns T_n of the linear schedule, every operation rounded to float32 as in the reference.

    Args:
        step: n, counting down from N to 1.
        max_steps: N.
        t_min: Temperature at n = 0.
        t_max: Temperature at n = N.

    Example:
        >>> round(temperature(48, 48, 0.4, 0.8), 6)
        0.8
    """
    low, rise = np.float32(t_min), np.float32(t_max) - np.float32(t_min)
    return float(low + rise * (np.float32(step) / np.float32(max_steps)))


def vocabulary_head(
    hidden: NDArray[np.floating],
    table: NDArray[np.floating],
    *,
    softcap: float,
    temperature: float,
    embed_scale: float,
    uniform: NDArray[np.float64],
    pinned: Sequence[int] | None = None,
    allowed: Sequence[Sequence[int] | None] | None = None,
) -> HeadOutput:
    """Returns the step distribution of every position and what is drawn from it.

    Args:
        hidden: [L, D], after the final norm.
        table: [V, D], the tied embedding.
        softcap: c of c * tanh(score / c); 0: none.
        temperature: T_n, above 0.
        embed_scale: sqrt(D).
        uniform: [L], one per position, in [0, 1).
        pinned: [L] token ids or -1.
        allowed: [L] sorted ids or None.

    Example:
        >>> out = vocabulary_head(np.ones((1, 2)), np.eye(2), softcap=0, temperature=1, embed_scale=1,
        ...                       uniform=np.array([0.9]))
        >>> int(out.sampled[0])
        1
    """
    scores = np.asarray(hidden, np.float64) @ np.asarray(table, np.float64).T
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    scores = scores / temperature
    for row, ids in enumerate(allowed or ()):
        if ids is not None:
            outside = np.ones(scores.shape[1], bool)
            outside[list(ids)] = False
            scores[row, outside] = -np.inf
    for row, token in enumerate(pinned if pinned is not None else ()):
        if token >= 0:
            scores[row] = -np.inf
            scores[row, token] = 0.0
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    probs = weights / weights.sum(axis=1, keepdims=True)
    return HeadOutput(
        argmax=scores.argmax(axis=1).astype(np.int32),
        entropy=entropy(probs),
        sampled=sample(weights, uniform),
        soft=embed_scale * (probs @ np.asarray(table, np.float64)),
        probs=probs,
    )


def entropy(probs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns -sum p ln p per row, nats; tokens without mass add nothing.

    Example:
        >>> entropy(np.array([[0.0, 1.0]])).tolist()
        [0.0]
    """
    p = np.asarray(probs, np.float64)
    logs = np.log(np.where(p > 0, p, 1.0))
    nats: NDArray[np.float64] = 0.0 - (p * logs).sum(axis=1)
    return nats


def sample(weights: NDArray[np.floating], uniform: NDArray[np.float64]) -> NDArray[np.int32]:
    """Returns the token that each uniform selects: first a tile of the vocabulary, then a token inside it.

    The tile is the first whose running sum exceeds `uniform * total`; the token the first whose running sum inside the
    tile exceeds what remains, or the tile's heaviest token if rounding runs past the end.

    Args:
        weights: [L, V], not negative, not all zero, need not sum to 1.
        uniform: [L], in [0, 1).

    Example:
        >>> sample(np.array([[1.0, 0.0, 3.0]]), np.array([0.25])).tolist()
        [2]
    """
    exact = np.asarray(weights, np.float64)
    starts = np.arange(0, exact.shape[1], VOCAB_TILE)
    tile_sums = np.add.reduceat(exact, starts, axis=1)
    tokens = np.empty(exact.shape[0], np.int32)
    for row, (sums, target) in enumerate(zip(tile_sums, uniform * tile_sums.sum(axis=1), strict=True)):
        running = np.cumsum(sums)
        tile = _first_above(running, target, sums)
        rest = target - (running[tile - 1] if tile else 0.0)
        inside = exact[row, starts[tile] : starts[tile] + VOCAB_TILE]
        tokens[row] = starts[tile] + _first_above(np.cumsum(inside), rest, inside)
    return tokens


def _first_above(running: NDArray[np.float64], target: float, weights: NDArray[np.float64]) -> int:
    above = np.flatnonzero(running > target)
    return int(above[0]) if above.size else int(np.argmax(weights))


def accept_by_entropy(entropies: NDArray[np.floating], entropy_bound: float) -> NDArray[np.bool_]:
    """Returns which positions keep their token (entropy-bound sampler, arXiv 2505.24857).

    In ascending (entropy, position) order a position is accepted while the entropy before it is at most the bound.
    Rounding follows the reference: the running sum is rounded to float32 and the position's own entropy subtracted in
    float32, so that the three implementations agree on every input. NaN is never accepted.

    Args:
        entropies: [L], nats.
        entropy_bound: Nats.

    Example:
        >>> accept_by_entropy(np.array([0.3, 0.05, 0.2]), 0.1).tolist()
        [False, True, True]
    """
    own = np.asarray(entropies, np.float32)
    order = np.argsort(own, kind="stable")
    running = np.cumsum(own[order].astype(np.float64)).astype(np.float32)
    accepted = np.zeros(len(own), bool)
    accepted[order] = running - own[order] <= np.float32(entropy_bound)
    return accepted
