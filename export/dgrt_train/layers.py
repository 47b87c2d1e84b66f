"""One transformer layer of DiffusionGemma as pure functions over tensors.

Layers hold no state of their own, so all layers of one kind share one compiled
graph. Both passes use the same weights: the encoder is causal and returns its
K and V, the decoder reads them. All experts run as one GEMM and the router's
top-k weights mask the result: at this size that beats any dispatch.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from .config import ModelConfig


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """Classic RMSNorm (x * w) in fp32."""
    x = x.float()
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return y if weight is None else y * weight


def linear(x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """GEMM in `dtype`; master weights stay fp32."""
    return F.linear(x.to(dtype), weight.to(dtype))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Applies split-half RoPE to [..., heads, head_dim]; cos and sin are [..., 1, head_dim / 2]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def rope_table(config: ModelConfig, full: bool, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Returns cos and sin of shape positions.shape + (1, head_dim / 2)."""
    dim = config.dim_per_head(full)
    exponent = torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim
    inv_freq = (config.full_rope_theta if full else config.sliding_rope_theta) ** -exponent
    if full:  # "proportional": the exponent keeps the full head_dim, unrotated pairs have frequency 0
        inv_freq[int(config.full_partial_rotary_factor * dim // 2) :] = 0.0
    angles = positions[..., None, None].float() * inv_freq
    return angles.cos(), angles.sin()


def project_qkv(config: ModelConfig, full: bool, w: dict, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype):
    """Returns q, k, v as [batch, heads, length, head_dim] in `dtype`."""
    heads, kv, dim = config.num_attention_heads, config.kv_heads(full), config.dim_per_head(full)
    y = linear(rms_norm(x, w["input_layernorm"]), w["qkv"], dtype).float()
    y = y.view(*x.shape[:-1], -1, dim)
    q, k = y[..., :heads, :], y[..., heads : heads + kv, :]
    v = k if full else y[..., heads + kv :, :]  # full layers: V is the raw k_proj output
    q = rotate(rms_norm(q, w["q_norm"]), cos, sin)
    k = rotate(rms_norm(k, w["k_norm"]), cos, sin)
    return tuple(t.transpose(-2, -3).to(dtype) for t in (q, k, rms_norm(v)))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """softmax(q k^T + mask) v with scale 1.0; query heads of one group share a K/V head.

    Written out because, compiled, it beats the fused CPU kernel at these lengths. The group
    is folded into the row axis, so K and V are never repeated. `mask` broadcasts against
    [batch, kv heads, group, rows, keys].
    """
    batch, heads, rows, dim = q.shape
    kv = k.shape[1]
    scores = (q.reshape(batch, kv, -1, dim) @ k.mT).float().view(batch, kv, heads // kv, rows, -1) + mask
    probs = scores.softmax(-1).to(v.dtype).view(batch, kv, heads // kv * rows, -1)
    return (probs @ v).view(batch, heads, rows, dim).transpose(1, 2).flatten(2)


def gated_mlp(x: Tensor, gate_up: Tensor, down: Tensor, dtype: torch.dtype) -> Tensor:
    gate, up = linear(x, gate_up, dtype).chunk(2, dim=-1)
    return linear(F.gelu(gate.float(), approximate="tanh") * up.float(), down, dtype).float()


def route(config: ModelConfig, w: dict, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns dense routing weights [..., experts] and the load-balancing loss."""
    scores = F.linear(rms_norm(x) * w["router_scale"] * config.hidden_size**-0.5, w["router"])
    probs = scores.softmax(-1)
    kth = probs.topk(config.top_k_experts, dim=-1).values[..., -1:]
    chosen = (probs >= kth).float()
    kept = probs * chosen
    balance = (chosen.flatten(0, -2).mean(0) * probs.flatten(0, -2).mean(0)).sum() * config.num_experts
    return kept / kept.sum(-1, keepdim=True) * w["per_expert_scale"], balance / config.top_k_experts


def feed_forward(config: ModelConfig, w: dict, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Dense MLP and experts in parallel on the residual `x`; returns the new residual and the balance loss."""
    dense = gated_mlp(rms_norm(x, w["pre_feedforward_layernorm"]), w["gate_up"], w["down"], dtype)
    weights, balance = route(config, w, x)
    y = linear(rms_norm(x, w["pre_feedforward_layernorm_2"]), w["experts_gate_up"].flatten(0, 1), dtype)
    gate, up = y.view(*x.shape[:-1], config.num_experts, -1).chunk(2, dim=-1)
    hidden = F.gelu(gate.float(), approximate="tanh") * up.float() * weights[..., None]
    sparse = linear(hidden.flatten(-2), w["experts_down"].flatten(1), dtype).float()
    y = rms_norm(dense, w["post_feedforward_layernorm_1"]) + rms_norm(sparse, w["post_feedforward_layernorm_2"])
    return x + rms_norm(y, w["post_feedforward_layernorm"]), balance


def encoder_layer(config: ModelConfig, full: bool, w: dict, scalar: Tensor, x: Tensor, cos: Tensor, sin: Tensor,
                  mask: Tensor, dtype: torch.dtype):
    """Causal pass over [batch, length, hidden]; returns x, K, V and the balance loss."""
    q, k, v = project_qkv(config, full, w, x, cos, sin, dtype)
    x = x + rms_norm(linear(attend(q, k, v, mask), w["o"], dtype), w["post_attention_layernorm"])
    x, balance = feed_forward(config, w, x, dtype)
    return x * scalar, k, v, balance


def decoder_layer(config: ModelConfig, full: bool, w: dict, scalar: Tensor, x: Tensor, cos: Tensor, sin: Tensor,
                  context_k: Tensor, context_v: Tensor, mask: Tensor, dtype: torch.dtype):
    """Bidirectional pass over canvases [batch, canvas, hidden] that read context K and V."""
    q, k, v = project_qkv(config, full, w, x, cos, sin, dtype)
    att = attend(q, torch.cat((context_k, k), 2), torch.cat((context_v, v), 2), mask)
    x = x + rms_norm(linear(att, w["o"], dtype), w["post_attention_layernorm"])
    x, balance = feed_forward(config, w, x, dtype)
    return x * scalar, balance


def head(config: ModelConfig, norm: Tensor, embed: Tensor, hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """Final norm, tied head and softcap; fp32 logits."""
    cap = config.final_logit_softcapping
    return torch.tanh(linear(rms_norm(hidden, norm), embed, dtype).float() / cap) * cap
