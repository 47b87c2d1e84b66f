"""Entropy-bound acceptance: the native rule, its twin and transformers' sampler agree on every input, ties included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import ACCEPT_LENGTHS, ACCEPT_ROUNDS, ACCEPT_SCALES, ENTROPY_BOUND
from numpy.typing import NDArray

from dgrt import _native
from dgrt.reference import sampling


def transformers_rule(monkeypatch: pytest.MonkeyPatch, entropy: NDArray[np.float32], bound: float) -> NDArray[np.bool_]:
    """The mask of transformers' EntropyBoundSampler for given entropies, instead of those of a distribution."""
    from transformers.models.diffusion_gemma import generation_diffusion_gemma as generation

    class Given:
        def __init__(self, logits: torch.Tensor) -> None:
            self._logits = logits

        def entropy(self) -> torch.Tensor:
            return self._logits

    monkeypatch.setattr(torch.distributions, "Categorical", Given)
    config = generation.EntropyBoundSamplerConfig(entropy_bound=bound)
    sampler = generation.EntropyBoundSampler(config, len(entropy), 2, 1)
    tokens = torch.zeros((1, len(entropy)), dtype=torch.long)
    sampler.accept_canvas(tokens, tokens, torch.as_tensor(entropy)[None], 1)
    monkeypatch.undo()
    mask: NDArray[np.bool_] = sampler.accepted_token_mask[0].numpy()
    return mask


def random_entropies(length: int, scale: float, kind: str) -> list[NDArray[np.float32]]:
    """Continuous values; values on a coarse grid, so that many are equal; mostly zeros, as at the end of a canvas."""
    rng = np.random.default_rng([length, int(1 / scale), len(kind)])
    out = []
    for _ in range(ACCEPT_ROUNDS):
        values = rng.exponential(scale, length)
        if kind == "grid":
            values = np.round(values / scale * 4) / 4 * scale
        if kind == "zeros":
            values = np.where(rng.random(length) < 0.9, 0.0, values)
        out.append(values.astype(np.float32))
    return out


@pytest.mark.parametrize("kind", ["continuous", "grid", "zeros"])
@pytest.mark.parametrize("scale", ACCEPT_SCALES)
@pytest.mark.parametrize("length", ACCEPT_LENGTHS)
def test_native_twin_and_transformers_agree(
    monkeypatch: pytest.MonkeyPatch, length: int, scale: float, kind: str
) -> None:
    for entropy in random_entropies(length, scale, kind):
        native = _native.accept_by_entropy(entropy, ENTROPY_BOUND)
        assert np.array_equal(native, sampling.accept_by_entropy(entropy, ENTROPY_BOUND))
        oracle = transformers_rule(monkeypatch, entropy, ENTROPY_BOUND)
        # transformers' sort leaves the order of equal entropies open; how many are accepted at each value is not.
        assert sorted(entropy[native].tolist()) == sorted(entropy[oracle].tolist())
        if len(set(entropy.tolist())) == length:
            assert np.array_equal(native, oracle)


def test_ties_go_to_the_lower_position() -> None:
    entropy = np.full(8, 0.25, np.float32)  # sums exact in binary
    assert _native.accept_by_entropy(entropy, 0.5).tolist() == [True] * 3 + [False] * 5


@pytest.mark.parametrize("position", [0, 3, 7])
def test_the_most_certain_position_is_always_accepted(position: int) -> None:
    entropy = np.full(8, 50.0, np.float32)
    entropy[position] = 40.0
    assert np.flatnonzero(_native.accept_by_entropy(entropy, ENTROPY_BOUND)).tolist() == [position]


def test_a_sum_equal_to_the_bound_still_accepts() -> None:
    entropy = np.array([0.5, 0.25, 0.25], np.float32)  # exact in binary: 0.25 + 0.25 before the last
    assert _native.accept_by_entropy(entropy, 0.5).all()
    assert not _native.accept_by_entropy(entropy, np.nextafter(np.float32(0.5), np.float32(0)).item()).all()


def test_a_larger_bound_never_accepts_less() -> None:
    for entropy in random_entropies(96, 0.1, "continuous")[:50]:
        masks = [_native.accept_by_entropy(entropy, bound) for bound in (1e-3, 1e-2, 1e-1, 1.0, 100.0)]
        for small, large in zip(masks, masks[1:], strict=False):
            assert not (small & ~large).any()
        assert masks[-1].all()


def test_a_position_that_is_not_a_number_is_never_accepted() -> None:
    entropy: Any = np.array([np.nan, 0.01, np.nan, 0.02], np.float32)
    assert _native.accept_by_entropy(entropy, ENTROPY_BOUND).tolist() == [False, True, False, True]
    assert sampling.accept_by_entropy(entropy, ENTROPY_BOUND).tolist() == [False, True, False, True]
