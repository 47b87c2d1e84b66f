"""Standard ONNX `Attention` (opset 23) on token-major [1, T, heads * head_dim]: scale 1, grouped heads."""

from __future__ import annotations

from .builder import GraphBuilder


def causal_mask(build: GraphBuilder, q: str, past_k: str, window: int) -> str:
    """Boolean [S, P + S], true where query i (at P + i) sees key j: j <= P + i, and j > P + i - window if window > 0.

    Built from shapes alone, because past rows are the P tokens right before the first query.
    """
    zero, one = build.constant(0), build.constant(1)
    past_len = build.node("Squeeze", [build.node("Shape", [past_k], start=1, end=2)])
    new_len = build.node("Squeeze", [build.node("Shape", [q], start=1, end=2)])
    total = build.node("Add", [past_len, new_len])
    query = build.node("Unsqueeze", [build.node("Range", [past_len, total, one]), build.constant([1])], "query_index")
    key = build.node("Range", [zero, total, one], "key_index")
    mask = build.node("LessOrEqual", [key, query], "causal_mask")
    if window:
        oldest = build.node("Sub", [query, build.constant(window)])
        mask = build.node("And", [mask, build.node("Greater", [key, oldest])], "window_mask")
    return mask


def repeat(build: GraphBuilder, past: str, q: str) -> str:
    """Past rows [1, P, K] once for each group of queries [G, *, *]."""
    groups = build.node("Shape", [q], start=0, end=1)
    return build.node("Expand", [past, build.node("Concat", [groups, build.constant([1, 1])], axis=0)])


def attend(
    build: GraphBuilder, qkv: tuple[str, str, str], past: tuple[str, str], heads: tuple[int, int],
    mask: str | None, hint: str,
) -> str:  # fmt: skip
    """softmax(q k^T) v over past and new rows; either length of the past, also 0, is allowed."""
    q, k, v = qkv
    keys = build.node("Concat", [past[0], k], f"{hint}.keys", axis=1)
    values = build.node("Concat", [past[1], v], f"{hint}.values", axis=1)
    inputs = [q, keys, values] + ([mask] if mask else [])
    return build.node("Attention", inputs, hint, q_num_heads=heads[0], kv_num_heads=heads[1], scale=1.0)
