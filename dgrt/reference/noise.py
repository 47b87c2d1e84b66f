"""Readable twin of `csrc/common/philox.h`, equal bit for bit: counter-based random numbers.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). A draw is a pure function of
(seed, request, canvas, step, stream, position). Numpy only. Used by the reference stages and by the statistics tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_ROUNDS = 10


class Stream(IntEnum):
    """What a draw is for."""

    INITIAL_CANVAS = 0
    RENOISE = 1
    SAMPLING = 2
    DRAFTER = 3
    VERIFICATION_FOLDS = 4
    CAUSAL_SAMPLING = 5


@dataclass(frozen=True, kw_only=True)
class NoiseKey:
    """Where in the life of a request a draw is made.

    Attributes:
        seed: 64 bits.
        request: Below 2**24.
        canvas: Index of the canvas, from 0.
        step: n of the schedule, counting down from N; 0 for the initial canvas.
    """

    seed: int = 0
    request: int = 0
    canvas: int = 0
    step: int = 0


def philox4x32(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Returns the four 32-bit words of each counter.

    Args:
        counter: [n, 4], 32-bit words in 64-bit integers, so that products do not overflow.
        key: Low and high word of the seed.

    Example:
        >>> hex(philox4x32(np.zeros((1, 4), np.uint64), (0, 0))[0, 0])
        '0x6627e8d5'
    """
    c0, c1, c2, c3 = counter.T
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> _HALF) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _HALF) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack((c0, c1, c2, c3), axis=1)


def noise_words(key: NoiseKey, stream: int, num_positions: int) -> NDArray[np.uint64]:
    """Returns the words of positions 0 .. num_positions - 1, [n, 4].

    Example:
        >>> noise_words(NoiseKey(seed=1), Stream.SAMPLING, 3).shape
        (3, 4)
    """
    counter = np.empty((num_positions, 4), np.uint64)
    counter[:, 0] = np.arange(num_positions, dtype=np.uint64)
    counter[:, 1], counter[:, 2] = key.step, key.canvas
    counter[:, 3] = (key.request << 8) | int(stream)
    return philox4x32(counter, (key.seed & 0xFFFFFFFF, key.seed >> 32))


def uniform(key: NoiseKey, stream: int, num_positions: int) -> NDArray[np.float64]:
    """Returns uniforms in [0, 1) with 53 bits, [n], from words 0 and 1.

    Example:
        >>> bool((uniform(NoiseKey(), Stream.SAMPLING, 4) < 1).all())
        True
    """
    words = noise_words(key, stream, num_positions)
    high, low = (words[:, 0] >> np.uint64(5)).astype(np.float64), (words[:, 1] >> np.uint64(6)).astype(np.float64)
    return (high * 67108864.0 + low) / 9007199254740992.0


def integers(key: NoiseKey, stream: int, num_positions: int, bound: int) -> NDArray[np.int32]:
    """Returns integers in [0, bound), [n], by multiply-shift of word 0.

    Example:
        >>> int(integers(NoiseKey(), Stream.RENOISE, 5, 10).max()) < 10
        True
    """
    words = noise_words(key, stream, num_positions)
    return ((words[:, 0] * np.uint64(bound)) >> _HALF).astype(np.int32)
