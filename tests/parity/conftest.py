"""Pairs of an engine and the transformers model of the same checkpoint, each built once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import models
import pytest

import dgrt


@dataclass(frozen=True)
class Pair:
    """An engine and its oracle."""

    runtime: dgrt.Runtime
    model: Any

    @property
    def info(self) -> dgrt.EngineInfo:
        return self.runtime.info


Pairs = Callable[[str], Pair]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The oracle on one thread: small matrices gain nothing from more, and other processes lose."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pairs(checkpoints: Any, engines: Any) -> Iterator[Pairs]:
    """The pair of a name: "mini", or one of `models.RANDOM_SPECS`."""
    built: dict[str, Pair] = {}

    def build(name: str) -> Pair:
        if name not in built:
            built[name] = Pair(dgrt.Runtime(engines(name), threads=1), models.load_reference(checkpoints(name)))
        return built[name]

    yield build
    for pair in built.values():
        pair.runtime.close()


@pytest.fixture(scope="session")
def mini(pairs: Pairs) -> Pair:
    return pairs("mini")
