"""Custom torch operators (namespace `dgrt`) for the nodes that tracing should keep whole.

The last three are the larger steps of a layer that the profile `fused` has as one operator each.

Each has a shape rule for the meta device, which is all that export needs, and a plain eager form, which lets a test
run the wrappers in torch. `to_onnx/` gives each one its ONNX form. Shapes: S tokens, D hidden size, H query heads,
K num_kv_heads * head_dim, P past rows, G canvases of L rows each, E experts, k experts per token.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import Rope


def inverse_frequencies(rope: Rope) -> Tensor:
    """Angle per position of each of the head_dim / 2 pairs, float32.

    Computed in float32 by torch, like the reference: at position 262,144 one unit in the last place of a frequency is
    a hundredth of a radian.
    """
    exponent = torch.arange(0, 2 * rope.rotated_pairs, 2, dtype=torch.float) / rope.head_dim
    turning = 1.0 / (rope.theta**exponent)
    return torch.cat((turning, torch.zeros(rope.head_dim // 2 - rope.rotated_pairs))) / rope.factor


@torch.library.custom_op("dgrt::rms_norm", mutates_args=())
def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """x / rms(x) over the last axis, times `weight` if there is one."""
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return normed if weight is None else normed * weight


@rms_norm.register_fake
def _(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("dgrt::rotary_table", mutates_args=())
def rotary_table(
    positions: Tensor, head_dim: int, theta: float, rotated_pairs: int, factor: float
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [1, S, head_dim / 2] of the positions [1, S]."""
    angles = positions[..., None].float() * inverse_frequencies(Rope(head_dim, theta, rotated_pairs, factor))
    return angles.cos(), angles.sin()


@rotary_table.register_fake
def _(positions: Tensor, head_dim: int, theta: float, rotated_pairs: int, factor: float) -> tuple[Tensor, Tensor]:
    shape = (*positions.shape, head_dim // 2)
    return positions.new_empty(shape, dtype=torch.float32), positions.new_empty(shape, dtype=torch.float32)


@torch.library.custom_op("dgrt::rotate", mutates_args=())
def rotate(x: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> Tensor:
    """Split-half rotation of x [1, S, num_heads * head_dim]: pair (i, i + head_dim / 2) of each head."""
    first, second = x.view(1, x.shape[1], num_heads, -1).chunk(2, dim=-1)
    c, s = cos.unsqueeze(2), sin.unsqueeze(2)
    return torch.cat((first * c - second * s, second * c + first * s), dim=-1).reshape(x.shape)


@rotate.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> Tensor:
    return torch.empty_like(x)


def _attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int, num_kv_heads: int, mask: Tensor | None) -> Tensor:
    """Scale-free grouped attention over token-major [G, *, heads * head_dim]."""

    def split(t: Tensor, heads: int) -> Tensor:
        return t.view(t.shape[0], t.shape[1], heads, -1).transpose(1, 2)

    query, key, value = split(q, num_heads), split(k, num_kv_heads), split(v, num_kv_heads)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0, enable_gqa=True)
    return out.transpose(1, 2).reshape(q.shape)


@torch.library.custom_op("dgrt::causal_attention", mutates_args=())
def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor, num_heads: int, num_kv_heads: int, window: int
) -> Tensor:
    """Each query sees itself and the tokens before it; with window > 0 only the last `window`, itself included.

    q [1, S, H * head_dim], k and v [1, S, K], past [1, P, K]: the P tokens right before the first query.
    """
    past_len, new_len = past_k.shape[1], q.shape[1]
    query = torch.arange(past_len, past_len + new_len)[:, None]
    key = torch.arange(past_len + new_len)[None, :]
    mask = key <= query
    if window:
        mask &= key > query - window
    return _attend(q, torch.cat((past_k, k), 1), torch.cat((past_v, v), 1), num_heads, num_kv_heads, mask)


@causal_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor, num_heads: int, num_kv_heads: int, window: int
) -> Tensor:
    return torch.empty_like(q)


@torch.library.custom_op("dgrt::canvas_attention", mutates_args=())
def canvas_attention(
    q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor, num_heads: int, num_kv_heads: int
) -> Tensor:
    """Each canvas row sees every past row it is given and its whole canvas.

    q [G, L, H * head_dim], k and v [G, L, K], past [1, P, K]: the same for all G canvases, which do not see each other.
    """
    past_k, past_v = (t.expand(q.shape[0], -1, -1) for t in (past_k, past_v))
    return _attend(q, torch.cat((past_k, k), 1), torch.cat((past_v, v), 1), num_heads, num_kv_heads, None)


@canvas_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor, num_heads: int, num_kv_heads: int) -> Tensor:
    return torch.empty_like(q)


