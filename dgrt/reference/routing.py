"""Near ties of the expert router: the one place where two right implementations can differ by more than rounding.

A token goes to its top-k experts. Where the k-th and the next probability differ by less than arithmetic noise, either
expert is a right choice, and the hidden state jumps with it (about once in a million choices of a trained model, by
0.05 nats of entropy where it was seen). This file finds such ties in a transformers model and can break them the other
way, so that a comparison accepts exactly the two right answers and nothing between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch

MAX_FLIPS = 2  # ties broken the other way at a time


@dataclass(frozen=True)
class Tie:
    """One choice: the router's name in the model, and the row of its input."""

    router: str
    row: int


@contextmanager
def watched_routing(model: Any, max_gap: float, flips: Collection[Tie] = ()) -> Iterator[list[Tie]]:
    """While active, collects the near ties of every router and breaks `flips` the other way.

    Args:
        model: A `DiffusionGemmaForBlockDiffusion`.
        max_gap: Largest difference of router logits that counts as a tie.
        flips: Ties whose k-th expert is replaced by the next one.

    Yields:
        The list that ties are added to.

    Example:
        >>> with watched_routing(model, 1e-5) as ties:              # doctest: +SKIP
        ...     prefill(model, tokens)
    """
    ties: list[Tie] = []
    hooks = [
        module.register_forward_hook(_Watch(name, max_gap, flips, ties))
        for name, module in model.named_modules()
        if name.endswith(".router")
    ]
    try:
        yield ties
    finally:
        for hook in hooks:
            hook.remove()


def variants(ties: Collection[Tie]) -> list[tuple[Tie, ...]]:
    """Returns the ways to break ties, beginning with the model's own: none flipped, each one, each pair.

    Example:
        >>> len(variants([Tie("a", 0), Tie("a", 1)]))
        4
    """
    return [chosen for count in range(MAX_FLIPS + 1) for chosen in combinations(ties, count)]


class _Watch:
    """The hook of one router. Output of a router: (probabilities [N, E], weights [N, k], experts [N, k])."""

    def __init__(self, name: str, max_gap: float, flips: Collection[Tie], ties: list[Tie]) -> None:
        self._name = name
        self._max_gap = max_gap
        self._flips = [tie.row for tie in flips if tie.router == name]
        self._ties = ties

    def __call__(self, router: Any, _args: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        probabilities, weights, experts = output
        k = experts.shape[-1]
        if k == probabilities.shape[-1]:
            return None
        values, order = torch.topk(probabilities, k + 1, dim=-1)
        gaps = values[:, k - 1].log() - values[:, k].log()
        self._ties.extend(Tie(self._name, int(row)) for row in torch.nonzero(gaps <= self._max_gap)[:, 0])
        if not self._flips:
            return None
        weights, experts = weights.clone(), experts.clone()
        for row in self._flips:
            experts[row] = torch.cat((order[row, : k - 1], order[row, k:]))
            chosen = probabilities[row, experts[row]]
            weights[row] = chosen / chosen.sum() * router.per_expert_scale[experts[row]]
        return probabilities, weights, experts
