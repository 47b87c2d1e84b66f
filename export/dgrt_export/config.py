"""Reads config.json into our own frozen description of the model. Two spellings exist and both end here:

the released one (`global_head_dim`, `num_global_key_value_heads`, `attention_k_eq_v`) and `per_layer_config`, which
transformers 5.23 writes. Missing keys take the defaults of the transformers class, as the reference does.
Everything that shapes a graph comes from here; torch is not imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import InvalidCheckpoint, Unsupported, mismatch, quote
from .foreign import has_file, refuse_foreign_content, refuse_quantised_config

MAX_COUNT = 2**31 - 1  # of anything that config files count
# Who opens a package takes no larger ones (csrc/engine/manifest.cc). What it refuses must not be exported.
_MOST = {
    "vocab_size": 2**24, "hidden_size": 2**20, "num_attention_heads": 2**14, "num_key_value_heads": 2**14,
    "head_dim": 2**14, "global_head_dim": 2**14, "num_global_key_value_heads": 2**14, "num_experts": 2**16,
    "num_hidden_layers": 2**12, "final_logit_softcapping": 1e6,
    "canvas_length": 4096,  # and no more than this, since the parity gate computes attention of a canvas at once
}  # fmt: skip
_SINGLE_LOWEST, _SINGLE_HIGHEST = 2.0**-126, float.fromhex("0x1.fffffep127")
ARCHITECTURE = "DiffusionGemmaForBlockDiffusion"
MODEL_TYPE = "diffusion_gemma"
LayerType = Literal["sliding", "full"]

_LAYER_TYPES: dict[str, LayerType] = {"sliding_attention": "sliding", "full_attention": "full"}
_PER_LAYER_KEYS = {"head_dim", "num_key_value_heads"}
# Defaults of DiffusionGemmaTextConfig; they differ from the released model, so they only count where a key is absent.
_TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 262_144, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 30,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6, "sliding_window": 512, "final_logit_softcapping": 30.0,
    "hidden_activation": "gelu_pytorch_tanh", "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
}  # fmt: skip
_ROPE_DEFAULTS: dict[str, dict[str, Any]] = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}
_GLOBAL_HEAD_DIM = 512  # of the class, when neither spelling gives one
_FULL_PATTERN = 6  # of the class, when layer_types is absent: every sixth layer is full


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of one layer type: pair i turns by position * theta^(-2i / head_dim) / factor."""

    head_dim: int
    theta: float
    rotated_pairs: int  # pairs i < rotated_pairs turn; the rest of the head_dim / 2 pairs stand still
    factor: float = 1.0


@dataclass(frozen=True)
class Layer:
    """What differs from layer to layer."""

    type: LayerType
    head_dim: int
    num_kv_heads: int

    @property
    def kv_width(self) -> int:
        """Columns of one KV row, `num_kv_heads * head_dim`."""
        return self.head_dim * self.num_kv_heads


@dataclass(frozen=True)
class ModelConfig:
    """The text model as the graphs need it. Lengths are in tokens."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_experts: int
    top_k_experts: int
    moe_intermediate_size: int
    rms_norm_eps: float
    sliding_window: int
    canvas_len: int
    context_len: int
    final_logit_softcap: float  # 0: none
    pad_token_id: int
    bos_token_id: int  # -1: none
    eos_token_ids: tuple[int, ...]  # of config.json; generation_config.json has the last word
    layers: tuple[Layer, ...]
    ropes: Mapping[LayerType, Rope]

    def rope(self, layer: Layer) -> Rope:
        return self.ropes[layer.type]


def read_file(path: Path) -> bytes:
    """The content of a file of the checkpoint."""
    if not has_file(path):
        raise InvalidCheckpoint(mismatch(f"{path.parent}", f"a file {path.name}", "none"))
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidCheckpoint(mismatch(f"{path}", "a readable file", error.strerror)) from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the checkpoint."""
    text = read_file(path)
    try:
        content = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        refuse_foreign_content(path, text)
        begins = f"{quote(text.decode(errors='replace'), 60)} ({error})" if text else "an empty file"
        raise InvalidCheckpoint(mismatch(f"{path}", "readable JSON", begins)) from None
    if not isinstance(content, dict):
        raise InvalidCheckpoint(mismatch(f"{path}", "a JSON object", quote(content)))
    return content


