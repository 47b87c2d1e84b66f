"""Reads the checkpoint of a drafter and sees whether it fits the target. README.md has the network and the format.

It is untrusted input like the target's. What comes after may rely on it: shapes, layers and vocabulary are the
target's, and the weights it was trained against are the ones that are exported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoint import TensorEntry, read_header
from .config import ModelConfig, Reader, read_json
from .errors import InvalidCheckpoint, Unsupported, mismatch, plain, quote
from .foreign import has_file
from .weights import WeightPlan, plan_in_one_dtype

MODEL_TYPE = "dgrt_block_drafter"
VERSION = 1
WEIGHT_FILE = "drafter.safetensors"
_DTYPES = ("F32", "BF16")


@dataclass(frozen=True)
class DrafterConfig:
    """A block drafter. Its width, vocabulary and the shape of its keys and values are the target's."""

    name: str
    num_heads: int
    intermediate_size: int
    rms_norm_eps: float
    block_len: int  # most tokens it was trained to propose in a pass
    kv_layers: tuple[int, ...]  # of each layer: the full layer of the target whose KV rows it looks into
    mean_run: float  # tokens of a first draft before the first wrong one, as measured on held-out texts

    @property
    def past_layers(self) -> tuple[int, ...]:
        """The target's layers whose KV rows are inputs of the graph, each once, in order."""
        return tuple(sorted(set(self.kv_layers)))


@dataclass(frozen=True)
class Drafter:
    """A drafter that fits its target, and how its weights get into the package."""

    config: DrafterConfig
    tensors: Mapping[str, TensorEntry]  # as its checkpoint stores them
    weights: WeightPlan


def open_drafter(folder: Path, config: ModelConfig, fingerprint: str, target: WeightPlan) -> Drafter:
    """Reads the checkpoint of a drafter for a target.

    Args:
        folder: with config.json and drafter.safetensors.
        config: the target.
        fingerprint: of the target's checkpoint.
        target: the target's weights in the package. The drafter's are fp32 if they are, else bf16.

    Raises:
        InvalidCheckpoint: damaged, or contradicts itself.
        Unsupported: another kind or version of drafter, or one for another target.
    """
    if not folder.is_dir():
        raise InvalidCheckpoint(mismatch(f"drafter {folder}", "a folder", "a file" if folder.exists() else "none"))
    drafter = _parse(read_json(folder / "config.json"), folder.name, config, fingerprint)
    if WEIGHT_FILE in (source.name for source in target.sources):
        raise Unsupported(mismatch(f"weight file {WEIGHT_FILE}", "the drafter's alone", "one of the target"))
    tensors = _open_tensors(folder / WEIGHT_FILE, drafter, config)
    return Drafter(drafter, tensors, plan_in_one_dtype(tensors, "fp32" if target.precision == "fp32" else "bf16"))


def _parse(raw: dict[str, Any], name: str, config: ModelConfig, fingerprint: str) -> DrafterConfig:
    top = Reader(raw, {}, "drafter config.json")
    top.require("model_type", MODEL_TYPE)
    top.require("version", VERSION)
    if not isinstance(raw.get("target"), dict):
        raise InvalidCheckpoint(mismatch("drafter config.json target", "an object", quote(raw.get("target"))))
    target = Reader(raw["target"], {}, "drafter config.json target")
    _require_equal(target, "vocab_size", config.vocab_size)
    _require_equal(target, "hidden_size", config.hidden_size)
    _require_equal(target, "canvas_len", config.canvas_len)
    _require_equal(top, "hidden_size", config.hidden_size)
    _check_fingerprint(target, fingerprint)

    num_heads, block_len = top.count("num_heads"), top.count("block_len")
    if block_len > config.canvas_len:
        expected = f"at most {config.canvas_len}, the target's canvas"
        raise Unsupported(mismatch("drafter config.json block_len", expected, block_len))
    kv_layers, mean_run = _kv_layers(top, config), top.number("mean_run")
    if mean_run > config.canvas_len:
        expected = f"at most {config.canvas_len}, the target's canvas"
        raise InvalidCheckpoint(mismatch("drafter config.json mean_run", expected, mean_run))
    for kv_heads in {config.layers[number].num_kv_heads for number in kv_layers}:
        if num_heads % kv_heads:
            expected = f"a multiple of the target's {kv_heads} KV heads"
            raise Unsupported(mismatch("drafter config.json num_heads", expected, num_heads))
    return DrafterConfig(
        name, num_heads, top.count("intermediate_size"), top.number("rms_norm_eps"), block_len, kv_layers, mean_run,
    )  # fmt: skip


