"""Router and experts in standard ONNX. Three forms of the experts, all on untransposed, uncopied weights.

dense     every expert sees every row; unwanted results are weighted 0. Few nodes: fastest when experts are tiny.
unrolled  rows sorted by expert, one pair of Gemm per expert on its own slice `name#e` of the stored tensor.
loop      an ONNX Loop over the experts that were hit, gathering one expert's weights at a time: nothing is prepacked
          or folded, so memory stays with the mapped file. For models whose experts do not fit twice.
README.md of this package has the measurements behind `choose`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from onnx import TensorProto, helper

from ..config import ModelConfig
from .builder import GraphBuilder

Form = Literal["dense", "unrolled", "loop"]


@dataclass(frozen=True)
class Shape:
    """gate_up is [num_experts, 2 * inner, hidden]."""

    num_experts: int
    gate_up: int
    hidden: int
    top_k: int

    @property
    def inner(self) -> int:
        return self.gate_up // 2


_MAX_DENSE_WASTE = 1 << 16  # multiplications per row spent on experts that were not chosen
_MAX_UNROLLED_PARAMETERS = 1 << 30  # of all experts together: each is prepacked, a private copy
_MAX_UNROLLED_EXPERTS = 1024  # over all layers: two nodes each


def choose(config: ModelConfig) -> Form:
    """The fastest form on the CPU whose memory is bearable at this size."""
    experts = config.num_experts * len(config.layers)
    size = 3 * config.moe_intermediate_size * config.hidden_size
    if (config.num_experts - config.top_k_experts) * size <= _MAX_DENSE_WASTE:
        return "dense"
    if experts <= _MAX_UNROLLED_EXPERTS and experts * size <= _MAX_UNROLLED_PARAMETERS:
        return "unrolled"
    return "loop"


def route(build: GraphBuilder, x: str, weights: list[str], width: int, epsilon: float, top_k: int) -> list[str]:
    """[index, weight], both [S, k], from the raw residual x [S, D]; `weights`: scale, proj, per_expert_scale."""
    scale, proj, per_expert_scale = weights
    ones = build.constant(np.ones(width, np.float32), "ones")
    normed = build.node("RMSNormalization", [x, ones], "router.norm", axis=-1, epsilon=epsilon)
    scaled = build.node("Mul", [build.node("Mul", [normed, scale]), build.constant(width**-0.5)])
    scores = build.node("Gemm", [scaled, proj], "router.scores", transB=1)
    chances = build.node("Softmax", [scores], axis=-1)
    best, index = build.nodes("TopK", [chances, build.constant([top_k])], 2, "router.best", axis=-1)
    total = build.node("ReduceSum", [best, build.constant([-1])], keepdims=1)
    share = build.node("Div", [best, total])
    return [index, build.node("Mul", [share, build.node("Gather", [per_expert_scale, index], axis=0)], "router.weight")]


def experts(build: GraphBuilder, form: Form, shape: Shape, rows: tuple[str, str, str], names: tuple[str, str]) -> str:
    """[S, D] sum of the chosen experts. `rows`: x, index, weight; `names`: checkpoint names of gate_up and down."""
    return {"dense": _dense, "unrolled": _unrolled, "loop": _loop}[form](build, shape, rows, names)


def _gated(build: GraphBuilder, gate_up: str, axis: int) -> str:
    """gelu_tanh(gate) * up, the two halves stacked along `axis`."""
    gate, up = build.nodes("Split", [gate_up], 2, axis=axis, num_outputs=2)
    return build.node("Mul", [build.node("Gelu", [gate], approximate="tanh"), up])


def _dense(build: GraphBuilder, shape: Shape, rows: tuple[str, str, str], names: tuple[str, str]) -> str:
    """All experts as one wide gated MLP. Two products; the routing weight multiplies the hidden units."""
    x, index, weight = rows
    num, inner = shape.num_experts, shape.inner
    wide = build.node("Gemm", [x, build.as_float(*build.stored(names[0], rows=True))], transB=1)  # [S, E * 2I]
    halves = build.node("Reshape", [wide, build.constant([-1, num, 2 * inner])])
    length = build.node("Shape", [x], start=0, end=1)
    grid = build.node("Concat", [length, build.constant([num])], axis=0)
    zeros = build.node("ConstantOfShape", [grid], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.0]))
    spread = build.node("ScatterElements", [zeros, index, weight], axis=1)  # [S, E]
    by_expert = build.node("Unsqueeze", [spread, build.constant([2])])
    hidden = build.node("Mul", [_gated(build, halves, 2), by_expert])
    flat = build.node("Reshape", [hidden, build.constant([-1, num * inner])])
    # [E, D, I] -> [E * I, D]. ONNX Runtime does this once at load: a copy, which is why this form is for tiny experts.
    down = build.node("Transpose", [build.weight(names[1])], perm=[0, 2, 1])
    down = build.node("Reshape", [down, build.constant([num * inner, shape.hidden])])
    return build.node("MatMul", [flat, down])


@dataclass(frozen=True)
class _Sorted:
    """The S * k (row, expert) pairs ordered by expert."""

    order: str  # [S * k]: where in the flat [S, k] each pair came from
    token: str  # [S * k]: its row of x
    rows: str  # [S * k, D]: that row
    counts: str  # [E]: pairs per expert


def _sort(build: GraphBuilder, shape: Shape, x: str, index: str) -> _Sorted:
    flat = build.node("Reshape", [index, build.constant([-1])])
    size = build.node("Shape", [flat])
    _, order = build.nodes("TopK", [flat, size], 2, "expert_order", axis=0, largest=0)
    token = build.node("Div", [order, build.constant(shape.top_k)])
    one = helper.make_tensor("v", TensorProto.INT64, [1], [1])
    ones = build.node("ConstantOfShape", [size], value=one)
    none = build.constant(np.zeros(shape.num_experts, np.int64))
    counts = build.node("ScatterElements", [none, flat, ones], "expert_counts", axis=0, reduction="add")
    return _Sorted(order, token, build.node("Gather", [x, token], axis=0), counts)


def _unrolled(build: GraphBuilder, shape: Shape, rows: tuple[str, str, str], names: tuple[str, str]) -> str:
    x, index, weight = rows
    pairs = _sort(build, shape, x, index)
    parts = build.nodes("Split", [pairs.rows, pairs.counts], shape.num_experts, "expert_rows", axis=0)
    hidden = [build.node("Gemm", [p, build.weight(names[0], e)], transB=1) for e, p in enumerate(parts)]
    # The activation runs once over all rows: two nodes per expert instead of five.
    active = _gated(build, build.node("Concat", hidden, axis=0), 1)
    parts = build.nodes("Split", [active, pairs.counts], shape.num_experts, "expert_hidden", axis=0)
    results = [build.node("Gemm", [p, build.weight(names[1], e)], transB=1) for e, p in enumerate(parts)]
    sorted_result = build.node("Concat", results, "expert_results", axis=0)
    # Undo the sort by a gather: each row then sums its k results in slot order, whatever the threads did.
    size = build.node("Squeeze", [build.node("Shape", [pairs.order])])
    count = build.node("Range", [build.constant(0), size, build.constant(1)])
    inverse = build.node("ScatterElements", [count, pairs.order, count], axis=0)
    back = build.node("Gather", [sorted_result, inverse], axis=0)
    grid = build.node("Reshape", [back, build.constant([-1, shape.top_k, shape.hidden])])
    weighted = build.node("Mul", [grid, build.node("Unsqueeze", [weight, build.constant([2])])])
    return build.node("ReduceSum", [weighted, build.constant([1])], keepdims=0)


def _loop(build: GraphBuilder, shape: Shape, rows: tuple[str, str, str], names: tuple[str, str]) -> str:
    x, index, weight = rows
    pairs = _sort(build, shape, x, index)
    column = build.node("Reshape", [weight, build.constant([-1, 1])])
    weights = build.node("Gather", [column, pairs.order], axis=0)
    ends = build.node("CumSum", [pairs.counts, build.constant(0)])
    starts = build.node("Sub", [ends, pairs.counts])
    hit = build.node("Squeeze", [build.node("NonZero", [pairs.counts]), build.constant([0])], "experts_hit")
    trips = build.node("Squeeze", [build.node("Shape", [hit])])
    zero = helper.make_tensor("v", TensorProto.FLOAT, [1], [0.0])
    start_sum = build.node("ConstantOfShape", [build.node("Shape", [x])], value=zero)
    stored = [build.stored(name) for name in names]
    axis0 = build.constant([0])

    build.begin_body()
    step, going, total = (build.fresh(name) for name in ("loop.step", "loop.going", "loop.sum"))
    expert = build.node("Gather", [hit, step], axis=0)
    gate_up, down = (build.as_float(build.node("Gather", [n, expert], axis=0), dtype) for n, dtype in stored)
    first, last = (build.node("Unsqueeze", [build.node("Gather", [e, expert], axis=0), axis0]) for e in (starts, ends))
    part, scale, token = (
        build.node("Slice", [value, first, last, axis0]) for value in (pairs.rows, weights, pairs.token)
    )
    hidden = _gated(build, build.node("Gemm", [part, gate_up], transB=1), 1)
    result = build.node("Mul", [build.node("Gemm", [hidden, down], transB=1), scale])
    place = build.node("Unsqueeze", [token, build.constant([1])])
    added = build.node("ScatterND", [total, place, result], reduction="add")
    still = build.node("Identity", [going])
    body = build.end_body(
        "expert",
        [helper.make_tensor_value_info(step, TensorProto.INT64, []),
         helper.make_tensor_value_info(going, TensorProto.BOOL, []),
         helper.make_tensor_value_info(total, TensorProto.FLOAT, ["S", shape.hidden])],
        [helper.make_tensor_value_info(still, TensorProto.BOOL, []),
         helper.make_tensor_value_info(added, TensorProto.FLOAT, ["S", shape.hidden])],
    )  # fmt: skip
    return build.node("Loop", [trips, "", start_sum], body=body)
