"""manifest.json: everything a reader needs before it touches a graph. README.md of this package specifies it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Container
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from . import contract
from .checkpoint import EMBEDDING, Checkpoint
from .config import ARCHITECTURE, ModelConfig
from .drafter import Drafter, DrafterConfig
from .weights import WeightPlan

_HASH_CHUNK_BYTES = 8 << 20
_EMBEDDING_DTYPES = {"F32": "float32", "BF16": "bfloat16"}


def graph_file(name: str) -> str:
    """File name of a graph in the package."""
    return f"{name}.onnx"


def sample_of(stream: BinaryIO, size: int) -> str:
    """SHA-256 over the size of a safetensors file and samples of its bytes. Twin: csrc/engine/weight_sample.cc."""
    block, stride = contract.SAMPLE_BLOCK_BYTES, contract.SAMPLE_STRIDE_BYTES
    digest = hashlib.sha256(size.to_bytes(8, "little"))

    def update(offset: int, length: int) -> None:
        stream.seek(offset)
        digest.update(stream.read(length))

    if size <= contract.SAMPLE_WHOLE_BYTES:
        update(0, size)
        return digest.hexdigest()
    start, ends = _parts(stream)
    update(0, start)
    for end in sorted({*ends, size}):
        length, count = end - start, 2 + (end - start) // stride
        if length <= count * block:
            update(start, length)
        else:
            for i in range(count):
                update(start + i * (length - block) // (count - 1), block)
        start = end
    return digest.hexdigest()


def _parts(stream: BinaryIO) -> tuple[int, set[int]]:
    """Where the header ends, and where each tensor does."""
    stream.seek(0)
    header_bytes = int.from_bytes(stream.read(8), "little")
    header = json.loads(stream.read(header_bytes))
    header.pop("__metadata__", None)
    start = 8 + header_bytes
    return start, {start + tensor["data_offsets"][1] for tensor in header.values()}


def hash_files(
    folder: Path, weight_files: Container[str], on_bytes: Callable[[int], None]
) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file in the folder, read in chunks; of weight files also a sample and when written."""
    listing: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.iterdir()):
        digest, size = hashlib.sha256(), 0
        with path.open("rb") as stream:
            while chunk := stream.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                on_bytes(len(chunk))
            listing[path.name] = {"bytes": size, "sha256": digest.hexdigest()}
            if path.name in weight_files:
                written = datetime.fromtimestamp(int(os.fstat(stream.fileno()).st_mtime), UTC)
                listing[path.name] |= {"sample": sample_of(stream, size), "written": written.isoformat()}
    return listing


def tool_versions() -> dict[str, str]:
    """Versions of the libraries that shape the graphs."""
    import onnx
    import torch
    import transformers

    return {
        "torch": torch.__version__.split("+")[0],
        "onnx": onnx.__version__,
        "transformers": transformers.__version__,
    }


def build_manifest(
    config: ModelConfig, checkpoint: Checkpoint, fingerprint: str, plan: WeightPlan, drafter: Drafter | None,
    generation: dict[str, Any], files: dict[str, dict[str, Any]], weight_files: list[str], parity: dict[str, Any],
    profile: contract.Profile, moe: str | None, dgrt_version: str,
) -> dict[str, Any]:  # fmt: skip
    """Assembles the manifest from the results of the stages. `moe`: the form of the experts; None in `fused`."""
    embedding = plan.entries[EMBEDDING]
    graphs = [*contract.GRAPHS, *([] if drafter is None else [contract.DRAFTER_GRAPH])]
    layers = [
        {"type": layer.type, "head_dim": layer.head_dim, "num_kv_heads": layer.num_kv_heads} for layer in config.layers
    ]
    return {
        "format": contract.FORMAT,
        "contract_version": contract.CONTRACT_VERSION,
        "dgrt_version": dgrt_version,
        "tools": tool_versions(),
        "source": {
            "name": checkpoint.folder.name,
            "architecture": ARCHITECTURE,
            "vision": "skipped" if checkpoint.has_vision else "none",
            "fingerprint": fingerprint,
        },
        "profile": profile,
        **({"operators": contract.OPERATORS_VERSION} if profile == contract.FUSED else {}),
        "precision": plan.precision,
        "experts": moe or profile,
        "model": {
            "vocab_size": config.vocab_size, "hidden_size": config.hidden_size, "canvas_len": config.canvas_len,
            "context_len": config.context_len, "sliding_window": config.sliding_window,
            "num_heads": config.num_heads, "num_experts": config.num_experts, "top_k_experts": config.top_k_experts,
            "final_logit_softcap": config.final_logit_softcap, "pad_token_id": config.pad_token_id,
            "bos_token_id": config.bos_token_id, "layers": layers,
        },
        "generation": generation,
        "graphs": {name: {"file": graph_file(name)} for name in graphs},
        **({"drafter": _drafter_facts(drafter.config)} if drafter is not None else {}),
        "embedding": {
            "file": embedding.file.name, "offset": embedding.offset, "bytes": embedding.num_bytes,
            "dtype": _EMBEDDING_DTYPES[embedding.dtype],
        },
        "files": files,
        "weight_files": weight_files,
        "parity": parity,
    }  # fmt: skip


def _drafter_facts(drafter: DrafterConfig) -> dict[str, Any]:
    return {
        "name": drafter.name, "kv_layers": list(drafter.past_layers), "block_len": drafter.block_len,
        "mean_run": drafter.mean_run,
    }  # fmt: skip