def _require_equal(reader: Reader, key: str, expected: int) -> None:
    if (found := reader.count(key)) != expected:
        raise Unsupported(mismatch(f"{reader.where} {key}", f"{expected} (the target's)", found))


def _check_fingerprint(target: Reader, expected: str) -> None:
    found, name = target.get("fingerprint"), target.get("name")
    if not isinstance(found, str) or not re.fullmatch("[0-9a-f]{64}", found):
        raise InvalidCheckpoint(mismatch(f"{target.where} fingerprint", "64 hexadecimal digits", quote(found)))
    if found != expected:
        expected = f"{expected}, of the checkpoint that is exported"
        raise Unsupported(mismatch(f"{target.where} fingerprint", expected, f"{found}, of {quote(name)}"))


def _kv_layers(top: Reader, config: ModelConfig) -> tuple[int, ...]:
    where, numbers = f"{top.where} kv_layers", top.get("kv_layers")
    if not isinstance(numbers, list) or not numbers or any(type(number) is not int for number in numbers):
        raise InvalidCheckpoint(mismatch(where, "a list of layer numbers", quote(numbers)))
    full = [index for index, layer in enumerate(config.layers) if layer.type == "full"]
    if wrong := [number for number in numbers if number not in full]:
        raise Unsupported(mismatch(where, f"full layers of the target, of {full}", wrong[0]))
    return tuple(numbers)


def _open_tensors(path: Path, drafter: DrafterConfig, config: ModelConfig) -> Mapping[str, TensorEntry]:
    if not has_file(path):
        raise InvalidCheckpoint(mismatch(f"{path.parent}", f"a file {path.name}", "none"))
    found, tensors = read_header(path), {}
    for name, shape in drafter_tensors(drafter, config):
        if name not in found:
            raise InvalidCheckpoint(mismatch(f"tensor {name}", f"shape {list(shape)}", f"no such tensor in {path}"))
        entry = found.pop(name)
        if entry.shape != shape:
            raise InvalidCheckpoint(mismatch(f"tensor {name} in {path.name}", list(shape), quote(list(entry.shape))))
        if entry.dtype not in _DTYPES:
            raise Unsupported(mismatch(f"tensor {name} dtype", " or ".join(_DTYPES), plain(entry.dtype)))
        tensors[name] = entry
    if found:  # would change what is proposed if it were ignored
        raise Unsupported(mismatch(f"tensors of {path.name}", "only those of a block drafter", plain(min(found))))
    return tensors


def drafter_tensors(drafter: DrafterConfig, config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor of a drafter."""
    d, inner = config.hidden_size, drafter.intermediate_size
    yield "mask", (d,)
    yield "evidence_proj.weight", (d, d)
    for index, number in enumerate(drafter.kv_layers):
        root, kv = f"layers.{index}.", config.layers[number]
        yield root + "input_norm.weight", (d,)
        yield root + "q_proj.weight", (drafter.num_heads * kv.head_dim, d)
        yield root + "k_proj.weight", (kv.kv_width, d)
        yield root + "v_proj.weight", (kv.kv_width, d)
        yield root + "o_proj.weight", (d, drafter.num_heads * kv.head_dim)
        yield root + "q_norm.weight", (kv.head_dim,)
        yield root + "k_norm.weight", (kv.head_dim,)
        yield root + "mlp_norm.weight", (d,)
        yield root + "gate_proj.weight", (inner, d)
        yield root + "up_proj.weight", (inner, d)
        yield root + "down_proj.weight", (d, inner)
    yield "norm.weight", (d,)
