"""Puts the weight files into the package: the checkpoint's own files by hard link, or converted copies.

The plan (which tensor ends up at which file and offset) is known before a byte is written, so graphs can be bound
first. Reading and writing go in chunks; memory does not depend on the size of the checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

from .checkpoint import DTYPE_BYTES, Checkpoint, TensorEntry
from .errors import Unsupported, mismatch

Precision = Literal["fp32", "bf16"]
OnBytes = Callable[[int], None]
_DTYPE_OF = {"fp32": "F32", "bf16": "BF16"}
_CHUNK_BYTES = 16 << 20  # a multiple of every element size
_DATA_ALIGNMENT = 64  # of the first tensor in converted files


@dataclass(frozen=True)
class WeightPlan:
    """Where every tensor will lie in the package, and how its files come about."""

    entries: Mapping[str, TensorEntry]  # `file` is the path to read now: only its name counts in the package
    precision: Precision
    sources: tuple[Path, ...]
    convert: Mapping[Path, tuple[TensorEntry, ...]] | None  # source file -> its tensors in order; None: link

    @property
    def total_bytes(self) -> int:
        """Bytes of the weight files in the package."""
        if self.convert is None:
            return sum(path.stat().st_size for path in self.sources)
        return sum(entry.num_bytes for entry in self.entries.values())

    def write(self, folder: Path, on_bytes: OnBytes) -> str:
        """Creates the files in `folder`. Returns `linked`, `copied` or `converted`."""
        if self.convert is not None:
            for source, tensors in self.convert.items():
                _convert_file(source, tensors, self.entries, folder / source.name, on_bytes)
            return "converted"
        linked = [_link(source, folder / source.name, on_bytes) for source in self.sources]
        return "linked" if all(linked) else "copied"


def plan_weights(checkpoint: Checkpoint, precision: Precision | None) -> WeightPlan:
    """Decides between linking and converting.

    Args:
        checkpoint: the source.
        precision: None keeps what the checkpoint stores, even a mix of F32 and BF16.
    """
    own = checkpoint.precision()
    half = next((entry for entry in checkpoint.tensors.values() if entry.dtype == "F16"), None)
    if half is not None and precision is None:
        expected = "F32 or BF16 (or a conversion: --precision fp32)"
        raise Unsupported(mismatch(f"tensor {half.name} dtype", expected, half.dtype))
    sources = tuple(checkpoint.files)
    if precision in (None, own) and half is None:
        return WeightPlan(checkpoint.tensors, "bf16" if own == "bf16" else "fp32", sources, None)
    assert precision is not None
    convert: dict[Path, tuple[TensorEntry, ...]] = {}
    entries: dict[str, TensorEntry] = {}
    for source in sources:
        tensors = sorted((e for e in checkpoint.tensors.values() if e.file == source), key=lambda e: e.offset)
        convert[source] = tuple(tensors)
        entries.update(_layout(tensors, _DTYPE_OF[precision])[1])
    return WeightPlan({name: entries[name] for name in checkpoint.tensors}, precision, sources, convert)


def _layout(tensors: list[TensorEntry] | tuple[TensorEntry, ...], dtype: str) -> tuple[bytes, dict[str, TensorEntry]]:
    """Header of a safetensors file that holds `tensors` as `dtype`, and where each will lie."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset, placed = 0, {}
    for entry in tensors:
        num_bytes = math.prod(entry.shape) * DTYPE_BYTES[dtype]
        header[entry.name] = {
            "dtype": dtype, "shape": list(entry.shape), "data_offsets": [offset, offset + num_bytes],
        }  # fmt: skip
        placed[entry.name] = replace(entry, dtype=dtype, offset=offset, num_bytes=num_bytes)
        offset += num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _DATA_ALIGNMENT)
    start = 8 + len(text)
    placed = {name: replace(entry, offset=start + entry.offset) for name, entry in placed.items()}
    return struct.pack("<Q", len(text)) + text, placed


def _link(source: Path, target: Path, on_bytes: OnBytes) -> bool:
    """Hard link; a copy where linking is impossible (other file system, no permission). Returns whether it linked."""
    real = source.resolve()  # hub caches are symbolic links, which ONNX Runtime refuses
    size = real.stat().st_size
    try:
        os.link(real, target)
    except OSError:
        with real.open("rb") as reader, target.open("wb") as writer:
            while chunk := reader.read(_CHUNK_BYTES):
                writer.write(chunk)
                on_bytes(len(chunk))
        shutil.copystat(real, target)
        return False
    on_bytes(size)
    return True


def _convert_file(
    source: Path, tensors: tuple[TensorEntry, ...], entries: Mapping[str, TensorEntry], target: Path, on_bytes: OnBytes
) -> None:
    header, _ = _layout(tensors, entries[tensors[0].name].dtype)
    with source.open("rb") as reader, target.open("wb") as writer:
        writer.write(header)
        for entry in tensors:
            reader.seek(entry.offset)
            _convert_tensor(reader, entry, entries[entry.name].dtype, writer, on_bytes)


def _convert_tensor(reader: BinaryIO, entry: TensorEntry, dtype: str, writer: BinaryIO, on_bytes: OnBytes) -> None:
    import torch

    torch_dtypes = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    left = entry.num_bytes
    while left:
        chunk = bytearray(reader.read(min(left, _CHUNK_BYTES)))
        if not chunk:
            raise Unsupported(
                mismatch(f"{entry.file.name}", "a file that does not change during the export", "its end")
            )
        converted = torch.frombuffer(chunk, dtype=torch_dtypes[entry.dtype]).to(torch_dtypes[dtype])
        written = writer.write(converted.view(torch.uint8).numpy().data)
        on_bytes(written)
        left -= len(chunk)
