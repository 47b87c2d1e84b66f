"""Peak memory of `dgrt export` on a large synthetic checkpoint: it must not grow with the checkpoint.

Writes a seeded, sharded bf16 checkpoint with the widths of the released model (as many layers as --size-gb asks for),
exports it in a child process and reports the child's VmHWM. Needs no download; deletes what it wrote. Run:

    python benchmarks/memory/export_rss.py --size-gb 8 --out benchmarks/results/export-rss.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np

sys.path.extend(str(Path(__file__).resolve().parents[2] / name) for name in ("benchmarks", "export", ""))
from environment import environment

from dgrt.reference import calm

ROOT = Path(__file__).resolve().parents[2]
LIMIT_BYTES = 3_000_000_000  # what an export may use, whatever the size of the checkpoint
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
_CHILD = """
import json, sys, time
sys.path[:0] = [sys.argv[1]]
import torch
torch.set_num_threads(int(sys.argv[5]))
from dgrt_export import export
started = time.perf_counter()
report = export(sys.argv[2], sys.argv[3], precision=sys.argv[4] or None)
seconds = time.perf_counter() - started
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
result = {"peak_rss_bytes": int(peak.split()[1]) * 1024, "total_seconds": round(seconds, 1), **report.to_json()}
manifest = result.pop("manifest")
del result["output"]
print(json.dumps({**result, "experts": manifest["experts"], "parity": manifest["parity"]}))
"""


def config_for(size_bytes: int) -> dict:
    """config.json of the smallest such model that stores at least `size_bytes`."""
    from dgrt_export.checkpoint import text_tensors
    from dgrt_export.config import parse_config

    for num_layers in range(2, 31):
        layer_types = ["sliding_attention"] * (num_layers - 1) + ["full_attention"]
        text = {**_TEXT, "num_hidden_layers": num_layers, "layer_types": layer_types}
        raw = {
            "architectures": ["DiffusionGemmaForBlockDiffusion"], "model_type": "diffusion_gemma",
            "canvas_length": 256, "tie_word_embeddings": True, "eos_token_id": [1, 106], "text_config": text,
        }  # fmt: skip
        if 2 * sum(math.prod(shape) for _, shape in text_tensors(parse_config(raw))) >= size_bytes:
            break
    return raw


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


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """Generates, exports in a child, and returns the numbers."""
    raw = config_for(int(args.size_gb * 1e9))
    started = time.perf_counter()
    size = write_checkpoint(folder / "checkpoint", raw, args.seed)
    written = time.perf_counter() - started
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(ROOT / "export"), str(folder / "checkpoint"), str(folder / "engine"),
         args.precision or "", str(args.threads)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": str(args.threads)},
    )  # fmt: skip
    if child.returncode:
        raise SystemExit(f"error: export failed\n{child.stderr[-4000:]}")
    result = json.loads(child.stdout.splitlines()[-1])
    layers = raw["text_config"]["num_hidden_layers"]
    return {
        "checkpoint_bytes": size, "layers": layers, "write_seconds": round(written, 1), "precision": args.precision,
        **result, "limit_bytes": LIMIT_BYTES, "within_limit": result["peak_rss_bytes"] < LIMIT_BYTES,
        **environment(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-gb", type=float, default=8.0, help="least size of the checkpoint, 1e9 bytes")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="convert while exporting")
    parser.add_argument("--folder", help="where to write (default: the system's temporary folder)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the parity gate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    parent = Path(args.folder or tempfile.gettempdir())
    needed = args.size_gb * 1e9 * (3.2 if args.precision == "fp32" else 1.2)
    if (free := shutil.disk_usage(parent).free) < needed:
        raise SystemExit(f"error: disk space in {parent}: expected {needed / 1e9:.0f} GB, found {free / 1e9:.0f} GB")
    folder = Path(tempfile.mkdtemp(prefix="export_rss.", dir=parent))
    try:
        result = measure(args, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
