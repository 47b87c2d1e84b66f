"""dgrt-mini in PyTorch: parameters, the causal encoder pass and the canvas decoder pass.

Contexts are left-padded, so every row of a batch has its canvas at the same
position and the sliding layers' context is a plain slice. RoPE is relative:
the shift does not change the result. `parity.py` proves equality with Hugging Face.
"""
import torch
from torch import Tensor, nn

from . import layers
from .config import ModelConfig


class DiffusionGemmaMini(nn.Module):
    """Weights of the model. Fused matrices (qkv, gate_up) are split again on export."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype = torch.bfloat16, compile_layers: bool = False):
        super().__init__()
        self.config, self.dtype = config, dtype
        d = config.hidden_size
        self.embed = nn.Parameter(torch.randn(config.vocab_size, d) * d**-0.5)
        self.norm = nn.Parameter(torch.ones(d))
        self.encoder_scalars = nn.Parameter(torch.ones(config.num_hidden_layers))
        self.decoder_scalars = nn.Parameter(torch.ones(config.num_hidden_layers))
        self.layers = nn.ModuleList(self._layer(config.is_full(i)) for i in range(config.num_hidden_layers))
        self.self_conditioning = nn.ParameterDict({
            "pre_norm": torch.ones(d),
            "gate_up": torch.randn(2 * config.intermediate_size, d) * d**-0.5,
            "down": torch.randn(d, config.intermediate_size) * 0.3 * config.intermediate_size**-0.5,
        })
        self.encoder_layer, self.decoder_layer = layers.encoder_layer, layers.decoder_layer
        self.head = layers.head
        if compile_layers:
            # One graph per bucket, layer type and gradient mode: more than dynamo's default limit of 8.
            torch._dynamo.config.recompile_limit = 64
            self.encoder_layer = torch.compile(layers.encoder_layer, dynamic=False)
            self.decoder_layer = torch.compile(layers.decoder_layer, dynamic=False)
            self.head = torch.compile(layers.head, dynamic=False)

    def _layer(self, full: bool) -> nn.ParameterDict:
        c, d = self.config, self.config.hidden_size
        dim, kv, width = c.dim_per_head(full), c.kv_heads(full), c.num_attention_heads * c.dim_per_head(full)
        normal = lambda *shape: torch.randn(*shape) * shape[-1] ** -0.5  # noqa: E731
        return nn.ParameterDict({
            "input_layernorm": torch.ones(d),
            # The scale of attention is 1.0: q and k start small enough for logits of order one.
            "q_norm": torch.full((dim,), 1.2 * dim**-0.25),
            "k_norm": torch.full((dim,), 1.2 * dim**-0.25),
            "qkv": normal(width + kv * dim * (1 if full else 2), d),
            "o": normal(d, width),
            "post_attention_layernorm": torch.full((d,), 0.4),
            "pre_feedforward_layernorm": torch.ones(d),
            "pre_feedforward_layernorm_2": torch.ones(d),
            "gate_up": normal(2 * c.intermediate_size, d),
            "down": normal(d, c.intermediate_size),
            "router": normal(c.num_experts, d),
            "router_scale": torch.full((d,), float(d) ** 0.5),
            "per_expert_scale": torch.ones(c.num_experts),
            "experts_gate_up": normal(c.num_experts, 2 * c.moe_intermediate_size, d),
            # Kept as [hidden, experts, width] so that all experts are one GEMM.
            "experts_down": normal(d, c.num_experts, c.moe_intermediate_size),
            "post_feedforward_layernorm_1": torch.ones(d),
            "post_feedforward_layernorm_2": torch.ones(d),
            "post_feedforward_layernorm": torch.full((d,), 0.4),
        })

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.embed[ids] * self.config.hidden_size**0.5

    def logits(self, hidden: Tensor) -> Tensor:
        """Final norm, tied head and softcap; fp32."""
        return self.head(self.config, self.norm, self.embed, hidden, self.dtype)

    def encode(self, ids: Tensor, pad: Tensor, position: int = 0):
        """Causal pass over a whole context.

        Args:
            ids: Token ids [batch, length], left-padded.
            pad: Number of padding tokens per row [batch].
            position: Position of the first column.

        Returns:
            Hidden states before the final norm, a list of (K, V) per layer, and the balance loss.
        """
        c, length = self.config, ids.shape[1]
        i = torch.arange(length, device=ids.device)
        causal = (i[None, :] <= i[:, None])[None] & (i[None, None, :] >= pad[:, None, None])
        causal = causal | torch.eye(length, dtype=torch.bool, device=ids.device)  # padding rows see themselves
        near = i[:, None] - i[None, :] < c.sliding_window
        masks = {full: _additive(causal if full else causal & near)[:, None, None] for full in (False, True)}
        tables = {full: layers.rope_table(c, full, i + position) for full in (False, True)}
        x, cache, total = self.embed_tokens(ids), [], 0.0
        for n, w in enumerate(self.layers):
            full = c.is_full(n)
            x, k, v, balance = self.encoder_layer(
                c, full, dict(w), self.encoder_scalars[n], x, *tables[full], masks[full], self.dtype
            )
            cache.append((k, v))
            total = total + balance
        return x, cache, total

    def decode(self, canvas: Tensor, soft: Tensor, cache, starts: list[int], pad: Tensor):
        """Denoises canvases that share encoded contexts.

        Args:
            canvas: Token ids [batch, canvases, canvas_length].
            soft: Self-conditioning soft embeddings, same shape plus hidden; zeros without conditioning.
            cache: What `encode` returned.
            starts: Context length that each canvas follows; one entry per canvas.
            pad: Number of left-padding tokens per row [batch].

        Returns:
            Softcapped logits [batch, canvases, canvas_length, vocab] and the balance loss.
        """
        c, (batch, count, length) = self.config, canvas.shape
        ids = canvas.reshape(batch * count, length)
        x = self._self_condition(self.embed_tokens(ids), soft.reshape(batch * count, length, -1))
        positions = torch.tensor(starts, device=ids.device)[:, None] + torch.arange(length, device=ids.device)
        tables, masks = {}, {}
        for full in (False, True):
            table = layers.rope_table(c, full, positions)
            tables[full] = [t.repeat(batch, 1, 1, 1) for t in table]
            masks[full] = self._decoder_mask(full, cache[int(full)][0].shape[2], starts, pad, length)
        total = 0.0
        for n, w in enumerate(self.layers):
            full = c.is_full(n)
            k, v = (self._context(t, full, starts) for t in cache[n])
            x, balance = self.decoder_layer(
                c, full, dict(w), self.decoder_scalars[n], x, *tables[full], k, v, masks[full], self.dtype
            )
            total = total + balance
        return self.logits(x).view(batch, count, length, -1), total

    def soft_embedding(self, logits: Tensor, temperature: Tensor) -> Tensor:
        """Expected input embedding under softmax(logits / temperature)."""
        probs = (logits / temperature).softmax(-1)
        return (probs.to(self.dtype) @ self.embed.to(self.dtype)).float() * self.config.hidden_size**0.5

    def _self_condition(self, x: Tensor, soft: Tensor) -> Tensor:
        w = self.self_conditioning
        signal = layers.gated_mlp(layers.rms_norm(soft, w["pre_norm"]), w["gate_up"], w["down"], self.dtype)
        return layers.rms_norm(x + signal)

    def _context(self, t: Tensor, full: bool, starts: list[int]) -> Tensor:
        """Context rows that each canvas may read, as [batch * canvases, heads, rows, dim]."""
        if full:
            parts = [t] * len(starts)
        else:
            window = min(min(starts), self.config.sliding_window - 1)
            parts = [t[:, :, s - window : s] for s in starts]
        return torch.stack(parts, 1).flatten(0, 1)

    def _decoder_mask(self, full: bool, context: int, starts: list[int], pad: Tensor, length: int) -> Tensor:
        rows = []
        for s in starts:
            first = 0 if full else s - min(min(starts), self.config.sliding_window - 1)
            i = torch.arange(first, context if full else s, device=pad.device)
            rows.append((i[None] >= pad[:, None]) & (i[None] < s))
        seen = torch.stack(rows, 1).flatten(0, 1)
        seen = torch.cat((seen, seen.new_ones(seen.shape[0], length)), 1)
        return _additive(seen)[:, None, None, None]


def _additive(seen: Tensor) -> Tensor:
    return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, -1e9)
