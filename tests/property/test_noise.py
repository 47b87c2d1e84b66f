"""The noise: the native generator equals its readable twin bit for bit, and its streams are uniform and independent.

Statistics use fixed keys and six-sigma bounds, so that a failure is a defect and never bad luck.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from cases import (
    NOISE_BOUNDS,
    NOISE_KEYS,
    NOISE_LENGTHS,
    NUM_BINS,
    NUM_DRAWS,
    NUM_PAIRS,
    NUM_STREAMS,
    PHILOX_ANSWERS,
    SIGMAS,
)
from numpy.typing import NDArray

from dgrt import _native
from dgrt.reference import noise
from dgrt.reference.noise import NoiseKey, Stream

STREAMS = range(NUM_STREAMS)
BASE = {"seed": 20_260_610, "request": 5, "canvas": 2, "step": 17}


def uniforms(count: int, stream: int = 0, **changes: int) -> NDArray[np.float64]:
    return _native.noise_uniform(**{**BASE, **changes}, stream=stream, num_positions=count)


def assert_chi_square(counts: NDArray[Any], expected: NDArray[Any] | float) -> None:
    """A chi-square statistic has mean f and variance 2 f for f degrees of freedom."""
    freedom = counts.size - 1
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert abs(statistic - freedom) < SIGMAS * (2 * freedom) ** 0.5, f"chi-square {statistic} for {freedom}"


def assert_uncorrelated(a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    """The correlation of n independent pairs has standard deviation 1 / sqrt(n)."""
    assert abs(np.corrcoef(a, b)[0, 1]) * a.size**0.5 < SIGMAS


@pytest.mark.parametrize(("counter", "key", "words"), PHILOX_ANSWERS)
def test_the_twin_gives_the_published_answers(counter: Any, key: Any, words: Any) -> None:
    assert noise.philox4x32(np.array([counter], np.uint64), key)[0].tolist() == list(words)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("fields", NOISE_KEYS)
def test_native_noise_equals_the_twin_bit_for_bit(fields: dict[str, int], stream: int) -> None:
    key = NoiseKey(**fields)
    for length in NOISE_LENGTHS:
        native = _native.noise_uniform(**fields, stream=stream, num_positions=length)
        assert native.tobytes() == noise.uniform(key, stream, length).tobytes()
        for bound in NOISE_BOUNDS:
            drawn = _native.noise_integers(**fields, stream=stream, num_positions=length, bound=bound)
            assert np.array_equal(drawn, noise.integers(key, stream, length, bound))


def test_the_streams_of_the_twin_are_those_of_the_native_side() -> None:
    assert [stream.value for stream in Stream] == list(STREAMS)
    with pytest.raises(_native.InvalidArgument):
        _native.noise_uniform(**BASE, stream=NUM_STREAMS, num_positions=1)


@pytest.mark.parametrize("stream", STREAMS)
def test_uniforms_fill_the_unit_interval_evenly(stream: int) -> None:
    draws = uniforms(NUM_DRAWS, stream)
    assert draws.min() >= 0.0 and draws.max() < 1.0
    assert_chi_square(np.bincount((draws * NUM_BINS).astype(int), minlength=NUM_BINS), NUM_DRAWS / NUM_BINS)
    for power, mean in ((1, 1 / 2), (2, 1 / 3)):
        deviation = (1 / (2 * power + 1) - mean**2) ** 0.5
        assert abs((draws**power).mean() - mean) < SIGMAS * deviation / NUM_DRAWS**0.5


@pytest.mark.parametrize("shift", [8, 20, 32, 45])
def test_the_low_bits_are_as_random_as_the_high_ones(shift: int) -> None:
    bits = (uniforms(NUM_DRAWS) * 2.0**53).astype(np.uint64) >> np.uint64(53 - 8 - shift)
    assert_chi_square(np.bincount((bits & np.uint64(255)).astype(int), minlength=256), NUM_DRAWS / 256)


def test_all_53_bits_occur() -> None:
    bits = (uniforms(NUM_DRAWS) * 2.0**53).astype(np.uint64)
    assert int(np.bitwise_or.reduce(bits)) == 2**53 - 1
    assert int(np.bitwise_and.reduce(bits)) == 0


@pytest.mark.parametrize("stream", [Stream.INITIAL_CANVAS, Stream.RENOISE])
@pytest.mark.parametrize("bound", [111, 384, 32_003])
def test_integers_are_even_over_the_vocabulary(stream: Stream, bound: int) -> None:
    draws = _native.noise_integers(**BASE, stream=stream, num_positions=NUM_DRAWS, bound=bound)
    assert draws.min() >= 0 and draws.max() < bound
    cells = min(bound, NUM_BINS)
    cell_of = np.arange(bound) * cells // bound
    expected = np.bincount(cell_of, minlength=cells) * (NUM_DRAWS / bound)
    assert_chi_square(np.bincount(cell_of[draws], minlength=cells), expected)


@pytest.mark.parametrize("pair", list(combinations(STREAMS, 2)), ids=str)
def test_streams_are_independent(pair: tuple[int, int]) -> None:
    assert_uncorrelated(uniforms(NUM_PAIRS, pair[0]), uniforms(NUM_PAIRS, pair[1]))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": BASE["seed"] + 1},
        {"seed": BASE["seed"] ^ 2**63},
        {"request": 6},
        {"canvas": 3},
        {"step": 16},
        {"step": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", STREAMS)
def test_neighbouring_seeds_requests_canvases_and_steps_are_independent(stream: int, changes: dict[str, int]) -> None:
    assert_uncorrelated(uniforms(NUM_PAIRS, stream), uniforms(NUM_PAIRS, stream, **changes))


@pytest.mark.parametrize("lag", [1, 2, 95, 96, 256])
def test_positions_are_independent(lag: int) -> None:
    draws = uniforms(NUM_PAIRS + lag)
    assert_uncorrelated(draws[lag:], draws[:-lag])


def test_neighbouring_positions_fill_the_square_evenly() -> None:
    side = 16
    first, second = (uniforms(2 * NUM_PAIRS).reshape(-1, 2) * side).astype(int).T
    assert_chi_square(np.bincount(first * side + second, minlength=side * side), NUM_PAIRS / side**2)


def test_the_steps_of_one_position_are_evenly_spread() -> None:
    """One position over many steps and canvases, the direction in which a generation actually draws."""
    draws = np.array([uniforms(1, Stream.SAMPLING, step=n, canvas=c)[0] for c in range(128) for n in range(1, 129)])
    cells = 64
    assert_chi_square(np.bincount((draws * cells).astype(int), minlength=cells), draws.size / cells)


def test_no_two_keys_share_their_draws() -> None:
    keys = {tuple({**BASE, field: value}.items()) for field in BASE for value in range(8)}
    draws = {uniforms(4, stream, **dict(key)).tobytes() for key in keys for stream in STREAMS}
    assert len(draws) == NUM_STREAMS * len(keys)
