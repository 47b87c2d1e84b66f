"""The target as a distillation sees it: an engine package, its facts, and the numbers its graphs compute.

The graphs are those that the runtime runs, so a drafter learns from the very rows that it will be shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dgrt_export import contract
from dgrt_export.check_session import CheckSession
from dgrt_export.config import ModelConfig, parse_config, read_json
from dgrt_export.operators import find_library

from .errors import DistillError

_CHUNK = 512  # rows of a prefill pass
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Target:
    """An engine package to distil from. `folder` is one that `dgrt.Runtime` has loaded, so its files are sound."""

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return read_json(self.folder / contract.MANIFEST_FILE)

    @cached_property
    def config(self) -> ModelConfig:
        return parse_config(read_json(self.folder / "config.json"))

    @property
    def name(self) -> str:
        return str(self.manifest["source"]["name"])

    @property
    def fingerprint(self) -> str:
        """Which checkpoint the engine was made from."""
        found = self.manifest["source"].get("fingerprint")
        if not isinstance(found, str):
            raise DistillError(
                f"{self.folder}: expected an engine with source.fingerprint, found none; export it again"
            )
        return found

    @cached_property
    def full_layers(self) -> tuple[int, ...]:
        return tuple(i for i, layer in enumerate(self.config.layers) if layer.type == "full")

    @cached_property
    def table(self) -> torch.Tensor:
        """The token table [V, D] as float32."""
        facts = self.manifest["embedding"]
        shape = (self.config.vocab_size, self.config.hidden_size)
        dtype = _DTYPES[facts["dtype"]]
        mapped = np.memmap(self.folder / facts["file"], np.uint8, "r", facts["offset"], (facts["bytes"],))
        return torch.frombuffer(bytearray(mapped), dtype=dtype).view(shape).float()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., D] to [..., V], with the softcap."""
        scores, cap = hidden @ self.table.T, self.config.final_logit_softcap
        return torch.tanh(scores / cap) * cap if cap else scores


class Features:
    """KV rows and hidden states of a target. Not for several threads at once."""

    def __init__(self, target: Target):
        self._config, self._kv_layers = target.config, target.full_layers
        library = find_library() if target.manifest["profile"] == contract.FUSED else None
        graphs = target.manifest["graphs"]
        self._prefill, self._denoise = (
            CheckSession(target.folder / graphs[name]["file"], library)
            for name in (contract.PREFILL_GRAPH, contract.DENOISE_GRAPH)
        )

    def kv_rows(self, tokens: np.ndarray) -> list[np.ndarray]:
        """K and V of every layer (k.0, v.0, k.1, ...), each [T, K] float32, of the text `tokens` [T]."""
        rows = [np.empty((0, layer.kv_width), np.float32) for layer in self._config.layers for _ in range(2)]
        for start in range(0, len(tokens), _CHUNK):
            chunk = tokens[start : start + _CHUNK]
            new = self._prefill.run(self._feeds("tokens", chunk, start, rows), [])
            rows = [np.concatenate((old, fresh[0])) for old, fresh in zip(rows, new, strict=True)]
        return rows

    def hidden(self, canvas: np.ndarray, soft: np.ndarray, start: int, rows: list[np.ndarray]) -> np.ndarray:
        """Final hidden states [L, D] of a denoise pass over `canvas` [L] at position `start`, with `soft` [L, D]."""
        feeds = self._feeds("canvas", canvas, start, rows)
        feeds["soft"] = soft[None]
        return self._denoise.run(feeds, [])[0][0]

    def _feeds(self, name: str, tokens: np.ndarray, start: int, rows: list[np.ndarray]) -> dict[str, np.ndarray]:
        """The inputs that all graphs have; a sliding layer sees the last W - 1 rows before `start`."""
        feeds = {name: tokens[None].astype(np.int64), "positions": np.arange(start, start + len(tokens))[None]}
        for index, layer in enumerate(self._config.layers):
            first = max(0, start - self._config.sliding_window + 1) if layer.type == "sliding" else 0
            for kind, past in zip((contract.PAST_K, contract.PAST_V), rows[2 * index : 2 * index + 2], strict=True):
                feeds[contract.layer_tensor(kind, index)] = past[None, first:start]
        return feeds
