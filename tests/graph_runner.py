"""Runs the graphs of a package with ONNX Runtime's Python binding, as the runtime does: explicit KV rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
from dgrt_export.operators import find_library


class GraphRunner:
    """KV is a list k.0, v.0, k.1, ... of rows [T, K]; all T committed tokens are kept, windows are views."""

    def __init__(self, folder: Path):
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.model = self.manifest["model"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        if self.manifest["profile"] == "fused":
            options.register_custom_ops_library(str(find_library()))
        self._prefill, self._denoise, self._score, self._packed, self._check = (
            onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in ("prefill.onnx", "denoise.onnx", "score.onnx", "packed.onnx", "check.onnx")
        )
        self._drafter = None
        if "drafter" in self.manifest:
            path = folder / self.manifest["graphs"]["drafter"]["file"]
            self._drafter = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def empty(self) -> list[np.ndarray]:
        widths = [layer["head_dim"] * layer["num_kv_heads"] for layer in self.model["layers"]]
        return [np.zeros((0, width), np.float32) for width in widths for _ in range(2)]

    def prefill(self, tokens: np.ndarray, chunks: list[int], first_position: int = 0) -> list[np.ndarray]:
        """KV rows of all tokens, fed in chunks of the given lengths (the last one takes what is left)."""
        kv, done = self.empty(), 0
        for size in [*chunks, len(tokens) - sum(chunks)]:
            if size == 0:
                continue
            positions = np.arange(first_position + done, first_position + done + size)
            feeds = {"tokens": tokens[None, done : done + size], "positions": positions[None], **self._past(kv, done)}
            kv = [np.concatenate((rows, new[0])) for rows, new in zip(kv, self._prefill.run(None, feeds), strict=True)]
            done += size
        return kv

    def score(self, tokens: np.ndarray, kv: list[np.ndarray], past: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Hidden states [S, D] of a causal pass over tokens behind the first `past` rows of kv, and their KV rows."""
        positions = np.arange(past, past + len(tokens))[None]
        feeds = {"tokens": tokens[None], "positions": positions, **self._past(kv, past)}
        hidden, *new = self._score.run(None, feeds)
        return hidden[0], [rows[0] for rows in new]

    def denoise(self, canvas: np.ndarray, soft: np.ndarray, kv: list[np.ndarray], past: int) -> np.ndarray:
        """Hidden states [L, D]."""
        positions = np.arange(past, past + len(canvas))[None]
        feeds = {"canvas": canvas[None], "positions": positions, "soft": soft[None], **self._past(kv, past)}
        return self._denoise.run(None, feeds)[0][0]

    def packed(
        self, canvases: np.ndarray, softs: np.ndarray, candidate: np.ndarray, kv: list[np.ndarray], past: int
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Hidden states of both `canvases` [2, L] with `softs` [2, L, D], and the KV rows of the candidate [L]."""
        length = len(candidate)
        own, following = np.arange(past, past + length), np.arange(past + length, past + 2 * length)
        feeds = {"tokens": np.concatenate((*canvases, candidate))[None],
                 "positions": np.concatenate((own, following, own))[None],
                 "soft": softs[:1], "next_soft": softs[1:],
                 **self._past(kv, past), **self._past(kv, past, ahead=length)}  # fmt: skip
        hidden, next_hidden, *new = self._packed.run(None, feeds)
        return hidden[0], next_hidden[0], [rows[0] for rows in new]

    def check(
        self, canvases: np.ndarray, soft: np.ndarray, draft: np.ndarray, kv: list[np.ndarray], past: int
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Hidden states of `canvases` [G, L], the first with `soft` [L, D], and of the causal pass over `draft` [S];
        the KV rows of that."""
        own = np.arange(past, past + canvases.shape[1])
        positions = np.concatenate((*[own] * len(canvases), np.arange(past, past + len(draft))))
        feeds = {"canvases": canvases, "tokens": draft[None], "positions": positions[None], "soft": soft[None],
                 **self._past(kv, past)}  # fmt: skip
        hidden, causal, *new = self._check.run(None, feeds)
        return hidden, causal[0], [rows[0] for rows in new]

    def draft(self, anchor: int, evidence: np.ndarray, kv: list[np.ndarray], past: int) -> np.ndarray:
        """Hidden states [B, D] of the tokens behind `anchor`, which is at position `past`. `evidence` [B, D]."""
        feeds = {"tokens": np.array([[anchor]]), "positions": np.arange(past + 1, past + 1 + len(evidence))[None],
                 "evidence": evidence[None]}  # fmt: skip
        for layer in self.manifest["drafter"]["kv_layers"]:
            feeds[f"past_k.{layer}"], feeds[f"past_v.{layer}"] = (rows[None, :past] for rows in kv[2 * layer :][:2])
        return self._drafter.run(None, feeds)[0][0]

    def _past(self, kv: list[np.ndarray], past: int, ahead: int = 0) -> dict[str, np.ndarray]:
        """Rows in front of a pass at `past`; with `ahead`, those of them that a canvas so many tokens later sees."""
        feeds, prefix = {}, "next_past" if ahead else "past"
        for index, layer in enumerate(self.model["layers"]):
            first = max(0, past + ahead - (self.model["sliding_window"] - 1)) if layer["type"] == "sliding" else 0
            feeds[f"{prefix}_k.{index}"] = kv[2 * index][None, min(first, past) : past]
            feeds[f"{prefix}_v.{index}"] = kv[2 * index + 1][None, min(first, past) : past]
        return feeds
