"""The parity gate of a drafter: its graph file, on the written weights, against plain torch.

The target is gated on its own, so what it would hand to the drafter is drawn here: KV rows that look like its own, and
evidence. A drafter is small beside its target and is checked whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import contract
from .check import ROUNDED_TOLERANCE, TOLERANCE
from .check_session import CheckSession
from .checkpoint import DECODER, TensorEntry
from .config import ModelConfig
from .difference import Difference, difference, require_small
from .drafter import DrafterConfig
from .drafter_reference import DrafterReference
from .manifest import graph_file
from .operators import find_library
from .reference import read_tensors

_SEED = 20_240_611


@dataclass(frozen=True)
class _Case:
    """A block of `rows` tokens behind `past` committed ones; of the evidence the first `seen` rows are not zeros."""

    rows: int
    past: int
    seen: int


def _cases(drafter: DrafterConfig) -> Iterator[_Case]:
    """One row and whole blocks; no past, one shorter and one longer than the block; none, some and all evidence."""
    block = drafter.block_len
    yield _Case(1, 0, 0)
    yield _Case(1, 2 * block + 5, 1)
    yield _Case((block + 1) // 2, block, 0)
    yield _Case(block, 0, block)
    yield _Case(block, (block + 1) // 2, block // 2)
    yield _Case(block, 2 * block + 5, 0)


def num_drafter_passes(drafter: DrafterConfig) -> int:
    """Passes of the comparison, the reference's and the graph's."""
    return 2 * len(list(_cases(drafter)))


def check_drafter(
    folder: Path, drafter: DrafterConfig, config: ModelConfig, raw: dict[str, Any],
    entries: Mapping[str, TensorEntry], profile: contract.Profile, advance: Callable[[int], None],
) -> dict[str, float]:  # fmt: skip
    """Runs the gate on the files in `folder` and returns what the manifest's `parity` object has of it.

    Args:
        folder: the package in the making.
        drafter: the drafter, as its graph was made from it.
        config: the target.
        raw: the target's config.json.
        entries: the written tensors, the drafter's and the target's.
        profile: the operator profile of the graphs.
        advance: called after each pass, `num_drafter_passes` times.

    Raises:
        ParityError: with the place and size of the worst difference.
    """
    written = {name: replace(entry, file=folder / entry.file.name) for name, entry in entries.items()}
    is_fused = profile == contract.FUSED
    rounded = is_fused and written["evidence_proj.weight"].dtype == "BF16"
    session = CheckSession(folder / graph_file(contract.DRAFTER_GRAPH), find_library() if is_fused else None)
    reference = DrafterReference(drafter, raw, written, rounded)
    rng = np.random.default_rng(_SEED)

    differences: list[Difference] = []
    for case in _cases(drafter):
        anchor = int(rng.integers(config.vocab_size))
        evidence = rng.standard_normal((case.rows, config.hidden_size), dtype=np.float32)
        evidence[case.seen :] = 0
        past = {layer: _past_rows(rng, config, written, layer, case.past) for layer in drafter.past_layers}
        expected = reference.propose(anchor, case.past, evidence, past)
        advance(1)
        feeds = {contract.DRAFTER_TOKENS.name: np.array([[anchor]]),
                 contract.DRAFTER_POSITIONS.name: np.arange(case.past + 1, case.past + 1 + case.rows)[None],
                 contract.EVIDENCE.name: evidence[None]}  # fmt: skip
        for layer, pair in past.items():
            for tensor, rows in zip((contract.PAST_K, contract.PAST_V), pair, strict=True):
                feeds[contract.layer_tensor(tensor, layer)] = rows[None]
        hidden = session.run(feeds, [])[0][0]
        advance(1)
        place = f"drafter hidden states of {case.rows} tokens with {case.past} past tokens"
        differences.append(difference(hidden, expected, place))
    worst = max(differences, key=lambda d: d.relative)
    return require_small(worst, ROUNDED_TOLERANCE if rounded else TOLERANCE, "plain torch", "drafter_")


def _past_rows(
    rng: np.random.Generator, config: ModelConfig, entries: Mapping[str, TensorEntry], layer: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values [P, K] of the size that the target's layer gives them: normed, keys times its weight."""
    name = f"{DECODER}layers.{layer}.self_attn.k_norm.weight"
    weight = read_tensors({name: entries[name]})[name].numpy()
    k, v = rng.standard_normal((2, count, config.layers[layer].kv_width), dtype=np.float32)
    return k * np.tile(weight, config.layers[layer].num_kv_heads), v
