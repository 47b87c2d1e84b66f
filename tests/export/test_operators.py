"""The larger steps of a layer, one operator at a time, in ONNX Runtime: what they compute, what they refuse.

What they should compute is their form in torch (`graphs/ops.py`). Weights are fp32: rounding is a matter of the tests
of the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from one_operator import run_operator

ROWS, WIDTH, HEADS, KV_HEADS, HEAD_DIM, INNER, EXPERTS, TOP_K, EXPERT_INNER = 5, 12, 4, 2, 6, 9, 4, 2, 7
EPS = 1e-6
Arrays = dict[str, np.ndarray | None]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape).astype(np.float32)


def qkv_inputs() -> Arrays:
    angles = random(1, ROWS, HEAD_DIM // 2)
    return {
        "x": random(ROWS, WIDTH), "input_norm": random(WIDTH), "q_norm": random(HEAD_DIM),
        "k_norm": 1 + random(HEAD_DIM), "cos": np.cos(angles), "sin": np.sin(angles),
        "q_proj": random(HEADS * HEAD_DIM, WIDTH),
        "k_proj": random(KV_HEADS * HEAD_DIM, WIDTH), "v_proj": 1 + random(KV_HEADS * HEAD_DIM, WIDTH),
    }  # fmt: skip


def qk_inputs() -> Arrays:
    return {name: value for name, value in qkv_inputs().items() if name != "v_proj"}


def linear_inputs() -> Arrays:
    return {
        "x": random(ROWS, INNER), "residual": random(ROWS, WIDTH), "norm": random(WIDTH), "weight": random(WIDTH, INNER)
    }  # fmt: skip


def feed_forward_inputs() -> Arrays:
    norms = {f"norm_{i}": random(WIDTH) + i for i in range(5)}
    return {
        "x": random(ROWS, WIDTH), **norms, "router_scale": 1 + random(WIDTH), "router": random(EXPERTS, WIDTH),
        "per_expert_scale": random(EXPERTS), "gate": random(INNER, WIDTH), "up": 1 + random(INNER, WIDTH),
        "down": random(WIDTH, INNER), "expert_gate_up": random(EXPERTS, 2 * EXPERT_INNER, WIDTH),
        "expert_down": random(EXPERTS, WIDTH, EXPERT_INNER),
    }  # fmt: skip


QKV = {"num_heads": HEADS, "num_kv_heads": KV_HEADS, "eps": EPS}
FEED_FORWARD = {"eps": EPS, "top_k": TOP_K}
CASES: dict[str, tuple[Callable[[], Arrays], dict[str, Any], int]] = {
    "Qkv": (qkv_inputs, QKV, 3),
    "Qk": (qk_inputs, QKV, 3),
    "LinearNormAdd": (linear_inputs, {"eps": EPS}, 1),
    "FeedForward": (feed_forward_inputs, FEED_FORWARD, 1),
}


def in_torch(op: str, inputs: Arrays) -> list[np.ndarray]:
    import torch
    from dgrt_export.graphs import ops

    tensors = [torch.from_numpy(value) for value in inputs.values()]
    if op in ("Qkv", "Qk"):
        results = ops.qkv(*tensors, *([None] if op == "Qk" else []), HEADS, KV_HEADS, EPS)
    elif op == "LinearNormAdd":
        results = (ops.linear_norm_add(*tensors, EPS),)
    else:
        results = (ops.feed_forward(*tensors, EPS, TOP_K),)
    return [result.numpy() for result in results]


@pytest.mark.parametrize("op", CASES)
def test_an_operator_computes_what_its_form_in_torch_computes(op: str) -> None:
    make, attributes, outputs = CASES[op]
    for found, expected in zip(run_operator(op, make(), outputs, **attributes), in_torch(op, make()), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_experts_that_are_given_take_the_place_of_the_best() -> None:
    """With the router's own choice nothing changes, in whatever order; with another one it does."""
    import torch
    from dgrt_export.graphs import ops

    inputs = feed_forward_inputs()
    x, scale, router, per_expert = (
        torch.from_numpy(inputs[k]) for k in ("x", "router_scale", "router", "per_expert_scale")
    )
    index, _ = ops.route(x, scale, router, per_expert, EPS, TOP_K)
    own = run_operator("FeedForward", inputs, **FEED_FORWARD)[0]
    scales = dict.fromkeys((f"scale_{i}" for i in range(5)), None)

    def given(experts: np.ndarray) -> np.ndarray:
        return run_operator("FeedForward", {**inputs, **scales, "experts": experts}, **FEED_FORWARD)[0]

    np.testing.assert_allclose(given(index.numpy()[:, ::-1].copy()), own, rtol=1e-5, atol=1e-5)
    assert np.abs(given((index.numpy() + 1) % EXPERTS) - own).max(1).min() > 1e-2
    for wrong in (-1, EXPERTS):
        with pytest.raises(Exception, match=f"FeedForward: expected experts from 0 to {EXPERTS - 1}, found {wrong}"):
            given(np.full((ROWS, TOP_K), wrong))


@pytest.mark.parametrize(
    ("op", "changed", "attributes", "message"),
    [
        ("Qkv", {"q_norm": random(5), "k_norm": random(5)}, {}, "Qkv: expected heads of even width, found 5"),
        ("Qkv", {"k_norm": random(4)}, {}, r"Qkv, input 3: expected \[6\], found \[4\]"),
        ("Qkv", {"v_proj": random(6, WIDTH)}, {}, r"Qkv, input 8: expected \[12, 12\], found \[6, 12\]"),
        ("Qkv", {}, {"num_heads": 0}, "Qkv: expected 1 or more heads of each kind, found 0 and 2"),
        ("Qk", {"cos": random(1, 1, 3)}, {}, r"Qk, input 4: expected \[1, 5, 3\], found \[1, 1, 3\]"),
        ("LinearNormAdd", {"residual": random(1, WIDTH)}, {}, r"input 1: expected \[5, \?\], found \[1, 12\]"),
        ("LinearNormAdd", {"weight": random(WIDTH, 1)}, {}, r"input 3: expected \[12, 9\], found \[12, 1\]"),
        ("FeedForward", {"norm_4": random(1)}, {}, r"input 5: expected \[12\], found \[1\]"),
        ("FeedForward", {"per_expert_scale": random(3)}, {}, r"input 8: expected \[4\], found \[3\]"),
        ("FeedForward", {"expert_down": random(3, WIDTH, 7)}, {}, r"input 13: expected \[4, 12, 7\], found \[3"),
        ("FeedForward", {}, {"top_k": 5}, "FeedForward: expected top_k from 1 to 4, found 5"),
        ("FeedForward", {}, {"top_k": 0}, "FeedForward: expected top_k from 1 to 4, found 0"),
    ],
)
def test_what_does_not_fit_is_named(op: str, changed: Arrays, attributes: dict[str, Any], message: str) -> None:
    make, usual, outputs = CASES[op]
    with pytest.raises(Exception, match=message):
        run_operator(op, {**make(), **changed}, outputs, **{**usual, **attributes})
