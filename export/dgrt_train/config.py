"""Shape of dgrt-mini and the derived layer facts.

The trainer reads this dataclass; `publish.py` turns it into the released
spelling of config.json. Torch is not imported here.
"""
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """Hyper-parameters of the text model, named as in config.json."""

    vocab_size: int = 384
    hidden_size: int = 128
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    num_global_key_value_heads: int = 1
    global_head_dim: int = 64
    sliding_window: int = 128
    intermediate_size: int = 256
    num_experts: int = 8
    top_k_experts: int = 2
    moe_intermediate_size: int = 32
    canvas_length: int = 96
    final_logit_softcapping: float = 30.0
    rms_norm_eps: float = 1e-6
    sliding_rope_theta: float = 1e4
    full_rope_theta: float = 1e6
    full_partial_rotary_factor: float = 0.5
    max_position_embeddings: int = 4096

    def is_full(self, layer: int) -> bool:
        """Odd layers see the whole context; the last layer is always one of them."""
        return layer % 2 == 1

    def kv_heads(self, full: bool) -> int:
        return self.num_global_key_value_heads if full else self.num_key_value_heads

    def dim_per_head(self, full: bool) -> int:
        return self.global_head_dim if full else self.head_dim

    @property
    def layer_types(self) -> list[str]:
        return ["full_attention" if self.is_full(i) else "sliding_attention" for i in range(self.num_hidden_layers)]
