"""Walks a traced graph and gives every node its ONNX form. One handler per operator that the wrappers use.

The profile `fused` replaces some of them by those of fused.py. A node that has no handler is an error: nothing is
approximated and nothing is dropped.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch.export.graph_signature import InputKind
from torch.fx import Node as FxNode

from .. import contract
from ..checkpoint import TensorEntry
from ..config import Rope
from ..errors import Unsupported, mismatch
from ..graphs.ops import inverse_frequencies
from ..graphs.trace import TracedGraph
from . import attention, fused, moe
from .builder import GraphBuilder

Node = Any  # torch.fx.Node: the static type of its arguments is a union of everything
Handler = Callable[["Lowering", Node], Any]
_HANDLERS: dict[Any, Handler] = {}


def _lowers(*targets: Any) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(targets, handler))
        return handler

    return register


def lower(
    traced: TracedGraph, weights: Mapping[str, TensorEntry], profile: contract.Profile, form: moe.Form | None
) -> onnx.ModelProto:
    """The ONNX model of a traced graph.

    Args:
        traced: the graph, with the checkpoint's names on its parameters.
        weights: where each parameter lies.
        profile: whether the heavy nodes are standard operators or our own.
        form: how standard operators express the experts; None in `fused`, where they are one operator.
    """
    return Lowering(traced, weights, profile, form).run()


class Lowering:
    """State of one walk: what each traced node has become."""

    def __init__(
        self, traced: TracedGraph, weights: Mapping[str, TensorEntry], profile: contract.Profile, form: moe.Form | None
    ):
        self.traced, self.form = traced, form
        self._handlers = {**_HANDLERS, **fused.HANDLERS} if profile == contract.FUSED else _HANDLERS
        self.build = GraphBuilder(weights)
        self.masks: dict[int, str] = {}  # window -> mask, built once per layer type
        self._values: dict[Node, Any] = {}  # activations: value names
        self._parameters: dict[Node, str] = {}  # weights: checkpoint names, bound when used

    def run(self) -> onnx.ModelProto:
        program, signature = self.traced.program, self.traced.program.graph_signature
        parameters = {spec.arg.name: spec.target for spec in signature.input_specs if spec.kind != InputKind.USER_INPUT}
        inputs = iter(self.traced.inputs)
        results: list[Node] = []
        for node in program.graph.nodes:
            if node.op == "placeholder":
                if node.name in parameters:
                    self._parameters[node] = parameters[node.name]
                else:
                    self._values[node] = self.build.fresh(next(inputs).name)
            elif node.op == "output":
                results = list(node.args[0])
            elif node.users:  # the rest are shape reads nobody asked for
                handler = self._handlers.get(node.target)
                if handler is None:
                    raise Unsupported(mismatch("traced operator", "one that has an ONNX form here", node.target))
                self._values[node] = handler(self, node)
        outputs = {self.value(node): tensor for node, tensor in zip(results, self.traced.outputs, strict=True)}
        return self.build.model(self.traced.name, self.traced.inputs, outputs)

    def value(self, node: Any) -> Any:
        """The ONNX value of an argument: an activation, or a weight as float32."""
        if node in self._parameters:
            return self.build.weight(self._parameters[node])
        return self._values[node]

    def weight_name(self, node: Any) -> str:
        """The checkpoint name of an argument that is a weight."""
        return self._parameters[node]


aten, dgrt = torch.ops.aten, torch.ops.dgrt


@_lowers(aten.embedding.default)
def _embedding(low: Lowering, node: Node) -> str:
    table, dtype = low.build.stored(low.weight_name(node.args[0]))
    # Rows first, then the cast: the table itself is never converted.
    return low.build.as_float(low.build.node("Gather", [table, low.value(node.args[1])], node.name, axis=0), dtype)


@_lowers(aten.linear.default)
def _linear(low: Lowering, node: Node) -> str:
    x, weight = node.args
    return low.build.node("Gemm", [low.value(x), low.value(weight)], node.name, transB=1)


_ELEMENTWISE = {aten.mul.Tensor: "Mul", aten.add.Tensor: "Add", aten.sub.Tensor: "Sub"}


@_lowers(*_ELEMENTWISE)
def _elementwise(low: Lowering, node: Node) -> str:
    left, right = node.args
    if isinstance(right, FxNode):
        other = low.value(right)
    else:
        other = low.build.constant(float(right) if node.meta["val"].is_floating_point() else int(right))
    return low.build.node(_ELEMENTWISE[node.target], [low.value(left), other], node.name)


@_lowers(aten.view.default)
def _view(low: Lowering, node: Node) -> str:
    x, sizes = node.args
    return low.build.node("Reshape", [low.value(x), low.build.constant(list(sizes))], node.name)


@_lowers(aten.squeeze.dim, aten.unsqueeze.default)
def _squeeze(low: Lowering, node: Node) -> str:
    x, axis = node.args
    op = "Squeeze" if node.target == aten.squeeze.dim else "Unsqueeze"
    return low.build.node(op, [low.value(x), low.build.constant([axis])], node.name)


@_lowers(aten.cat.default)
def _cat(low: Lowering, node: Node) -> str:
    parts, *axis = node.args
    return low.build.node("Concat", [low.value(part) for part in parts], node.name, axis=axis[0] if axis else 0)


@_lowers(aten.split_with_sizes.default)
def _split(low: Lowering, node: Node) -> list[str]:
    x, sizes, *axis = node.args
    inputs = [low.value(x), _sizes(low, sizes)]
    return low.build.nodes("Split", inputs, len(sizes), node.name, axis=axis[0] if axis else 0)


def _sizes(low: Lowering, sizes: Sequence[Any]) -> str:
    """Numbers that are known, or only when the graph runs, as one vector."""
    if not any(isinstance(size, FxNode) for size in sizes):
        return low.build.constant(list(sizes))
    parts = [low.value(size) if isinstance(size, FxNode) else low.build.constant([size]) for size in sizes]
    return low.build.node("Concat", parts, axis=0)


@_lowers(aten.sym_size.int)
def _size(low: Lowering, node: Node) -> str:
    """One axis of a shape, as a vector of one number."""
    x, axis = node.args
    return low.build.node("Shape", [low.value(x)], node.name, start=axis, end=axis + 1)


@_lowers(operator.mul)
def _product_of_sizes(low: Lowering, node: Node) -> str:
    left, right = (low.value(arg) if isinstance(arg, FxNode) else low.build.constant([arg]) for arg in node.args)
    return low.build.node("Mul", [left, right], node.name)


@_lowers(aten.slice.Tensor)
def _slice(low: Lowering, node: Node) -> str:
    x, axis, first, last = node.args  # an open end is the largest int64, in ONNX too
    bounds = [low.build.constant([bound]) for bound in (first, last, axis)]
    return low.build.node("Slice", [low.value(x), *bounds], node.name)


@_lowers(operator.getitem)
def _item(low: Lowering, node: Node) -> str:
    return low.value(node.args[0])[node.args[1]]


@_lowers(dgrt.rms_norm.default)
def _rms_norm(low: Lowering, node: Node) -> str:
    x, weight, epsilon = node.args
    width = node.meta["val"].shape[-1]
    scale = low.build.constant(np.ones(width, np.float32), "ones") if weight is None else low.value(weight)
    return low.build.node("RMSNormalization", [low.value(x), scale], node.name, axis=-1, epsilon=epsilon)


@_lowers(dgrt.rotary_table.default)
def _rotary_table(low: Lowering, node: Node) -> list[str]:
    positions, *facts = node.args
    build = low.build
    frequencies = build.constant(inverse_frequencies(Rope(*facts)).numpy(), "inverse_frequencies")
    column = build.node("Unsqueeze", [low.value(positions), build.constant([2])])
    column = build.node("Cast", [column], to=onnx.TensorProto.FLOAT)
    angles = build.node("Mul", [column, frequencies], node.name)
    return [build.node("Cos", [angles]), build.node("Sin", [angles])]


@_lowers(dgrt.rotate.default)
def _rotate(low: Lowering, node: Node) -> str:
    *tensors, heads = node.args
    return low.build.node("RotaryEmbedding", [low.value(t) for t in tensors], node.name, num_heads=heads)


@_lowers(dgrt.gated_mlp.default)
def _gated_mlp(low: Lowering, node: Node) -> str:
    build, x = low.build, low.value(node.args[0])
    gate, up, down = node.args[1:]
    active = build.node("Gelu", [build.node("Gemm", [x, low.value(gate)], transB=1)], approximate="tanh")
    hidden = build.node("Mul", [active, build.node("Gemm", [x, low.value(up)], transB=1)])
    return build.node("Gemm", [hidden, low.value(down)], node.name, transB=1)


@_lowers(dgrt.causal_attention.default, dgrt.canvas_attention.default)
def _attention(low: Lowering, node: Node) -> str:
    q, k, v, past_k, past_v = (low.value(arg) for arg in node.args[:5])
    heads, kv_heads, *window = node.args[5:]
    mask = None
    if window:
        if window[0] not in low.masks:
            low.masks[window[0]] = attention.causal_mask(low.build, q, past_k, window[0])
        mask = low.masks[window[0]]
    if not isinstance(node.args[0].meta["val"].shape[0], int):  # as many groups as the graph is given
        past_k, past_v = (attention.repeat(low.build, past, q) for past in (past_k, past_v))
    return attention.attend(low.build, (q, k, v), (past_k, past_v), (heads, kv_heads), mask, node.name)


@_lowers(dgrt.route.default)
def _route(low: Lowering, node: Node) -> list[str]:
    x, scale, proj, per_expert_scale, epsilon, top_k = node.args
    width = x.meta["val"].shape[-1]
    weights = [low.value(w) for w in (scale, proj, per_expert_scale)]
    return moe.route(low.build, low.value(x), weights, width, epsilon, top_k)


@_lowers(dgrt.experts.default)
def _experts(low: Lowering, node: Node) -> str:
    x, index, weight, gate_up, down = node.args
    num_experts, width, hidden = gate_up.meta["val"].shape
    shape = moe.Shape(num_experts, width, hidden, index.meta["val"].shape[1])
    names = (low.weight_name(gate_up), low.weight_name(down))
    assert low.form is not None, "the portable profile needs a form of the experts"
    return moe.experts(low.build, low.form, shape, (low.value(x), low.value(index), low.value(weight)), names)
