"""The handlers of the profile `fused`: heavy nodes as operators of our own domain, which README.md specifies.

A weight goes into an operator as it is stored: the initializer itself, without a cast or a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from onnx import TensorProto

from .. import contract
from ..errors import Unsupported, mismatch
from ..graphs import ops  # noqa: F401 - registers torch.ops.dgrt

if TYPE_CHECKING:
    from .lower import Lowering

Node = Any  # torch.fx.Node, as in lower.py
HANDLERS: dict[Any, Callable[[Lowering, Node], Any]] = {}
aten, dgrt = torch.ops.aten, torch.ops.dgrt
FEED_FORWARD = "FeedForward"
NUM_FEED_FORWARD_INPUTS = 20  # scales and the last one, which chooses experts, are optional


def _operators(
    low: Lowering, op: str, node: Node, inputs: list[str], weights: list[Node], outputs: int, **attributes: Any
) -> list[str]:
    """An operator with weights as they are stored, which must be in one dtype, behind its inputs, then any scales."""
    names = [low.weight_name(weight) for weight in weights]
    values, dtypes = zip(*map(low.build.stored, names), strict=True)
    # int4 is for experts only, and goes with int8 elsewhere.
    if len({TensorProto.INT8 if dtype == TensorProto.UINT8 else dtype for dtype in dtypes}) > 1:
        found = " and ".join(TensorProto.DataType.Name(dtype) for dtype in dtypes)
        raise Unsupported(mismatch(f"dtypes of {' and '.join(names)}", "one (--precision makes them one)", found))
    return low.build.operators(op, [*inputs, *values, *low.build.scales(names)], outputs, node.name, **attributes)


def _operator(low: Lowering, op: str, node: Node, inputs: list[str], weights: list[Node], **attributes: Any) -> str:
    return _operators(low, op, node, inputs, weights, 1, **attributes)[0]


def _rows(low: Lowering, node: Node) -> str:
    """An activation [S, *]: operators take rows, unlike aten.linear, which takes any number of axes before the last."""
    if node.meta["val"].dim() != 2:
        raise Unsupported(mismatch(f"axes of {node.name}", "2, rows", node.meta["val"].dim()))
    return low.value(node)


def _linear(low: Lowering, node: Node) -> str:
    x, weight = node.args
    return _operator(low, "Linear", node, [_rows(low, x)], [weight])


def _gated_mlp(low: Lowering, node: Node) -> str:
    x, *weights = node.args
    return _operator(low, "GatedMlp", node, [_rows(low, x)], weights)


def _qkv(low: Lowering, node: Node) -> list[str]:
    x, *floats, q_proj, k_proj, v_proj, heads, kv_heads, eps = node.args
    op, weights = ("Qk", [q_proj, k_proj]) if v_proj is None else ("Qkv", [q_proj, k_proj, v_proj])
    inputs = [_rows(low, x), *map(low.value, floats)]
    return _operators(low, op, node, inputs, weights, 3, num_heads=heads, num_kv_heads=kv_heads, eps=eps)


def _linear_norm_add(low: Lowering, node: Node) -> str:
    x, residual, norm, weight, eps = node.args
    inputs = [_rows(low, x), _rows(low, residual), low.value(norm)]
    return _operator(low, "LinearNormAdd", node, inputs, [weight], eps=eps)


def _feed_forward(low: Lowering, node: Node) -> str:
    x, *tensors, eps, top_k = node.args
    floats, weights = tensors[:8], tensors[8:]
    inputs = [_rows(low, x), *map(low.value, floats)]
    return _operator(low, FEED_FORWARD, node, inputs, weights, eps=eps, top_k=top_k)


def _attention_products(low: Lowering) -> dict[str, int]:
    """Attention has no weights that could say it: its products are of bf16 where those of all weights are.

    A drafter's are not: its attention is small beside the target's, and sharp enough that rounding shows.
    """
    is_target = low.traced.name != contract.DRAFTER_GRAPH
    return {"bf16_products": 1} if is_target and not low.build.has_fp32_weights else {}


def _causal_attention(low: Lowering, node: Node) -> str:
    *tensors, heads, kv_heads, window = node.args
    return low.build.operator(
        "CausalAttention", [low.value(t) for t in tensors], node.name,
        num_heads=heads, num_kv_heads=kv_heads, window=window, **_attention_products(low),
    )  # fmt: skip


def _canvas_attention(low: Lowering, node: Node) -> str:
    *tensors, heads, kv_heads = node.args
    q, k, v, past_k, past_v = (low.value(t) for t in tensors)
    rows, keys = (t.meta["val"].shape[1] for t in tensors[:2])
    if keys > rows:  # packed: the candidate's rows come with this pass, but to the next canvas they are past
        (past_k, k), (past_v, v) = (_move_to_past(low, *pair, keys - rows, rows) for pair in ((past_k, k), (past_v, v)))
    return low.build.operator(
        "CanvasAttention", [q, k, v, past_k, past_v], node.name,
        num_heads=heads, num_kv_heads=kv_heads, **_attention_products(low),
    )  # fmt: skip


def _move_to_past(low: Lowering, past: str, new: str, count: int, rest: int) -> tuple[str, str]:
    """Moves the first `count` of the new rows [1, count + rest, K] behind the past ones."""
    first, own = low.build.nodes("Split", [new, low.build.constant([count, rest])], 2, axis=1)
    return low.build.node("Concat", [past, first], axis=1), own


HANDLERS |= {
    aten.linear.default: _linear,
    dgrt.gated_mlp.default: _gated_mlp,
    dgrt.qkv.default: _qkv,
    dgrt.linear_norm_add.default: _linear_norm_add,
    dgrt.feed_forward.default: _feed_forward,
    dgrt.causal_attention.default: _causal_attention,
    dgrt.canvas_attention.default: _canvas_attention,
}
