"""The vocabulary head: against its float64 twin on awkward sizes, its draws against the distribution they follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import (
    HEAD_DRAWS,
    HEAD_SHAPES,
    HEAD_SOFTCAP,
    HEAD_SPREADS,
    HEAD_TEMPERATURES,
    MIN_EXPECTED,
    NO_MASS,
    NUM_SHARP_ROWS,
    SIGMAS,
)
from compare import assert_close
from numpy.typing import NDArray
from tolerances import EXACT, tolerance

from dgrt import _native
from dgrt.reference import sampling


def make(shape: tuple[int, int, int], spread: float, seed: int = 0) -> dict[str, Any]:
    """Random hidden states and table whose scores have the given standard deviation, and random uniforms."""
    length, vocab, width = shape
    rng = np.random.default_rng([seed, length, vocab, width])
    return {
        "hidden": (rng.standard_normal((length, width)) * spread).astype(np.float32),
        "table": (rng.standard_normal((vocab, width)) / width**0.5).astype(np.float32),
        "uniform": rng.random(length),
    }


def settings(**changes: float) -> dict[str, Any]:
    return {"softcap": HEAD_SOFTCAP, "temperature": HEAD_TEMPERATURES[0], "embed_scale": 1.0, **changes}


def borders(probs: NDArray[np.float64], tokens: NDArray[np.int32], uniform: NDArray[np.float64]) -> float:
    """How far the uniforms lie outside the intervals of the sampled tokens, at most."""
    rows = np.arange(len(tokens))
    high = np.cumsum(probs, axis=1)[rows, tokens]
    low = high - probs[rows, tokens]
    return float(np.maximum(low - uniform, uniform - high).max())


@pytest.mark.parametrize("temperature", HEAD_TEMPERATURES)
@pytest.mark.parametrize("spread", HEAD_SPREADS)
@pytest.mark.parametrize("shape", HEAD_SHAPES, ids=str)
def test_the_head_computes_what_its_twin_computes(
    shape: tuple[int, int, int], spread: float, temperature: float
) -> None:
    inputs, numbers = make(shape, spread), settings(temperature=temperature, embed_scale=shape[2] ** 0.5)
    argmax, entropy, sampled, soft = _native.vocabulary_head(**inputs, **numbers)
    twin = sampling.vocabulary_head(**inputs, **numbers)
    assert_close(entropy, twin.entropy, tolerance("entropy"), "entropy")
    assert_close(soft, twin.soft, tolerance("soft"), "soft embedding")
    best = twin.probs.max(axis=1)
    assert_close(np.take_along_axis(twin.probs, argmax[:, None].astype(int), 1)[:, 0], best, tolerance("probability"))
    assert borders(twin.probs, sampled, inputs["uniform"]) <= tolerance("head_border").absolute
    clear = (
        np.abs(np.cumsum(twin.probs, axis=1) - inputs["uniform"][:, None]).min(1) > tolerance("head_border").absolute
    )
    assert_close(sampled[clear], twin.sampled[clear], EXACT, "sampled")


@pytest.mark.parametrize("shape", HEAD_SHAPES, ids=str)
def test_the_number_of_threads_changes_no_bit(shape: tuple[int, int, int]) -> None:
    inputs = make(shape, 3.0)
    one, *others = (_native.vocabulary_head(**inputs, **settings(), threads=n) for n in (1, 2, 3))
    for other in others:
        for a, b in zip(one, other, strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("shape", HEAD_SHAPES[:4], ids=str)
def test_a_bf16_table_gives_what_the_same_values_in_fp32_give(shape: tuple[int, int, int]) -> None:
    inputs = make(shape, 3.0)
    bits = (inputs["table"].view(np.uint32) >> 16).astype(np.uint16)
    widened = (bits.astype(np.uint32) << 16).view(np.float32)
    narrow = _native.vocabulary_head(**{**inputs, "table": bits}, **settings())
    wide = _native.vocabulary_head(**{**inputs, "table": widened}, **settings())
    for a, b in zip(narrow, wide, strict=True):
        assert_close(a, b, EXACT)


def test_leaving_out_the_soft_embedding_changes_nothing_else() -> None:
    inputs = make(HEAD_SHAPES[1], 3.0)
    full = _native.vocabulary_head(**inputs, **settings())
    short = _native.vocabulary_head(**inputs, **settings(), want_soft=False)
    assert short[3] is None
    for a, b in zip(full[:3], short[:3], strict=True):
        assert np.array_equal(a, b)


def test_equal_scores_give_the_smallest_id() -> None:
    inputs = make((5, 1_200, 16), 3.0)
    inputs["table"][600:] = inputs["table"][:600]
    argmax = _native.vocabulary_head(**inputs, **settings())[0]
    assert (argmax < 600).all()


@pytest.mark.parametrize("vocab", [384, 1_537])
@pytest.mark.parametrize("spread", HEAD_SPREADS[:3])
def test_evenly_spaced_uniforms_give_every_token_its_share(vocab: int, spread: float) -> None:
    """A deterministic test of the whole inverse: n spaced uniforms hit each token n p times, give or take two."""
    row, num = make((1, vocab, 16), spread), 4_096
    inputs = {**row, "hidden": np.repeat(row["hidden"], num, 0), "uniform": (np.arange(num) + 0.5) / num}
    sampled = _native.vocabulary_head(**inputs, **settings(), want_soft=False)[2]
    probs = sampling.vocabulary_head(**row, **settings()).probs[0]
    assert np.abs(np.bincount(sampled, minlength=vocab) - num * probs).max() <= 2
    assert (np.diff(sampled) >= 0).all()


@pytest.mark.parametrize("vocab", [111, 384, 1_537])
def test_draws_follow_the_distribution_within_six_sigma(vocab: int) -> None:
    row, rows = make((1, vocab, 16), 2.0), 1_000
    probs = sampling.vocabulary_head(**row, **settings()).probs[0]
    counts = np.zeros(vocab)
    for n in range(HEAD_DRAWS // rows):
        uniform = _native.noise_uniform(seed=n, request=0, canvas=0, step=1, stream=2, num_positions=rows)
        inputs = {**row, "hidden": np.repeat(row["hidden"], rows, 0), "uniform": uniform}
        counts += np.bincount(_native.vocabulary_head(**inputs, **settings(), want_soft=False)[2], minlength=vocab)
    order = np.argsort(probs)  # pool the rarest tokens until every cell is filled
    pooled, expected = [0.0], [0.0]
    for token in order:
        if expected[-1] >= MIN_EXPECTED:
            pooled.append(0.0)
            expected.append(0.0)
        pooled[-1] += counts[token]
        expected[-1] += HEAD_DRAWS * probs[token]
    observed, wanted = np.array(pooled), np.array(expected)
    assert (np.abs(observed - wanted) < SIGMAS * np.sqrt(wanted * (1 - wanted / HEAD_DRAWS))).all()
    freedom = len(wanted) - 1
    assert ((observed - wanted) ** 2 / wanted).sum() - freedom < SIGMAS * (2 * freedom) ** 0.5


@pytest.mark.parametrize("softcap", [0.0, HEAD_SOFTCAP])
@pytest.mark.parametrize("vocab", [384, 1_537])
def test_tokens_without_mass_are_never_sampled(vocab: int, softcap: float) -> None:
    """Uniforms dense at both ends, where rounding could run past the last token that has mass."""
    steps = np.logspace(-9, -1, 1_000)
    uniform = np.concatenate((steps, 1 - steps))
    numbers = settings(softcap=softcap, temperature=HEAD_TEMPERATURES[1])
    for seed in range(NUM_SHARP_ROWS):
        row = make((1, vocab, 128), 20.0, seed)
        probs = sampling.vocabulary_head(**row, **numbers).probs[0]
        assert (probs < NO_MASS).mean() > 0.5
        inputs = {**row, "hidden": np.repeat(row["hidden"], len(uniform), 0), "uniform": uniform}
        sampled = _native.vocabulary_head(**inputs, **numbers, want_soft=False)[2]
        empty = np.flatnonzero(probs[sampled] < NO_MASS)
        assert not empty.size, (
            f"row {seed}: uniform {uniform[empty[0]]!r} gave token {sampled[empty[0]]} of probability "
            f"{probs[sampled[empty[0]]]:.1e}; {empty.size} of {uniform.size} draws"
        )


def test_pinned_positions_are_certain() -> None:
    inputs, numbers = make((17, 513, 24), 3.0), settings(embed_scale=24**0.5)
    pinned = [-1 if row % 3 else 512 - row for row in range(17)]
    argmax, entropy, sampled, soft = _native.vocabulary_head(**inputs, **numbers, pinned=pinned)
    free = _native.vocabulary_head(**inputs, **numbers)
    for row, token in enumerate(pinned):
        if token < 0:
            assert (argmax[row], entropy[row], sampled[row]) == (free[0][row], free[1][row], free[2][row])
        else:
            assert argmax[row] == sampled[row] == token and entropy[row] == 0
            assert_close(soft[row], 24**0.5 * inputs["table"][token], tolerance("soft"))


@pytest.mark.parametrize("size", [1, 2, 40, 513])
def test_an_allowed_set_renormalises_the_distribution(size: int) -> None:
    inputs, numbers = make((17, 513, 24), 3.0), settings(embed_scale=24**0.5)
    rng = np.random.default_rng(size)
    allowed = [None if row % 4 == 3 else sorted(rng.choice(513, size, replace=False).tolist()) for row in range(17)]
    argmax, entropy, sampled, soft = _native.vocabulary_head(**inputs, **numbers, allowed=allowed)
    twin = sampling.vocabulary_head(**inputs, **numbers, allowed=allowed)
    for row, ids in enumerate(allowed):
        assert ids is None or (argmax[row] in ids and sampled[row] in ids)
    assert_close(argmax, twin.argmax, EXACT, "argmax")
    assert_close(entropy, twin.entropy, tolerance("entropy"), "entropy")
    assert_close(soft, twin.soft, tolerance("soft"), "soft embedding")
    assert borders(twin.probs, sampled, inputs["uniform"]) <= tolerance("head_border").absolute


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"uniform": np.array([1.0])}, "uniform"),
        ({"uniform": np.array([-0.1])}, "uniform"),
        ({"uniform": np.array([0.5, 0.5])}, "uniform"),
        ({"hidden": np.zeros((1, 3), np.float32)}, "table"),
        ({"hidden": np.zeros((1, 2), np.float64)}, "hidden"),
        ({"temperature": 0.0}, "temperature"),
        ({"pinned": [9]}, "pinned"),
        ({"allowed": [[]]}, "allowed"),
        ({"allowed": [[1, 1]]}, "allowed"),
        ({"threads": 0}, "threads"),
    ],
    ids=str,
)
def test_inputs_that_cannot_be_right_are_refused_by_name(changes: dict[str, Any], says: str) -> None:
    inputs = {"hidden": np.zeros((1, 2), np.float32), "table": np.eye(2, dtype=np.float32), "uniform": np.array([0.5])}
    with pytest.raises(_native.InvalidArgument, match=says):
        _native.vocabulary_head(**{**inputs, **settings(), **changes})