def token_ids(value: object, where: str) -> tuple[int, ...]:
    """`eos_token_id` comes as null, one id, or a list of ids."""
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
        raise InvalidCheckpoint(mismatch(where, "a token id or a list of token ids", quote(value)))
    return tuple(ids)


class Reader:
    """Typed access to one JSON object, with the class defaults behind it."""

    def __init__(self, raw: dict[str, Any], defaults: dict[str, Any], where: str):
        self.raw, self.defaults, self.where = raw, defaults, where

    def get(self, key: str) -> Any:
        return self.raw.get(key, self.defaults.get(key))

    def count(self, key: str, at_least: int = 1) -> int:
        value = self.get(key)
        if type(value) is not int or value < at_least:
            raise InvalidCheckpoint(mismatch(f"{self.where} {key}", f"an integer >= {at_least}", quote(value)))
        if value > (most := _MOST.get(key, MAX_COUNT)):
            raise Unsupported(mismatch(f"{self.where} {key}", f"at most {most}", quote(value)))
        return value

    def token(self, key: str, *, none: int, vocab_size: int) -> int:
        """A token id of the vocabulary; null is `none`, the lowest value that a reader of the package takes."""
        value = self.get(key)
        if value is None:
            return none
        if not isinstance(value, int) or isinstance(value, bool) or not none <= value < vocab_size:
            expected = f"null or a token id below vocab_size = {vocab_size}"
            raise InvalidCheckpoint(mismatch(f"{self.where} {key}", expected, quote(value)))
        return value

    def number(self, key: str) -> float:
        """A number above 0 that is one in single precision too, in which models compute."""
        value, most = self.get(key), _MOST.get(key, _SINGLE_HIGHEST)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not _SINGLE_LOWEST <= value <= most:
            remedy = f"what single precision holds, and at most {most:.3g}" if type(value) in (int, float) else ""
            raise InvalidCheckpoint(mismatch(f"{self.where} {key}", "a number > 0", quote(value), remedy))
        return float(value)

    def require(self, key: str, *allowed: object) -> None:
        """Refuses other values than those that are named; None among them: the key may be absent."""
        value = self.get(key)
        if value not in allowed:
            expected = " or ".join(repr(a) for a in allowed if a is not None)
            raise Unsupported(mismatch(f"{self.where} {key}", expected, quote(value)))


def parse_config(raw: dict[str, Any]) -> ModelConfig:
    """Turns the content of config.json into a ModelConfig.

    Raises:
        InvalidCheckpoint: a value has the wrong type or contradicts another one.
        Unsupported: the architecture or an option is not one the graphs can express.
    """
    _require_this_model(raw)
    text = Reader(raw["text_config"], _TEXT_DEFAULTS, "config.json text_config")
    top = Reader(raw, {"canvas_length": 256}, "config.json")
    for reader in (top, text):
        refuse_quantised_config(reader.raw, reader.where)
        reader.require("tie_word_embeddings", True, None)
        if reader.get("rope_scaling") is not None:  # an empty one counts for transformers, too
            where, found = f"{reader.where} rope_scaling", quote(reader.get("rope_scaling"))
            remedy = "rope_scaling is not supported (nor by transformers for this model): remove it"
            raise Unsupported(mismatch(where, "none", found, remedy))
    text.require("hidden_activation", "gelu_pytorch_tanh")
    text.require("attention_bias", False, None)
    text.require("use_bidirectional_attention", "vision", None)
    text.require("attention_k_eq_v", True, None)

    layers = _layers(text)
    num_heads, num_experts = text.count("num_attention_heads"), text.count("num_experts")
    top_k = text.count("top_k_experts")
    if top_k > num_experts:
        raise InvalidCheckpoint(mismatch("config.json top_k_experts", f"at most num_experts = {num_experts}", top_k))
    for number, layer in enumerate(layers):
        if num_heads % layer.num_kv_heads:
            expected = f"a divisor of num_attention_heads = {num_heads}"
            raise InvalidCheckpoint(
                mismatch(f"config.json num_key_value_heads of layer {number}", expected, layer.num_kv_heads)
            )
    canvas_len, context_len = _lengths(top, text)
    softcap, vocab_size = text.get("final_logit_softcapping"), text.count("vocab_size")
    return ModelConfig(
        vocab_size=vocab_size, hidden_size=text.count("hidden_size"),
        intermediate_size=text.count("intermediate_size"), num_heads=num_heads, num_experts=num_experts,
        top_k_experts=top_k, moe_intermediate_size=text.count("moe_intermediate_size"),
        rms_norm_eps=text.number("rms_norm_eps"),
        sliding_window=text.count("sliding_window", at_least=2),  # the reference's cache misbehaves at 1
        canvas_len=canvas_len, context_len=context_len,
        final_logit_softcap=text.number("final_logit_softcapping") if softcap is not None else 0.0,
        pad_token_id=text.token("pad_token_id", none=0, vocab_size=vocab_size),
        bos_token_id=text.token("bos_token_id", none=-1, vocab_size=vocab_size),
        eos_token_ids=token_ids(raw.get("eos_token_id", text.get("eos_token_id")), "config.json eos_token_id"),
        layers=layers, ropes=_ropes(text, layers),
    )  # fmt: skip


