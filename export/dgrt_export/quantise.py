"""Quantised weights: which tensors, how they are stored, what their values are. README.md specifies the format.

Only the heavy matrices of the layers are: q, k, v and o projections, dense MLP, experts. A tensor NAME becomes two, the
integers NAME and their bf16 scales NAME.scale. What the model has is integer * scale, in I4 rounded to bf16. Rows that
meet weights of I8 become int8 too, when the model runs.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Format = Literal["I8", "I4"]
FORMATS: dict[str, Format] = {"int8": "I8", "int4": "I4"}  # by precision
GROUP = 32  # inputs that share a scale in I4; kScaleGroup of csrc/kernels/weights.h
SCALE = ".scale"
_HEAVY = re.compile(
    r".*\.layers\.\d+\."
    r"(self_attn\.[qkvo]_proj\.weight|mlp\.(gate|up|down)_proj\.weight|experts\.(gate_up|down)_proj)"
)
# What the largest value of a group of I4 may be divided into. At 8 nothing is cut off (the sign of the scale is free,
# so it becomes -8) and steps are finest; beyond, it is cut off and the others get finer steps. On normally
# distributed weights the best of these has 0.72 of the squared error of 7 alone, 0.92 of that of 8. With 64 inputs
# per scale it has 1.21 times that error.
_LARGEST = (7.0, 7.5, 8.0, 8.5, 9.0)


def is_heavy(name: str) -> bool:
    """Whether a tensor is one of the matrices that are quantised."""
    return _HEAVY.fullmatch(name) is not None


def stored_shape(dtype: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape on disk of a tensor: I4 is stored as U8, two values in a byte."""
    return (*shape[:-1], (shape[-1] + 1) // 2) if dtype == "I4" else shape


def scale_shape(dtype: Format, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a tensor's scales: one per row in I8, one per group in I4."""
    return (*shape[:-1], 1 if dtype == "I8" else math.ceil(shape[-1] / GROUP))


def quantise(rows: torch.Tensor, dtype: Format) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers and scales, as they are stored, of finite fp32 rows [N, K]."""
    import torch

    if dtype == "I8":
        scale = _as_bf16(rows.abs().amax(1, keepdim=True) / 127)
        return _integers(rows, scale, -127, 127).to(torch.int8), scale.bfloat16()
    groups = torch.nn.functional.pad(rows, (0, -rows.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    largest = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    best = scale = least = None
    for limit in _LARGEST:
        tried = _as_bf16(largest / -limit)
        integers = _integers(groups, tried, -8, 7)
        error = torch.addcmul(groups, integers, tried, value=-1).square_().sum(2, keepdim=True)
        if best is None or scale is None or least is None:
            best, scale, least = integers, tried, error
            continue
        better = error < least
        best, scale = torch.where(better, integers, best), torch.where(better, tried, scale)
        least = torch.minimum(error, least)
    assert best is not None and scale is not None
    nibbles = best.flatten(1)[:, : rows.shape[1] + rows.shape[1] % 2].to(torch.int8).view(torch.uint8) & 15
    return nibbles[:, ::2] | nibbles[:, 1::2] << 4, scale.squeeze(2).bfloat16()


def dequantise(stored: torch.Tensor, scale: torch.Tensor, dtype: Format, shape: tuple[int, ...]) -> torch.Tensor:
    """The weights [*shape] in fp32, exactly those that the model has, from tensors as they are stored."""
    import torch

    if dtype == "I8":
        return stored.float() * scale.float()
    nibbles = torch.stack((stored & 15, stored >> 4), -1).flatten(-2)[..., : shape[-1]]
    integers = (nibbles.to(torch.int8) ^ 8) - 8  # the sign bit of four
    scales = scale.float().repeat_interleave(GROUP, -1)[..., : shape[-1]]
    return _as_bf16(integers.float() * scales)


def rounded_rows(x: torch.Tensor) -> torch.Tensor:
    """Activations [..., K] as an operator with weights of I8 rounds them: to 127 steps of a row's largest value."""
    scale = x.abs().amax(-1, keepdim=True) / 127
    return _integers(x, scale, -127, 127) * scale


def _integers(values: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
    import torch

    return (values / torch.where(scale == 0, 1, scale)).round_().clamp_(low, high)


def _as_bf16(values: torch.Tensor) -> Any:
    return values.bfloat16().float()
