"""Generation defaults of the package: generation_config.json over the defaults of the transformers class.

`max_new_tokens` is left out on purpose: the released value (256) cuts replies short, and ours is "until done".
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from .config import ModelConfig, read_json, token_ids
from .errors import InvalidCheckpoint, Unsupported, mismatch, plain, quote
from .foreign import has_file

FILE = "generation_config.json"
_SAMPLER = "EntropyBoundSamplerConfig"
_DEFAULTS: dict[str, Any] = {
    "max_denoising_steps": 48, "t_min": 0.4, "t_max": 0.8, "stability_threshold": 1, "confidence_threshold": 0.005,
}  # fmt: skip
_ENTROPY_BOUND = 0.1  # nats
# Who opens a package takes no larger ones (csrc/engine/manifest.cc).
_MOST_STEPS = 2**16
_MOST = {"t_min": 1e4, "t_max": 1e4, "entropy_bound": 1e9, "confidence_threshold": 1e9}
# Other keys that the transformers class knows. They say nothing about what a reply is, or a caller decides them.
_WITHOUT_EFFECT = {
    "max_new_tokens", "max_length", "return_dict_in_generate", "cache_implementation", "cache_config",
    "disable_compile", "bos_token_id", "pad_token_id", "_commit_hash", "_from_model_config", "transformers_version",
}  # fmt: skip
_TOKENIZER_FILE = "tokenizer.json"
_TURN_END = "<turn|>"  # of the chat template of this model family


def read_generation(folder: Path, config: ModelConfig) -> dict[str, Any]:
    """The `generation` object of the manifest.

    Args:
        folder: the checkpoint; a missing generation_config.json means class defaults and config.json's stop ids.
        config: the model, for stop ids when generation_config.json names none.
    """
    raw = read_json(folder / FILE) if has_file(folder / FILE) else {}
    values = {key: raw[key] if raw.get(key) is not None else default for key, default in _DEFAULTS.items()}
    sampler = {} if raw.get("sampler_config") is None else raw["sampler_config"]
    if not isinstance(sampler, dict):
        raise InvalidCheckpoint(mismatch(f"{FILE} sampler_config", "an object", quote(sampler)))
    if sampler.get("_cls_name", _SAMPLER) != _SAMPLER:
        raise Unsupported(mismatch(f"{FILE} sampler_config", repr(_SAMPLER), quote(sampler["_cls_name"])))
    if unknown := sorted(set(sampler) - {"_cls_name", "entropy_bound"}):
        raise Unsupported(mismatch(f"{FILE} sampler_config", "entropy_bound alone", quote(unknown[0])))
    values["entropy_bound"] = sampler.get("entropy_bound", _ENTROPY_BOUND)

    for key in ("max_denoising_steps", "stability_threshold"):
        lowest = 1 if key == "max_denoising_steps" else 0
        if type(values[key]) is not int or not lowest <= values[key] <= _MOST_STEPS:
            expected = f"an integer from {lowest} to {_MOST_STEPS}"
            raise InvalidCheckpoint(mismatch(f"{FILE} {key}", expected, quote(values[key])))
    for key, most in _MOST.items():
        value, relation = values[key], ">=" if key == "t_min" else ">"
        sound = type(value) in (int, float) and 0 <= value <= most
        if not sound or (relation == ">" and _single(value) == 0):
            remedy = f"what single precision holds, and at most {most:g}" if type(value) in (int, float) else ""
            raise InvalidCheckpoint(mismatch(f"{FILE} {key}", f"a number {relation} 0", quote(value), remedy))
        values[key] = float(value)
    if _single(values["t_max"]) <= _single(values["t_min"]):
        raise InvalidCheckpoint(mismatch(f"{FILE} t_max", f"more than t_min = {values['t_min']}", values["t_max"]))
    own = "eos_token_id" in raw
    stop = token_ids(raw["eos_token_id"], f"{FILE} eos_token_id") if own else config.eos_token_ids
    if outside := [token for token in stop if token >= config.vocab_size]:
        where = f"{FILE if own else 'config.json'} eos_token_id"
        raise InvalidCheckpoint(mismatch(where, f"token ids below vocab_size = {config.vocab_size}", outside[0]))
    values["stop_ids"] = list(stop)
    return values


def _single(value: float) -> float:
    """As the runtime holds it."""
    number: float = struct.unpack("f", struct.pack("f", value))[0]
    return number


def text_notes(folder: Path, config: ModelConfig, stop_ids: list[int]) -> tuple[str, ...]:
    """What whoever exports should know of generation values and the vocabulary. Nothing of it stops an export.

    Args:
        folder: the checkpoint.
        config: the model.
        stop_ids: those of the package.

    Raises:
        InvalidCheckpoint: tokenizer.json is damaged.
    """
    ids = _vocabulary(folder)
    ends = {token: text for text, token in ids.items() if text == _TURN_END}
    ends |= {token: "an end token of config.json" for token in config.eos_token_ids if token not in ends}
    notes, remedy = [], f"add them to {FILE}, or pass stop_ids to each generation"
    if not stop_ids:
        notes.append(f"{FILE} eos_token_id names no token: no reply ends before its limit; {remedy}")
    elif missing := sorted(token for token in ends if token not in stop_ids):
        names = ", ".join(f"{token} ({ends[token]})" for token in missing)
        notes.append(f"the stop ids {quote(stop_ids)} lack {names}: replies may run on; {remedy}")
    raw = read_json(folder / FILE) if has_file(folder / FILE) else {}
    known = {*_DEFAULTS, *_WITHOUT_EFFECT, "sampler_config", "eos_token_id"}
    if unknown := sorted(key for key, value in raw.items() if key not in known and value is not None):
        names = ", ".join(plain(key, 40) for key in unknown[:9])
        notes.append(f"{FILE}: this model has no {names}, in transformers neither: ignored")
    if beyond := sorted((token, text) for text, token in ids.items() if token >= config.vocab_size):
        token, text = beyond[0]
        more = f" and {len(beyond) - 1} more are" if len(beyond) > 1 else " is"
        notes.append(
            f"tokenizer.json: token {quote(text)} with id {token}{more} beyond the embedding of {config.vocab_size} "
            "rows; prompts with such a token are refused"
        )
    return tuple(notes)


def _vocabulary(folder: Path) -> dict[str, int]:
    """Ids by text of tokenizer.json; empty without one."""
    if not has_file(folder / _TOKENIZER_FILE):
        return {}
    raw = read_json(folder / _TOKENIZER_FILE)
    model = raw.get("model")
    entries = model.get("vocab") if isinstance(model, dict) else None
    pairs: list[tuple[Any, Any]]
    if isinstance(entries, list):  # Unigram: [text, score], the id is the place
        pairs = [(part[0], token) for token, part in enumerate(entries) if isinstance(part, list) and part]
    else:
        pairs = list(entries.items()) if isinstance(entries, dict) else []
    added = raw.get("added_tokens")
    parts = [part for part in added if isinstance(part, dict)] if isinstance(added, list) else []
    pairs += [(part.get("content"), part.get("id")) for part in parts]
    return {text: token for text, token in pairs if isinstance(text, str) and type(token) is int}
