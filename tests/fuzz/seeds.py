"""Writes the inputs that fuzzing starts from: `python tests/fuzz/seeds.py FOLDER`, one folder per reader.

Good files and the damage that the tests know: an input that is nearly right reaches checks that random bytes never do.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dgrt_export.contract import CONTRACT_VERSION, GRAPHS
from dgrt_export.manifest import sample_of

REPOSITORY = Path(__file__).resolve().parents[2]
MINI = REPOSITORY / "dgrt" / "models" / "mini"
WEIGHTS = b"w" * 138  # as manifest.cc writes it
DAMAGE: tuple[Any, ...] = (None, -1, 0, 2**63, 1e308, "", "x" * 300, [], {}, [[]], True)
NO_OBJECTS = (b"", b"{", b"null", b"[1, 2]", b"\x00" * 100, b"\xff\xfe{}", b'{"format": "dgrt-engine"', b"[" * 5000)


def manifest() -> dict[str, Any]:
    """A manifest of the files that manifest.cc writes."""
    contents = {f"{name}.onnx": name.encode() for name in GRAPHS} | {"model.safetensors": WEIGHTS}
    layers = [{"type": "sliding", "head_dim": 2, "num_kv_heads": 2}, {"type": "full", "head_dim": 4, "num_kv_heads": 1}]
    return {
        "format": "dgrt-engine", "contract_version": CONTRACT_VERSION, "profile": "portable", "precision": "fp32",
        "experts": "dense", "dgrt_version": "0.1.0", "source": {"name": "seed", "architecture": "DiffusionGemma"},
        "model": {
            "vocab_size": 8, "hidden_size": 4, "canvas_len": 6, "context_len": 64, "sliding_window": 16,
            "num_heads": 4, "num_experts": 8, "top_k_experts": 2, "pad_token_id": 0, "bos_token_id": -1,
            "final_logit_softcap": 30.0, "layers": layers,
        },
        "generation": {
            "max_denoising_steps": 48, "entropy_bound": 0.1, "t_min": 0.4, "t_max": 0.8, "stability_threshold": 1,
            "confidence_threshold": 0.005, "stop_ids": [1, 7],
        },
        "graphs": {name: {"file": f"{name}.onnx"} for name in GRAPHS},
        "embedding": {"file": "model.safetensors", "offset": 10, "bytes": 128, "dtype": "float32"},
        "files": {
            n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest(), "sample": sample_of(io.BytesIO(c), len(c))}
            for n, c in contents.items()
        },
        "weight_files": ["model.safetensors"],
    }  # fmt: skip


def tokenizer() -> dict[str, Any]:
    """A small tokenizer with byte fallback, as Gemma's."""
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "added_tokens": [{"id": 0, "content": "<bos>", **added},
                         {"id": 5, "content": "<x>", **added, "lstrip": True, "normalized": True}],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "_"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                          "invert": False},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "_"}, "content": " "},
                                                     {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "unk_token": "<bos>", "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {"<bos>": 0, "a": 2, "b": 1, "ab": 3, "aba": 4}, "merges": [["a", "b"], "ab a"]},
    }  # fmt: skip


def damaged(document: dict[str, Any]) -> Iterator[bytes]:
    """The document, and one copy for each value in it and kind of damage."""
    yield json.dumps(document).encode()
    for path in _paths(document):
        for value in DAMAGE:
            changed = copy.deepcopy(document)
            parent: Any = changed
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = value
            yield json.dumps(changed).encode()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*path, key)
        yield from _paths(inner, (*path, key))


def snapshots() -> Iterator[bytes]:
    """Snapshots of the cache in tests/cpp/prefix_fixture.h, without the hash at the end."""
    layers = ((16, 40), (32, 0), (16, 150), (48, 0))  # width, window
    full = 2 * 64 * sum(width for width, window in layers if not window) * 4
    window = 2 * 64 * sum(width for width, window in layers if window) * 4
    number = lambda value, size=8: value.to_bytes(size, "little", signed=value < 0)  # noqa: E731
    for parents in ((), (-1,), (-1, 0), (0,), (-1, 5)):
        key = b"engine one"
        head = b"".join(map(number, (64, full, window, len(parents))))
        nodes = b"".join(
            number(parent) + number(9 - i) + number(9 - i) + number(1) + bytes(64 * 4) + bytes(full) + bytes(window)
            for i, parent in enumerate(parents)
        )
        size = 8 + 4 + 8 + 4 + len(key) + len(head) + len(nodes) + 64
        yield b"dgrt kv\n" + number(1, 4) + number(size) + number(len(key), 4) + key + head + nodes


def chat_templates() -> Iterator[bytes]:
    """Templates that the parity tests know, each with a conversation."""
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
             {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}]  # fmt: skip
    given = {"messages": turns, "tools": [{"name": "f"}], "add_generation_prompt": True, "bos_token": "<bos>"}
    for path in sorted((REPOSITORY / "tests" / "parity" / "chat_templates").glob("*.jinja")):
        yield path.read_bytes() + b"\0" + json.dumps(given).encode()
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from templates import template_cases

    for case in template_cases(seed=1, count=200):
        yield case.source.encode(errors="replace") + b"\0" + json.dumps({**given, "messages": case.messages}).encode()


def headers() -> Iterator[bytes]:
    """Safetensors files: good ones, and headers that lie."""
    tensor = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    good = {"__metadata__": {"format": "pt"}, "a": tensor, "b": {**tensor, "dtype": "BF16", "data_offsets": [24, 36]}}
    for text in damaged(good):
        yield len(text).to_bytes(8, "little") + text + bytes(36)
    for size in (0, 2**63, 2**64 - 1, 10**9):
        yield size.to_bytes(8, "little") + b"{}"
    yield b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    yield b"<!DOCTYPE html><html>"


def write(folder: Path, inputs: Iterator[bytes]) -> None:
    """Writes each input to a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for content in inputs:
        (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)


def main(folder: Path) -> None:
    """Writes all seeds."""
    write(folder / "manifest", (seed for group in (NO_OBJECTS, damaged(manifest())) for seed in group))
    texts = [b"\0" + text.encode() for text in ("a b<x> aba", "\u00e9\U0001f600<bos>", "")]
    write(folder / "tokenizer", (seed + text for seed in damaged(tokenizer()) for text in texts[:1]))
    write(folder / "tokenizer", ((MINI / "tokenizer.json").read_bytes() + text for text in texts))
    write(folder / "chat_template", chat_templates())
    write(folder / "snapshot", snapshots())
    write(folder / "safetensors", headers())
    config = json.loads((MINI / "config.json").read_text())
    write(folder / "model_config", (seed for group in (NO_OBJECTS, damaged(config)) for seed in group))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
