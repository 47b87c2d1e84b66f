"""Generation defaults of the package: generation_config.json over the defaults of the transformers class.

`max_new_tokens` is left out on purpose: the released value (256) cuts replies short, and ours is "until done".
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from .config import ModelConfig, read_json, token_ids
from .errors import InvalidCheckpoint, Unsupported, mismatch

FILE = "generation_config.json"
_SAMPLER = "EntropyBoundSamplerConfig"
_DEFAULTS: dict[str, Any] = {
    "max_denoising_steps": 48, "t_min": 0.4, "t_max": 0.8, "stability_threshold": 1, "confidence_threshold": 0.005,
}  # fmt: skip
_ENTROPY_BOUND = 0.1  # nats


def read_generation(folder: Path, config: ModelConfig) -> dict[str, Any]:
    """The `generation` object of the manifest.

    Args:
        folder: the checkpoint; a missing generation_config.json means class defaults and config.json's stop ids.
        config: the model, for stop ids when generation_config.json names none.
    """
    raw = read_json(folder / FILE) if (folder / FILE).exists() else {}
    values = {key: raw[key] if raw.get(key) is not None else default for key, default in _DEFAULTS.items()}
    sampler = raw.get("sampler_config") or {}
    if not isinstance(sampler, dict):
        raise InvalidCheckpoint(mismatch(f"{FILE} sampler_config", "an object", sampler))
    if sampler.get("_cls_name", _SAMPLER) != _SAMPLER:
        raise Unsupported(mismatch(f"{FILE} sampler_config", _SAMPLER, sampler["_cls_name"]))
    values["entropy_bound"] = sampler.get("entropy_bound", _ENTROPY_BOUND)

    for key in ("max_denoising_steps", "stability_threshold"):
        lowest = 1 if key == "max_denoising_steps" else 0
        if not isinstance(values[key], int) or isinstance(values[key], bool) or values[key] < lowest:
            raise InvalidCheckpoint(mismatch(f"{FILE} {key}", f"an integer >= {lowest}", repr(values[key])))
    for key in ("t_min", "t_max", "entropy_bound", "confidence_threshold"):
        value, relation = values[key], ">=" if key == "t_min" else ">"
        sound = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
        if not sound or (relation == ">" and value == 0):
            raise InvalidCheckpoint(mismatch(f"{FILE} {key}", f"a number {relation} 0", repr(value)))
        values[key] = float(value)
    if values["t_max"] <= values["t_min"]:
        raise InvalidCheckpoint(mismatch(f"{FILE} t_max", f"more than t_min = {values['t_min']}", values["t_max"]))
    own = "eos_token_id" in raw
    stop = token_ids(raw["eos_token_id"], f"{FILE} eos_token_id") if own else config.eos_token_ids
    if outside := [token for token in stop if token >= config.vocab_size]:
        where = f"{FILE if own else 'config.json'} eos_token_id"
        raise InvalidCheckpoint(mismatch(where, f"token ids below vocab_size = {config.vocab_size}", outside[0]))
    values["stop_ids"] = list(stop)
    return values