def _require_this_model(raw: dict[str, Any]) -> None:
    """Refuses the config of another model, and one whose text part was saved alone."""
    architectures, model_type = raw.get("architectures"), raw.get("model_type")
    if not isinstance(architectures, list | None):
        raise InvalidCheckpoint(mismatch("config.json architectures", "a list", quote(architectures)))
    flattened = "text_config" not in raw and "hidden_size" in raw
    if flattened and (model_type in (MODEL_TYPE, f"{MODEL_TYPE}_text")):
        found = "the text part alone, flattened into config.json"
        remedy = "take config.json of the base model, or save the whole model with save_pretrained"
        raise InvalidCheckpoint(mismatch("config.json text_config", "an object", found, remedy))
    if model_type != MODEL_TYPE:
        expected, remedy = f"{MODEL_TYPE!r} ({ARCHITECTURE})", "dgrt exports this model alone"
        raise Unsupported(mismatch("config.json model_type", expected, quote(model_type), remedy))
    if architectures and ARCHITECTURE not in architectures:
        remedy = "a trainer's wrapper, or another model: save the model itself"
        raise Unsupported(mismatch("config.json architectures", repr(ARCHITECTURE), quote(architectures), remedy))
    if raw.get("transformers_weights") is not None:
        found = quote(raw["transformers_weights"])
        remedy = "rename that file to model.safetensors and remove the key"
        raise Unsupported(mismatch("config.json transformers_weights", "none", found, remedy))
    if not isinstance(raw.get("text_config"), dict):
        raise InvalidCheckpoint(mismatch("config.json text_config", "an object", quote(raw.get("text_config"))))


def _lengths(top: Reader, text: Reader) -> tuple[int, int]:
    """Of the canvas and the context. A canvas has to fit into the context, or nothing can be generated."""
    canvas_len, context_len = top.count("canvas_length"), text.count("max_position_embeddings")
    if canvas_len > context_len:
        expected = f"at most max_position_embeddings = {context_len}"
        raise InvalidCheckpoint(mismatch("config.json canvas_length", expected, canvas_len))
    return canvas_len, context_len


