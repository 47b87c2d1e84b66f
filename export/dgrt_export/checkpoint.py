"""Finds every text tensor of a checkpoint: which file, which byte offset, which dtype. Reads headers, never weights.

Safetensors headers are untrusted: every number is checked against the file before it is used. The exporter binds
weights by what this module returns, so its memory does not grow with the checkpoint.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import ModelConfig, read_json
from .errors import InvalidCheckpoint, Unsupported, mismatch

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
DTYPE_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
_ALL_DTYPE_BYTES = {**DTYPE_BYTES, "F64": 8, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2,
                    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}  # fmt: skip
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
_VISION_PREFIXES = ("model.encoder.vision_tower.", "model.encoder.embed_vision.", "model.vision_tower.",
                    "model.embed_vision.")  # fmt: skip
DECODER = "model.decoder."
ENCODER = "model.encoder.language_model."
EMBEDDING = DECODER + "embed_tokens.weight"


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in place: `num_bytes` at `offset` of `file`, row-major `shape` of `dtype` (F32, BF16, ...).

    In a package `dtype` may also be I8 or I4: quantise.py says how such a `shape` is stored.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    num_bytes: int


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = dict(pairs)
    if len(seen) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} twice")
    return seen


def read_header(path: Path) -> dict[str, TensorEntry]:
    """All tensors of one safetensors file.

    Raises:
        InvalidCheckpoint: truncated or oversized header, bad JSON, duplicate names, offsets that do not fit.
    """
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as stream:
            prefix = stream.read(8)
            header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
            limit = min(_MAX_HEADER_BYTES, file_bytes - 8)
            if not 0 < header_bytes <= limit:
                found = f"{header_bytes} in a file of {file_bytes} bytes"
                raise InvalidCheckpoint(mismatch(f"{path.name} header length", f"1..{max(limit, 1)} bytes", found))
            text = stream.read(header_bytes)
    except OSError as error:
        raise InvalidCheckpoint(mismatch(f"{path}", "a readable safetensors file", error.strerror)) from None
    try:
        header = json.loads(text, object_pairs_hook=_object_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise InvalidCheckpoint(mismatch(f"{path.name} header", "a JSON object with unique names", error)) from None
    if not isinstance(header, dict):
        raise InvalidCheckpoint(mismatch(f"{path.name} header", "a JSON object", type(header).__name__))
    header.pop("__metadata__", None)
    data_start = 8 + header_bytes
    entries = {name: _entry(path, name, facts, data_start) for name, facts in header.items()}
    end = data_start
    for entry in sorted(entries.values(), key=lambda e: (e.offset, e.num_bytes)):
        if entry.offset != end:  # the format allows neither overlaps nor holes
            begin = entry.offset - data_start
            raise InvalidCheckpoint(mismatch(f"{path.name} {entry.name} data offset", end - data_start, begin))
        end += entry.num_bytes
    if end != file_bytes:
        raise InvalidCheckpoint(mismatch(f"{path.name} file size", f"{end} bytes", f"{file_bytes} bytes"))
    return entries


def _entry(path: Path, name: str, facts: Any, data_start: int) -> TensorEntry:
    where = f"{path.name} {name}"
    try:
        dtype, shape, (begin, end) = facts["dtype"], tuple(facts["shape"]), facts["data_offsets"]
        numbers = (*shape, begin, end)
        sound = isinstance(dtype, str) and all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound or min(numbers) < 0:
        raise InvalidCheckpoint(mismatch(where, "dtype, shape and two data offsets", str(facts)[:200]))
    if dtype not in _ALL_DTYPE_BYTES:
        raise Unsupported(mismatch(f"{where} dtype", "F32 or BF16", dtype))
    expected = math.prod(shape) * _ALL_DTYPE_BYTES[dtype]
    if end - begin != expected:
        raise InvalidCheckpoint(mismatch(f"{where} of shape {list(shape)} {dtype}", f"{expected} bytes", end - begin))
    return TensorEntry(name, dtype, shape, path, data_start + begin, expected)


@dataclass(frozen=True)
class Checkpoint:
    """The text tensors of a checkpoint folder, in the order of `expected_shapes`."""

    folder: Path
    tensors: Mapping[str, TensorEntry]
    has_vision: bool

    @property
    def files(self) -> list[Path]:
        """The weight files that hold at least one text tensor."""
        return sorted({entry.file for entry in self.tensors.values()})

    def precision(self) -> str:
        """`fp32`, `bf16` or `fp16`: the dtype that holds most of the bytes."""
        weight = {"F32": 0, "BF16": 0, "F16": 0}
        for entry in self.tensors.values():
            weight[entry.dtype] += entry.num_bytes
        return {"F32": "fp32", "BF16": "bf16", "F16": "fp16"}[max(weight, key=lambda dtype: weight[dtype])]


def open_checkpoint(folder: Path, config: ModelConfig) -> Checkpoint:
    """Reads all headers and picks the text tensors, each checked for presence, dtype and shape."""
    found: dict[str, TensorEntry] = {}
    for path in _weight_files(folder):
        for name, entry in read_header(path).items():
            if name in found:
                expected = f"in one file only ({found[name].file.name})"
                raise InvalidCheckpoint(mismatch(f"tensor {name}", expected, f"also in {path.name}"))
            found[name] = entry
    expected_shapes = dict(text_tensors(config))
    tensors = {}
    for name, shape in expected_shapes.items():
        if name not in found:
            raise InvalidCheckpoint(mismatch(f"tensor {name}", f"shape {list(shape)}", f"no such tensor in {folder}"))
        entry = found[name]
        if entry.shape != shape:
            raise InvalidCheckpoint(mismatch(f"tensor {name} in {entry.file.name}", list(shape), list(entry.shape)))
        if entry.dtype not in DTYPE_BYTES:
            raise Unsupported(mismatch(f"tensor {name} dtype", "F32, BF16 or F16", entry.dtype))
        tensors[name] = entry
    # A decoder tensor we do not know (a quantisation scale, a bias) would change the result if it were ignored.
    if unknown := sorted(name for name in found if name.startswith(DECODER) and name not in tensors):
        raise Unsupported(mismatch("decoder tensors", "only those of an unquantised model", unknown[0]))
    return Checkpoint(folder, tensors, any(name.startswith(_VISION_PREFIXES) for name in found))


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if not index.exists():
        if not (folder / SINGLE_FILE).exists():
            raise InvalidCheckpoint(mismatch(f"{folder}", f"{SINGLE_FILE} or {INDEX_FILE}", "neither"))
        return [folder / SINGLE_FILE]
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise InvalidCheckpoint(mismatch(f"{INDEX_FILE} weight_map", "tensor names to file names", weight_map))
    for name, file in weight_map.items():
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise InvalidCheckpoint(mismatch(f"{INDEX_FILE} file of {name}", "a plain *.safetensors name", repr(file)))
        if not (folder / file).exists():
            raise InvalidCheckpoint(mismatch(f"{INDEX_FILE} file of {name}", f"{file} in {folder}", "no such file"))
    return [folder / file for file in sorted(set(weight_map.values()))]


def text_tensors(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor the graphs use. The encoder shares all weights but its layer scalars."""
    d, inner = config.hidden_size, config.intermediate_size
    yield EMBEDDING, (config.vocab_size, d)
    for index, layer in enumerate(config.layers):
        root, q_width = f"{DECODER}layers.{index}.", config.num_heads * layer.head_dim
        yield root + "self_attn.q_proj.weight", (q_width, d)
        yield root + "self_attn.k_proj.weight", (layer.kv_width, d)
        if layer.type == "sliding":
            yield root + "self_attn.v_proj.weight", (layer.kv_width, d)
        yield root + "self_attn.o_proj.weight", (d, q_width)
        yield root + "self_attn.q_norm.weight", (layer.head_dim,)
        yield root + "self_attn.k_norm.weight", (layer.head_dim,)
        yield from _gated_mlp(root + "mlp.", d, inner)
        yield root + "router.scale", (d,)
        yield root + "router.proj.weight", (config.num_experts, d)
        yield root + "router.per_expert_scale", (config.num_experts,)
        yield root + "experts.gate_up_proj", (config.num_experts, 2 * config.moe_intermediate_size, d)
        yield root + "experts.down_proj", (config.num_experts, d, config.moe_intermediate_size)
        for norm in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            yield f"{root}{norm}_layernorm.weight", (d,)
        for norm in ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "pre_feedforward_layernorm_2"):
            yield f"{root}{norm}.weight", (d,)
        yield root + "layer_scalar", (1,)
        yield f"{ENCODER}layers.{index}.layer_scalar", (1,)
    yield DECODER + "norm.weight", (d,)
    yield DECODER + "self_conditioning.pre_norm.weight", (d,)
    yield from _gated_mlp(DECODER + "self_conditioning.", d, inner)


def _gated_mlp(root: str, d: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield root + "gate_proj.weight", (inner, d)
    yield root + "up_proj.weight", (inner, d)
    yield root + "down_proj.weight", (d, inner)
