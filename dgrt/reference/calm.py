"""The calm recipe: random weights in which a rounding difference stays one.

Plain random weights amplify a difference of 1e-6 to 80 % within twelve layers, so that two correct implementations look
wrong. With small post-norms, small keys and clear router margins fp32 agrees to about 1e-5. Pure Python, for whoever
writes a random checkpoint.
"""

from __future__ import annotations

INIT_STD = 0.02  # standard deviation of the random matrices that the factors are relative to; norms start at 1
_FACTORS = {
    "post_attention_layernorm.weight": 0.2,
    "post_feedforward_layernorm.weight": 0.2,
    "k_norm.weight": 0.3,
    "router.proj.weight": 40.0,
}
_RANGES = {"layer_scalar": (0.95, 1.05)}


def factor(name: str) -> float:
    """What the initial values of a parameter are multiplied by; 1 for most.

    Example:
        >>> factor("model.decoder.layers.3.self_attn.k_norm.weight"), factor("model.decoder.norm.weight")
        (0.3, 1.0)
    """
    return next((value for suffix, value in _FACTORS.items() if name.endswith(suffix)), 1.0)


def uniform_range(name: str) -> tuple[float, float] | None:
    """Bounds of a parameter that is drawn uniformly instead; None for most.

    Example:
        >>> uniform_range("model.decoder.layers.3.layer_scalar")
        (0.95, 1.05)
    """
    return next((bounds for suffix, bounds in _RANGES.items() if name.endswith(suffix)), None)
