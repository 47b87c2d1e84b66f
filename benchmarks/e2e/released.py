"""Synthetic checkpoints with the widths of the released model: seeded, calm (`dgrt.reference.calm`), no download.

Written tensor by tensor, whatever the size; random values are drawn once and reused.
"""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dgrt.reference import calm

_SHARD_BYTES = 2 << 30
_BLOCK_VALUES = 8 << 20  # random values are drawn once and reused from a shifted start in every tensor
_TEXT = {
    "model_type": "diffusion_gemma_text", "vocab_size": 262_144, "hidden_size": 2816, "intermediate_size": 2112,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "num_global_key_value_heads": 2,
    "global_head_dim": 512, "attention_k_eq_v": True, "sliding_window": 1024, "num_experts": 128, "top_k_experts": 8,
    "moe_intermediate_size": 704, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
    "final_logit_softcapping": 30.0, "max_position_embeddings": 262_144, "use_bidirectional_attention": "vision",
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
    },
}  # fmt: skip


def released_config(num_layers: int) -> dict:
    """config.json with the released model's widths; every sixth layer and the last one are full."""
    full = [number % 6 == 5 or number == num_layers - 1 for number in range(num_layers)]
    layer_types = ["full_attention" if one else "sliding_attention" for one in full]
    return {
        "architectures": ["DiffusionGemmaForBlockDiffusion"], "model_type": "diffusion_gemma",
        "canvas_length": 256, "tie_word_embeddings": True, "eos_token_id": [1, 106],
        "text_config": {**_TEXT, "num_hidden_layers": num_layers, "layer_types": layer_types},
    }  # fmt: skip


def weight_bytes(raw: dict) -> int:
    """Bytes of such a model's bf16 weights."""
    from dgrt_export.checkpoint import text_tensors
    from dgrt_export.config import parse_config

    return 2 * sum(math.prod(shape) for _, shape in text_tensors(parse_config(raw)))


def write_checkpoint(folder: Path, raw: dict, seed: int) -> int:
    """Streams the checkpoint into shards and returns its weight bytes."""
    from dgrt_export.checkpoint import INDEX_FILE, text_tensors
    from dgrt_export.config import parse_config

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(raw))
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, shape in text_tensors(parse_config(raw)):
        if filled and filled + 2 * math.prod(shape) > _SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += 2 * math.prod(shape)
    block = np.random.default_rng(seed).standard_normal(_BLOCK_VALUES, dtype=np.float32)
    weight_map, total = {}, 0
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header, offset = {}, 0
        for name, shape in tensors:
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + 2 * math.prod(shape)]}
            offset += 2 * math.prod(shape)
            weight_map[name] = file
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as stream:
            stream.write(struct.pack("<Q", len(text)) + text)
            for start, (name, shape) in enumerate(tensors):
                _write_tensor(stream, name, shape, block, 1009 * start)
        total += offset
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
    return total


def _write_tensor(stream: BinaryIO, name: str, shape: tuple[int, ...], block: np.ndarray, start: int) -> None:
    """Calm random values, so that the parity gate compares numbers that mean something."""
    factor = calm.factor(name)
    if len(shape) == 1:
        low, high = calm.uniform_range(name) or (factor, factor)
        stream.write(_bf16(np.random.default_rng(start).uniform(low, high, shape).astype(np.float32)))
        return
    scale = shape[-1] ** -0.5 if factor == 1 else calm.INIT_STD * factor
    values = _bf16(np.roll(block, start) * np.float32(scale))
    left = 2 * math.prod(shape)
    while left:
        left -= stream.write(values[:left])


def _bf16(values: np.ndarray) -> memoryview:
    bits = values.view(np.uint32)
    return memoryview(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)).cast("B")


def run_export(checkpoint: Path, engine: Path, **options: object) -> dict:
    """Exports in a process of its own and returns what `export_worker.py` says of it."""
    worker = Path(__file__).resolve().parent / "export_worker.py"
    command = [sys.executable, str(worker), str(checkpoint), str(engine), json.dumps(options)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": str(options["threads"])}
    )
    if done.returncode:
        raise SystemExit(f"error: export failed\n{done.stderr[-4000:]}")
    result: dict = json.loads(done.stdout.splitlines()[-1])
    return result
