"""The one tolerance table: largest difference allowed, by operation and dtype, each with its reason.

A value passes when |actual - expected| <= absolute + relative * |expected|. No test file holds a number of its own;
loosening an entry is a CHANGELOG line.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """Absolute and relative part, and why they are what they are."""

    absolute: float
    relative: float
    reason: str


EXACT = Tolerance(0.0, 0.0, "integers, masks and bytes have one right answer")

TOLERANCES: dict[tuple[str, str], Tolerance] = {
    ("kv", "fp32"): Tolerance(
        2e-5,
        2e-5,
        "K and V of a calm model after up to six layers: same fp32 arithmetic, other summation order (1e-6 seen)",
    ),
    ("hidden", "fp32"): Tolerance(
        5e-5, 5e-5, "final hidden states of a calm model: fp32, other summation order over all layers (4e-6 seen)"
    ),
    ("logits", "fp32"): Tolerance(
        5e-4,
        5e-5,
        "hidden states times the vocabulary table adds one more reduction over D, before a softcap of slope 1",
    ),
    ("wrapper", "fp32"): Tolerance(
        5e-5,
        5e-5,
        "our traced wrapper in torch against its ONNX form: other kernels, same operations in the same order",
    ),
    ("probability", "fp32"): Tolerance(1e-6, 1e-5, "one softmax over the vocabulary in fp32"),
    ("entropy", "fp32"): Tolerance(1e-5, 1e-5, "nats; sum of p log p over the vocabulary in fp32, bounded terms"),
    ("soft", "fp32"): Tolerance(5e-5, 5e-5, "probabilities times the table times sqrt(D): one reduction over V"),
    ("router", "fp32"): Tolerance(
        1e-5, 0.0, "router logits closer than this may trade places: noise of a normed hidden state times a projection"
    ),
    ("step_entropy", "fp32"): Tolerance(
        1e-4, 1e-4, "nats; one denoise step end to end, hidden states differ by 1e-6, T >= 0.4 (4e-6 seen)"
    ),
    ("step_logits", "fp32"): Tolerance(
        1e-4, 0.0, "tempered logits closer than this may trade places: twice the logit noise over the lowest T (0 seen)"
    ),
    ("step_border", "fp32"): Tolerance(
        1e-4, 0.0, "a uniform this close to the border of two tokens may fall on either side: noise of a sum (0 seen)"
    ),
    ("step_soft", "fp32"): Tolerance(
        5e-4, 5e-4, "soft embedding of one step end to end: probability noise times a table of norm sqrt(D) (2e-5 seen)"
    ),
    ("draft_probability", "fp32"): Tolerance(
        1e-6, 1e-3, "what the drafter gives a token, end to end: a softmax of logits that differ by their own noise"
    ),
    ("head_border", "fp32"): Tolerance(
        2e-6, 0.0, "params.h: how additions are grouped moves a border between two tokens by 1e-6 of the total at most"
    ),
    ("kernel", "fp32"): Tolerance(1e-5, 1e-5, "one operation, fp32, other summation order"),
    ("kernel", "bf16"): Tolerance(4e-2, 4e-2, "one operation on bf16 values: 8 bits of mantissa"),
    ("gradient_sum", "fp32"): Tolerance(
        1e-5, 1e-5, "three equal gradients added in another order, in units of the largest entry"
    ),
    ("layer", "bf16"): Tolerance(1e-2, 1e-2, "a normed layer in bf16 storage with fp32 arithmetic"),
}


def tolerance(operation: str, dtype: str = "fp32") -> Tolerance:
    """The entry for an operation; a missing one is an error, never a default."""
    return TOLERANCES[operation, dtype]
