"""The contract between exporter and runtime: graph names, tensor names, axes, dtypes, version. Data, not code.

`csrc/engine/contract.h` is generated from this file (`python -m dgrt_export.contract`) and committed; a test
regenerates and compares. Changing anything here means a new CONTRACT_VERSION and a CHANGELOG line; changing an operator
of our own domain means a new OPERATORS_VERSION instead.

Axis letters: S tokens of a prefill chunk, L canvas, P past rows of a layer (full layers: all committed tokens;
sliding layers: the last W - 1), Q the same for a canvas L tokens further on, K num_kv_heads * head_dim of the layer,
D hidden size, B tokens that a drafter proposes, G canvases of a checking pass, R rows of it: G L + S. Leading 1 is the
batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CONTRACT_VERSION = 6
FORMAT = "dgrt-engine"
MANIFEST_FILE = "manifest.json"

# What of a weight file is hashed at every load (README.md, "Samples"): small files whole, of others the header and
# blocks of every tensor, so that a change of a single one shows. This takes milliseconds for tens of gigabytes.
SAMPLE_WHOLE_BYTES = 2 << 20
SAMPLE_BLOCK_BYTES = 1 << 10
SAMPLE_STRIDE_BYTES = 16 << 20

# Operator profiles. In `fused` the heavy nodes are operators of our own ONNX domain (README.md lists them), whose opset
# version is OPERATORS_VERSION. A reader has its own version and those back to the oldest.
Profile = Literal["portable", "fused"]
PORTABLE: Profile = "portable"
FUSED: Profile = "fused"
OPERATOR_DOMAIN = "dgrt"
OPERATORS_VERSION = 6
OLDEST_OPERATORS_VERSION = 6


@dataclass(frozen=True)
class Tensor:
    """One graph input or output. `name` with `{layer}` stands for one tensor per layer, in layer order."""

    name: str
    axes: tuple[str, ...]
    dtype: str


PREFILL_GRAPH = "prefill"
DENOISE_GRAPH = "denoise"
SCORE_GRAPH = "score"
PACKED_GRAPH = "packed"
CHECK_GRAPH = "check"
DRAFTER_GRAPH = "drafter"

TOKENS = Tensor("tokens", ("1", "S"), "int64")
CANVAS = Tensor("canvas", ("1", "L"), "int64")
PREFILL_POSITIONS = Tensor("positions", ("1", "S"), "int64")
DENOISE_POSITIONS = Tensor("positions", ("1", "L"), "int64")
SOFT = Tensor("soft", ("1", "L", "D"), "float32")
PAST_K = Tensor("past_k.{layer}", ("1", "P", "K"), "float32")
PAST_V = Tensor("past_v.{layer}", ("1", "P", "K"), "float32")
NEW_K = Tensor("new_k.{layer}", ("1", "S", "K"), "float32")
NEW_V = Tensor("new_v.{layer}", ("1", "S", "K"), "float32")
HIDDEN = Tensor("hidden", ("1", "L", "D"), "float32")
SCORE_HIDDEN = Tensor("hidden", ("1", "S", "D"), "float32")
# Of the packed pass: L rows each of the canvas, of the canvas after it, and of the candidate to commit between them.
PACKED_TOKENS = Tensor("tokens", ("1", "3L"), "int64")
PACKED_POSITIONS = Tensor("positions", ("1", "3L"), "int64")
NEXT_SOFT = Tensor("next_soft", ("1", "L", "D"), "float32")
NEXT_PAST_K = Tensor("next_past_k.{layer}", ("1", "Q", "K"), "float32")
NEXT_PAST_V = Tensor("next_past_v.{layer}", ("1", "Q", "K"), "float32")
NEXT_HIDDEN = Tensor("next_hidden", ("1", "L", "D"), "float32")
PACKED_NEW_K = Tensor("new_k.{layer}", ("1", "L", "K"), "float32")
PACKED_NEW_V = Tensor("new_v.{layer}", ("1", "L", "K"), "float32")
# Of the checking pass: G canvases at the same positions, then S tokens from the first of these positions on.
CHECK_CANVASES = Tensor("canvases", ("G", "L"), "int64")
CHECK_POSITIONS = Tensor("positions", ("1", "R"), "int64")
CANVAS_HIDDEN = Tensor("canvas_hidden", ("G", "L", "D"), "float32")
# Of the drafter: the last token of the text (its anchor), and the B positions behind it.
DRAFTER_TOKENS = Tensor("tokens", ("1", "1"), "int64")
DRAFTER_POSITIONS = Tensor("positions", ("1", "B"), "int64")
EVIDENCE = Tensor("evidence", ("1", "B", "D"), "float32")
DRAFTER_HIDDEN = Tensor("hidden", ("1", "B", "D"), "float32")

# The graphs that every package has: inputs and outputs in graph order; layered tensors are interleaved per layer
# (k.0, v.0, k.1, v.1, ...).
GRAPHS: dict[str, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = {
    PREFILL_GRAPH: ((TOKENS, PREFILL_POSITIONS, PAST_K, PAST_V), (NEW_K, NEW_V)),
    DENOISE_GRAPH: ((CANVAS, DENOISE_POSITIONS, SOFT, PAST_K, PAST_V), (HIDDEN,)),
    SCORE_GRAPH: ((TOKENS, PREFILL_POSITIONS, PAST_K, PAST_V), (SCORE_HIDDEN, NEW_K, NEW_V)),
    PACKED_GRAPH: (
        (PACKED_TOKENS, PACKED_POSITIONS, SOFT, NEXT_SOFT, PAST_K, PAST_V, NEXT_PAST_K, NEXT_PAST_V),
        (HIDDEN, NEXT_HIDDEN, PACKED_NEW_K, PACKED_NEW_V),
    ),
    CHECK_GRAPH: (
        (CHECK_CANVASES, TOKENS, CHECK_POSITIONS, SOFT, PAST_K, PAST_V),
        (CANVAS_HIDDEN, SCORE_HIDDEN, NEW_K, NEW_V),
    ),
}
# Those that a package has only if it was exported with them. A layered tensor of the drafter is there for the layers of
# the manifest's `drafter.kv_layers` and no others, under the target's layer numbers.
OPTIONAL_GRAPHS: dict[str, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = {
    DRAFTER_GRAPH: ((DRAFTER_TOKENS, DRAFTER_POSITIONS, EVIDENCE, PAST_K, PAST_V), (DRAFTER_HIDDEN,)),
}


def layer_tensor(tensor: Tensor, layer: int) -> str:
    """Name of a layered tensor in one layer, e.g. `past_k.3`."""
    return tensor.name.format(layer=layer)


# C++ constant -> its value; a layered tensor becomes a prefix to which the layer number is appended.
_HEADER_TENSORS: dict[str, Tensor] = {
    "kTokens": TOKENS,
    "kCanvas": CANVAS,
    "kPositions": PREFILL_POSITIONS,  # the same name in all graphs
    "kSoft": SOFT,
    "kPastK": PAST_K,
    "kPastV": PAST_V,
    "kNewK": NEW_K,
    "kNewV": NEW_V,
    "kHidden": HIDDEN,  # the same name in all graphs that have it
    "kNextSoft": NEXT_SOFT,
    "kNextPastK": NEXT_PAST_K,
    "kNextPastV": NEXT_PAST_V,
    "kNextHidden": NEXT_HIDDEN,
    "kCanvases": CHECK_CANVASES,
    "kCanvasHidden": CANVAS_HIDDEN,
    "kEvidence": EVIDENCE,
}


def header_text() -> str:
    """The content of csrc/engine/contract.h."""
    texts = {
        "kFormat": FORMAT,
        "kManifestFile": MANIFEST_FILE,
        "kPortableProfile": PORTABLE,
        "kFusedProfile": FUSED,
        "kOperatorDomain": OPERATOR_DOMAIN,
        "kPrefillGraph": PREFILL_GRAPH,
        "kDenoiseGraph": DENOISE_GRAPH,
        "kScoreGraph": SCORE_GRAPH,
        "kPackedGraph": PACKED_GRAPH,
        "kCheckGraph": CHECK_GRAPH,
        "kDrafterGraph": DRAFTER_GRAPH,
    }
    lines = [
        "// Generated from export/dgrt_export/contract.py by `python -m dgrt_export.contract`; do not edit.",
        "// Names of graphs, inputs and outputs. Those that end in a point are prefixes: append the layer number.",
        "#pragma once",
        "",
        "#include <cstdint>",
        "",
        "namespace dgrt::contract {",
        "",
        f"inline constexpr int kContractVersion = {CONTRACT_VERSION};",
        f"inline constexpr int kOperatorsVersion = {OPERATORS_VERSION};",
        f"inline constexpr int kOldestOperatorsVersion = {OLDEST_OPERATORS_VERSION};",
    ]
    lines += [
        f"inline constexpr int64_t kSample{part} = {value};"
        for part, value in (
            ("WholeBytes", SAMPLE_WHOLE_BYTES), ("BlockBytes", SAMPLE_BLOCK_BYTES),
            ("StrideBytes", SAMPLE_STRIDE_BYTES),
        )
    ]  # fmt: skip
    lines += [f'inline constexpr char {name}[] = "{text}";' for name, text in texts.items()]
    lines.append("")
    for name, tensor in _HEADER_TENSORS.items():
        axes = ", ".join(tensor.axes)
        lines.append(f'inline constexpr char {name}[] = "{tensor.name.format(layer="")}";  // {tensor.dtype} [{axes}]')
    lines += ["", "}  // namespace dgrt::contract", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    from pathlib import Path

    target = Path(__file__).resolve().parents[2] / "csrc" / "engine" / "contract.h"
    target.write_text(header_text(), encoding="utf-8")
    print(target)
