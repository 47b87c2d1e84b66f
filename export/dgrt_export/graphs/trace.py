"""Traces a wrapper with torch.export on the meta device and names its inputs and outputs after the contract."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from .. import contract
from ..config import ModelConfig
from ..drafter import DrafterConfig
from .check import Check
from .denoise import Denoise
from .drafter import BlockDrafter
from .packed import Packed
from .prefill import Prefill, Score

# Sizes to trace with: any that differ from each other and from 0 and 1, which tracing would treat as constants.
_TRACE_SIZES = {"S": 7, "B": 11, "P_sliding": 3, "P_full": 5, "Q_sliding": 2, "Q_full": 9, "G": 4, "R": 13}
# Axes with at least one row, and the fewest to trace for. Tracing takes a size of 1 for a constant; `Check` takes one
# canvas off its G, and a canvas may be of one token.
_FEWEST = {"S": 1, "B": 1, "G": 3, "R": 1}

_WRAPPERS = {
    contract.PREFILL_GRAPH: Prefill, contract.DENOISE_GRAPH: Denoise, contract.SCORE_GRAPH: Score,
    contract.PACKED_GRAPH: Packed, contract.CHECK_GRAPH: Check,
}  # fmt: skip


@dataclass(frozen=True)
class TracedGraph:
    """An exported program with the contract's names, in the order of its user inputs and outputs."""

    name: str
    program: ExportedProgram
    inputs: list[contract.Tensor]
    outputs: list[contract.Tensor]


def _expand(tensors: tuple[contract.Tensor, ...], config: ModelConfig, layers: Iterable[int]) -> list[contract.Tensor]:
    """Contract tensors with axes resolved: numbers where the model fixes them, else one of `_TRACE_SIZES`."""
    plain = [t for t in tensors if "{layer}" not in t.name]
    layered = [t for t in tensors if "{layer}" in t.name]
    rows = config.canvas_len
    fixed = {"1": "1", "L": str(rows), "3L": str(3 * rows), "D": str(config.hidden_size)}
    fixed |= {axis: axis for axis in _FEWEST}
    expanded = [contract.Tensor(t.name, tuple(fixed[a] for a in t.axes), t.dtype) for t in plain]
    for index in layers:
        layer = config.layers[index]
        axes = {**fixed, "K": str(layer.kv_width), "P": f"P_{layer.type}", "Q": f"Q_{layer.type}"}
        for t in layered:
            name = contract.layer_tensor(t, index)
            expanded.append(contract.Tensor(name, tuple(axes[a] for a in t.axes), t.dtype))
    return expanded


def trace(name: str, target: torch.nn.Module, config: ModelConfig, profile: contract.Profile) -> TracedGraph:
    """Traces one of the contract's graphs of `target`, a meta-device module tree, in the operators of a profile."""
    layers = range(len(config.layers))
    inputs, outputs = (_expand(side, config, layers) for side in contract.GRAPHS[name])
    return _trace(name, _WRAPPERS[name](target, config, profile == contract.FUSED), inputs, outputs)


def trace_drafter(
    target: torch.nn.Module, config: ModelConfig, drafter: DrafterConfig, profile: contract.Profile
) -> TracedGraph:
    """Traces the graph of a drafter for `target`."""
    name = contract.DRAFTER_GRAPH
    inputs, outputs = (_expand(side, config, drafter.past_layers) for side in contract.OPTIONAL_GRAPHS[name])
    return _trace(name, BlockDrafter(target, config, drafter, profile == contract.FUSED), inputs, outputs)


def _trace(
    name: str, wrapper: torch.nn.Module, inputs: list[contract.Tensor], outputs: list[contract.Tensor]
) -> TracedGraph:
    symbols = {axis: Dim(axis, min=_FEWEST.get(axis, 0)) for axis in _TRACE_SIZES}

    def example(tensor: contract.Tensor) -> torch.Tensor:
        shape = [_TRACE_SIZES.get(axis) or int(axis) for axis in tensor.axes]
        return torch.empty(shape, dtype=getattr(torch, tensor.dtype), device="meta")

    def dynamic(tensor: contract.Tensor) -> dict[int, Any]:
        return {i: symbols[axis] for i, axis in enumerate(tensor.axes) if axis in symbols}

    num_plain = sum("." not in tensor.name for tensor in inputs)  # the others have a layer number
    plain, past = inputs[:num_plain], inputs[num_plain:]
    with torch.no_grad():
        program = torch.export.export(
            wrapper,
            (*map(example, plain), list(map(example, past))),
            dynamic_shapes=(*map(dynamic, plain), list(map(dynamic, past))),
            strict=False,
        )
    return TracedGraph(name, program, inputs, outputs)
