"""Finds every text tensor of a checkpoint: which file, which byte offset, which dtype.

It reads headers, and of weights only tied copies. Safetensors headers are untrusted: every number is checked against
the file before it is used. The exporter binds weights by what this module returns, so its memory does not grow with
the checkpoint.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .accounting import account, compare_copies
from .config import ModelConfig
from .errors import InvalidCheckpoint, mismatch, plain, quote
from .files import INDEX_FILE, WeightFiles, weight_files
from .foreign import HEAD_BYTES, has_file, refuse_foreign_content

DTYPE_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
# Others, of tensors that a text export leaves out, may have any length.
_KNOWN_DTYPE_BYTES = {**DTYPE_BYTES, "F64": 8, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2,
                      "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}  # fmt: skip
_MAX_AXES, _MAX_NUMBER = 64, 2**63 - 1
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
VISION_PREFIXES = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")
DECODER = "model.decoder."
ENCODER = "model.encoder.language_model."
EMBEDDING = DECODER + "embed_tokens.weight"
HEAD = "lm_head.weight"


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
        raise ValueError(f"the name {quote(next(n for n in names if names.count(n) > 1))} twice")
    return seen


def read_header(path: Path) -> dict[str, TensorEntry]:
    """All tensors of one safetensors file.

    Raises:
        InvalidCheckpoint: truncated or oversized header, bad JSON, duplicate names, offsets that do not fit.
        Unsupported: the file is of another format.
    """
    if not has_file(path):
        raise InvalidCheckpoint(mismatch(f"{path}", "a file", "none"))
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as stream:
            prefix = stream.read(8)
            header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
            limit = min(_MAX_HEADER_BYTES, file_bytes - 8)
            if not 0 < header_bytes <= limit:
                refuse_foreign_content(path, prefix + stream.read(HEAD_BYTES))
                found = f"{header_bytes} in a file of {file_bytes} bytes"
                raise InvalidCheckpoint(mismatch(f"{path.name} header length", f"1..{max(limit, 1)} bytes", found))
            text = stream.read(header_bytes)
    except OSError as error:
        raise InvalidCheckpoint(mismatch(f"{path}", "a readable safetensors file", error.strerror)) from None
    try:
        header = json.loads(text.decode(), object_pairs_hook=_object_without_duplicates)
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
            raise InvalidCheckpoint(mismatch(f"{path.name} {plain(entry.name)} data offset", end - data_start, begin))
        end += entry.num_bytes
    if end != file_bytes:
        raise InvalidCheckpoint(mismatch(f"{path.name} file size", f"{end} bytes", f"{file_bytes} bytes"))
    return entries


def _entry(path: Path, name: str, facts: Any, data_start: int) -> TensorEntry:
    where = f"{path.name} {plain(name)}"
    try:
        dtype, shape, (begin, end) = facts["dtype"], tuple(facts["shape"]), facts["data_offsets"]
        numbers = (*shape, begin, end)
        sound = isinstance(dtype, str) and len(shape) <= _MAX_AXES and all(type(n) is int for n in numbers)
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound or min(numbers) < 0 or max(numbers) > _MAX_NUMBER:
        raise InvalidCheckpoint(mismatch(where, "dtype, shape and two data offsets", quote(facts)))
    element = _KNOWN_DTYPE_BYTES.get(dtype)
    expected = max(end - begin, 0) if element is None else math.prod(shape) * element
    if end - begin != expected:
        what = f"{where} of shape {quote(list(shape))} {plain(dtype)}"
        raise InvalidCheckpoint(mismatch(what, f"{expected} bytes", end - begin))
    return TensorEntry(name, dtype, shape, path, data_start + begin, expected)


@dataclass(frozen=True)
class Checkpoint:
    """The text tensors of a checkpoint folder, in the order of `expected_shapes`."""

    folder: Path
    tensors: Mapping[str, TensorEntry]
    has_vision: bool
    notes: tuple[str, ...] = ()  # for whoever exports it: files that were passed over

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
    """Reads all headers, accounts for every tensor, and picks those of the text model.

    Raises:
        InvalidCheckpoint: damaged or incomplete.
        Unsupported: sound, but not a plain checkpoint of this model: quantised, an adapter, untied.
    """
    files = weight_files(folder)
    found: dict[str, TensorEntry] = {}
    for path in files.paths:
        for name, entry in read_header(path).items():
            if name in found:
                expected = f"in one file only ({found[name].file.name})"
                raise InvalidCheckpoint(mismatch(f"tensor {plain(name)}", expected, f"also in {path.name}"))
            found[name] = entry
    notes = (*files.notes, *_index_notes(files, found))
    used, copies = dict(text_tensors(config)), dict(tied_copies(config))
    for name, partner in copies.items():  # a tied weight may be saved under any of its names
        if name in found and partner not in found:
            found[partner] = replace(found.pop(name), name=partner)
    account(found, used, copies, VISION_PREFIXES)
    compare_copies(found, copies)
    has_vision = any(name.startswith(VISION_PREFIXES) for name in found)
    return Checkpoint(folder, {name: found[name] for name in used}, has_vision, notes)


def _index_notes(files: WeightFiles, found: Mapping[str, TensorEntry]) -> Iterator[str]:
    """Where the index does not say what its files hold. transformers takes what they hold, and so does dgrt."""
    if not files.weight_map:
        return
    for name, file in files.weight_map.items():
        if name not in found or found[name].file.name != file:
            yield f"{INDEX_FILE} is stale: {file} has no tensor {plain(name)}; what the files hold counts"
            return
    for name, entry in found.items():
        if name not in files.weight_map:
            file = entry.file.name
            yield f"{INDEX_FILE} is stale: it does not list {plain(name)} of {file}; what the files hold counts"
            return


def tied_copies(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """Every tensor that a checkpoint may hold twice, as (copy, partner). The partners are among `text_tensors`."""
    yield HEAD, EMBEDDING
    for name, _ in text_tensors(config):
        own = name.endswith("layer_scalar") or name.startswith(DECODER + "self_conditioning.")
        if name.startswith(DECODER) and not own:
            yield ENCODER + name.removeprefix(DECODER), name


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
