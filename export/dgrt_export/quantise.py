"""Quantised weights: which tensors, how they are stored, what their values are. README.md specifies the format.

Only the heavy matrices of the layers are: q, k, v and o projections, dense MLP, experts. A tensor NAME becomes two, the
integers NAME and a bf16 scale per row, NAME.scale. What the model has is integer * scale. Rows that meet such weights
become int8 too, when the model runs.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Format = Literal["I8", "I4"]
# Of the experts, and of what else is heavy: a few per cent of the bytes, but most of what four bits would cost.
FORMATS: dict[str, tuple[Format, Format]] = {"int8": ("I8", "I8"), "int4": ("I4", "I8")}  # by precision
GROUP = 32  # inputs that share a level in I4; kCodeGroup of csrc/kernels/weights.h
# What the codes of I4 stand for, in 128ths of the level; kInt4Values there. The best sixteen for groups of normally
# distributed weights whose largest is at one of the ends (Lloyd's algorithm, levels and assignments in turns).
VALUES = (-128, -101, -80, -63, -49, -35, -22, -10, 2, 13, 25, 37, 50, 66, 84, 109)
SCALE = ".scale"
_HEAVY = re.compile(
    r".*\.layers\.\d+\."
    r"(self_attn\.[qkvo]_proj\.weight|mlp\.(gate|up|down)_proj\.weight|experts\.(gate_up|down)_proj)"
)


def is_heavy(name: str) -> bool:
    """Whether a tensor is one of the matrices that are quantised."""
    return _HEAVY.fullmatch(name) is not None


def format_of(name: str, precision: str) -> Format | None:
    """How a precision stores a tensor, None: not quantised."""
    if precision not in FORMATS or not is_heavy(name):
        return None
    experts, others = FORMATS[precision]
    return experts if ".experts." in name else others


def stored_shape(dtype: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape on disk of a tensor: I4 is stored as U8, codes of half a byte and then a level per group."""
    return (*shape[:-1], math.ceil(shape[-1] / GROUP) * (GROUP // 2 + 1)) if dtype == "I4" else shape


def scale_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a tensor's scales."""
    return (*shape[:-1], 1)


def quantise(rows: torch.Tensor, dtype: Format) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers and scales, as they are stored, of finite fp32 rows [N, K]."""
    import torch

    scale = _as_bf16(rows.abs().amax(1, keepdim=True) / 127)
    if dtype == "I8":
        return _integers(rows, scale).to(torch.int8), scale.bfloat16()
    groups = torch.nn.functional.pad(rows / _divisor(scale), (0, -rows.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    codes, level = _codes_and_levels(groups)
    nibbles = codes[..., : GROUP // 2] | codes[..., GROUP // 2 :] << 4
    return torch.cat((nibbles.flatten(1), level.view(torch.uint8).squeeze(2)), 1), scale.bfloat16()


def dequantise(stored: torch.Tensor, scale: torch.Tensor, dtype: Format, shape: tuple[int, ...]) -> torch.Tensor:
    """The weights [*shape] in fp32, exactly those that the model has, from tensors as they are stored."""
    import torch

    if dtype == "I8":
        return stored.float() * scale.float()
    bytes_of_codes = math.ceil(shape[-1] / GROUP) * GROUP // 2
    nibbles = stored[..., :bytes_of_codes].unflatten(-1, (-1, GROUP // 2))
    level = stored[..., bytes_of_codes:].contiguous().view(torch.int8).unsqueeze(-1)
    integers = _weights(torch.cat((nibbles & 15, nibbles >> 4), -1), level)
    return integers.flatten(-2)[..., : shape[-1]] * scale.float()


def rounded_rows(x: torch.Tensor) -> torch.Tensor:
    """Activations [..., K] as an operator with quantised weights rounds them: to 127 steps of a row's largest value."""
    scale = x.abs().amax(-1, keepdim=True) / 127
    return _integers(x, scale) * scale


def _integers(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (values / _divisor(scale)).round_().clamp_(-127, 127)


def _divisor(scale: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.where(scale == 0, 1, scale)


def _codes_and_levels(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes uint8 [N, G, 32] and levels int8 [N, G, 1] of integers that need not be whole, from -127 to 127.

    The largest of a group begins at one end of the values and at the other; from there the level follows from the codes
    by least squares and the codes from the level, twice. The better of both.
    """
    import torch

    # Borders between neighbouring values are halves of an integer: a number's cell of a half says which one is nearest.
    centres = (torch.arange(512) - 256 + 0.5) / 2
    values = torch.tensor(VALUES, dtype=torch.float)
    code_of_cell = (centres[:, None] - values).abs().argmin(1).to(torch.uint8)
    value_of_cell = values[code_of_cell.int()]

    def cells(level: torch.Tensor) -> torch.Tensor:
        return (groups * (256 / _divisor(level))).floor_().clamp_(-256, 255).add_(256).int()

    largest = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    found = []
    for end in (VALUES[0], VALUES[-1]):
        level = largest * (128 / end)
        for _ in range(2):
            nearest = value_of_cell[cells(level)]
            level = 128 * (groups * nearest).sum(2, keepdim=True) / nearest.square().sum(2, keepdim=True)
        level = level.round_().clamp_(-127, 127)
        codes = code_of_cell[cells(level)]
        level = level.to(torch.int8)
        found.append((codes, level, (groups - _weights(codes, level)).square_().sum(2, keepdim=True)))
    (codes, level, error), (other_codes, other_level, other_error) = found
    is_better = other_error < error
    return torch.where(is_better, other_codes, codes), torch.where(is_better, other_level, level)


def _weights(codes: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """The integers, as fp32: products and sums are exact in it."""
    import torch

    return (torch.tensor(VALUES, dtype=torch.float)[codes.int()] * level + 64).div_(128).floor_()


def _as_bf16(values: torch.Tensor) -> Any:
    return values.bfloat16().float()