def _layers(text: Reader) -> tuple[Layer, ...]:
    """The layer table; the last layer is always full, as the reference forces it."""
    num_layers = text.count("num_hidden_layers")
    names = text.get("layer_types")
    if names is None:
        names = ["full_attention" if (i + 1) % _FULL_PATTERN == 0 else "sliding_attention" for i in range(num_layers)]
    if not isinstance(names, list) or len(names) != num_layers:
        raise InvalidCheckpoint(
            mismatch("config.json layer_types", f"a list of num_hidden_layers = {num_layers}", quote(names))
        )
    if unknown := [name for name in names if not isinstance(name, str) or name not in _LAYER_TYPES]:
        raise Unsupported(mismatch("config.json layer_types", " or ".join(_LAYER_TYPES), quote(unknown[0])))
    types = [_LAYER_TYPES[name] for name in [*names[:-1], "full_attention"]]

    if "per_layer_config" in text.raw:
        overrides = _overrides(text.raw["per_layer_config"])
    else:
        own = Reader({"global_head_dim": _GLOBAL_HEAD_DIM, **text.raw}, {}, text.where)  # null is not absent
        full = {"head_dim": own.count("global_head_dim", 2)}
        if own.get("num_global_key_value_heads") is not None:
            full["num_key_value_heads"] = own.count("num_global_key_value_heads")
        overrides = {i: full for i, kind in enumerate(types) if kind == "full"}
    if bad := [i for i in overrides if not 0 <= i < num_layers]:
        raise InvalidCheckpoint(mismatch("config.json per_layer_config", f"layers below {num_layers}", bad[0]))

    layers = []
    for index, kind in enumerate(types):
        over = overrides.get(index, {})
        if unknown := sorted(set(over) - _PER_LAYER_KEYS):
            where = f"config.json per_layer_config {index}"
            raise Unsupported(mismatch(where, sorted(_PER_LAYER_KEYS), quote(unknown[0])))
        reader = Reader(over, {k: text.get(k) for k in _PER_LAYER_KEYS}, f"config.json layer {index}")
        layers.append(Layer(kind, reader.count("head_dim", 2), reader.count("num_key_value_heads")))
    for kind in ("sliding", "full"):
        if len(shapes := {layer for layer in layers if layer.type == kind}) > 1:
            raise Unsupported(
                mismatch(
                    f"config.json {kind} layers",
                    "one head_dim and KV head count",
                    sorted((layer.head_dim, layer.num_kv_heads) for layer in shapes),
                )
            )
    return tuple(layers)


def _overrides(given: Any) -> dict[int, dict[str, Any]]:
    """`per_layer_config`: an object of objects by layer number."""
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(
        re.fullmatch("[0-9]{1,9}", number) and isinstance(over, dict) for number, over in given.items()
    ):
        expected = "layer numbers with an object each"
        raise InvalidCheckpoint(mismatch("config.json per_layer_config", expected, quote(given)))
    return {int(number): over for number, over in given.items()}


def _ropes(text: Reader, layers: tuple[Layer, ...]) -> dict[LayerType, Rope]:
    """Rotary parameters of each layer type that occurs."""
    given = text.get("rope_parameters")
    given = _ROPE_DEFAULTS if given is None else given
    if not isinstance(given, dict):
        raise InvalidCheckpoint(mismatch("config.json rope_parameters", "an object", quote(given)))
    ropes: dict[LayerType, Rope] = {}
    for name, kind in _LAYER_TYPES.items():
        layer = next((layer for layer in layers if layer.type == kind), None)
        if layer is None:
            continue
        where = f"config.json rope_parameters {name}"
        if not isinstance(given.get(name), dict):
            expected, found = "an object for each layer type", quote(given.get(name, given))
            raise InvalidCheckpoint(mismatch(where, expected, found))
        defaults = {"rope_type": given[name].get("type", "default"), "partial_rotary_factor": 1.0, "factor": 1.0}
        rope = Reader(given[name], defaults, where)
        rope.require("rope_type", "default", "proportional")
        half = layer.head_dim // 2
        if rope.get("rope_type") == "default":
            rope.require("partial_rotary_factor", 1.0)  # the reference has no partial form of this type
            ropes[kind] = Rope(layer.head_dim, rope.number("rope_theta"), half)
        else:
            share = rope.get("partial_rotary_factor")
            if type(share) not in (int, float) or not 0 <= share <= 1:
                raise InvalidCheckpoint(mismatch(f"{where} partial_rotary_factor", "a number in 0..1", quote(share)))
            # Truncation as in the reference: int(share * head_dim // 2) pairs, exponent over the full head_dim.
            pairs = int(share * layer.head_dim // 2)
            ropes[kind] = Rope(layer.head_dim, rope.number("rope_theta"), pairs, rope.number("factor"))
    return ropes