@torch.library.custom_op("dgrt::gated_mlp", mutates_args=())
def gated_mlp(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """down @ (gelu_tanh(gate @ x) * (up @ x)) of each row of x [S, D]. gate and up [I, D], down [D, I]."""
    return F.linear(F.gelu(F.linear(x, gate), approximate="tanh") * F.linear(x, up), down)


@gated_mlp.register_fake
def _(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("dgrt::route", mutates_args=())
def route(
    x: Tensor, scale: Tensor, proj: Tensor, per_expert_scale: Tensor, eps: float, top_k: int
) -> tuple[Tensor, Tensor]:
    """The k experts of each row of x [S, D] and their weights, both [S, k].

    The weights of the k best are renormalised to 1 and only then multiplied by `per_expert_scale`.
    """
    scores = F.linear(rms_norm(x, None, eps) * scale * x.shape[-1] ** -0.5, proj)
    weight, index = scores.softmax(-1).topk(top_k, dim=-1)
    return index, weight / weight.sum(-1, keepdim=True) * per_expert_scale[index]


@route.register_fake
def _(
    x: Tensor, scale: Tensor, proj: Tensor, per_expert_scale: Tensor, eps: float, top_k: int
) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], top_k)
    return x.new_empty(shape, dtype=torch.int64), x.new_empty(shape)


@torch.library.custom_op("dgrt::experts", mutates_args=())
def experts(x: Tensor, index: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Sum over each row's k experts of weight * down[e] @ (gelu_tanh(gate) * up). gate_up [E, 2I, D], down [E, D, I]"""
    out = torch.zeros_like(x)
    for expert in range(gate_up.shape[0]):
        row, slot = (index == expert).nonzero(as_tuple=True)
        gate, up = F.linear(x[row], gate_up[expert]).chunk(2, dim=-1)
        y = F.linear(F.gelu(gate, approximate="tanh") * up, down[expert])
        out.index_add_(0, row, y * weight[row, slot, None])
    return out


@experts.register_fake
def _(x: Tensor, index: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("dgrt::qkv", mutates_args=())
def qkv(
    x: Tensor, input_norm: Tensor, q_norm: Tensor, k_norm: Tensor, cos: Tensor, sin: Tensor,
    q_proj: Tensor, k_proj: Tensor, v_proj: Tensor | None, num_heads: int, num_kv_heads: int, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """What attention reads of rows x [S, D]: q [1, S, H * head_dim], k and v [1, S, K].

    Projections of the normed rows; then each head is normed, v without a weight, and q and k are rotated. Without
    v_proj the value is the key's projection.
    """
    normed = rms_norm(x, input_norm, eps)

    def heads(weight: Tensor, count: int, norm: Tensor | None) -> Tensor:
        return rms_norm(F.linear(normed, weight).view(1, x.shape[0], count, -1), norm, eps).flatten(2)

    q, k = heads(q_proj, num_heads, q_norm), heads(k_proj, num_kv_heads, k_norm)
    v = heads(k_proj if v_proj is None else v_proj, num_kv_heads, None)
    return rotate(q, cos, sin, num_heads), rotate(k, cos, sin, num_kv_heads), v


@qkv.register_fake
def _(
    x: Tensor, input_norm: Tensor, q_norm: Tensor, k_norm: Tensor, cos: Tensor, sin: Tensor,
    q_proj: Tensor, k_proj: Tensor, v_proj: Tensor | None, num_heads: int, num_kv_heads: int, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    q, k, v = (x.new_empty(1, x.shape[0], proj.shape[0]) for proj in (q_proj, k_proj, k_proj))
    return q, k, v


@torch.library.custom_op("dgrt::linear_norm_add", mutates_args=())
def linear_norm_add(x: Tensor, residual: Tensor, norm: Tensor, weight: Tensor, eps: float) -> Tensor:
    """residual [S, D] + the norm of x [S, K] weight^T."""
    return residual + rms_norm(F.linear(x, weight), norm, eps)


@linear_norm_add.register_fake
def _(x: Tensor, residual: Tensor, norm: Tensor, weight: Tensor, eps: float) -> Tensor:
    return torch.empty_like(residual)


@torch.library.custom_op("dgrt::feed_forward", mutates_args=())
def feed_forward(
    x: Tensor, dense_norm_in: Tensor, dense_norm_out: Tensor, experts_norm_in: Tensor, experts_norm_out: Tensor,
    norm_out: Tensor, router_scale: Tensor, router: Tensor, per_expert_scale: Tensor,
    gate: Tensor, up: Tensor, down: Tensor, expert_gate_up: Tensor, expert_down: Tensor, eps: float, top_k: int,
) -> Tensor:  # fmt: skip
    """Dense MLP and experts side by side on the residual x [S, D], router to combine. The router reads x itself."""
    dense = rms_norm(gated_mlp(rms_norm(x, dense_norm_in, eps), gate, up, down), dense_norm_out, eps)
    index, weight = route(x, router_scale, router, per_expert_scale, eps, top_k)
    routed = experts(rms_norm(x, experts_norm_in, eps), index, weight, expert_gate_up, expert_down)
    return x + rms_norm(dense + rms_norm(routed, experts_norm_out, eps), norm_out, eps)


@feed_forward.register_fake
def _(
    x: Tensor, dense_norm_in: Tensor, dense_norm_out: Tensor, experts_norm_in: Tensor, experts_norm_out: Tensor,
    norm_out: Tensor, router_scale: Tensor, router: Tensor, per_expert_scale: Tensor,
    gate: Tensor, up: Tensor, down: Tensor, expert_gate_up: Tensor, expert_down: Tensor, eps: float, top_k: int,
) -> Tensor:  # fmt: skip
    return torch.empty_like(x)
