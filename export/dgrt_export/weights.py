"""Puts the weight files into the package: the checkpoint's own files (hard link or copy), or converted or quantised.

The plan (which tensor ends up at which file and offset) is known before a byte is written, so graphs can be bound
first. Reading and writing go in chunks; memory does not depend on the size of the checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, get_args

from .checkpoint import DTYPE_BYTES, Checkpoint, TensorEntry
from .errors import InvalidCheckpoint, Unsupported, mismatch
from .quantise import SCALE, format_of, quantise, scale_shape, stored_shape

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "int8", "int4"]
Origin = Literal["linked", "reflinked", "copied", "converted"]  # how weight files came about
OnBytes = Callable[[int], None]
_FICLONE = 0x40049409  # ioctl of Linux: the bytes of another file, blocks shared until written
_DTYPE_OF = {"fp32": "F32"}  # of what is not quantised; else BF16
_STORED_DTYPES = {"I8": ("I8", 1), "I4": ("U8", 1)}  # in the file, and bytes of an element there
_CHUNK_BYTES = 16 << 20  # a multiple of every element size
_QUANTISED_BYTES = 4 << 20  # of the source in a chunk: a dozen arrays of its size in fp32 are needed for a while
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

    def write(self, folder: Path, on_bytes: OnBytes, copy: bool = False) -> Origin:
        """Creates the files in `folder`; with `copy` none of them shares its bytes with a source.

        Returns:
            What happened: `linked` if it did to any file, since then the package is not independent.
        """
        if self.convert is not None:
            for source, tensors in self.convert.items():
                _convert_file(source, tensors, self, folder / source.name, on_bytes)
            return "converted"
        origins = {_place(source, folder / source.name, copy, on_bytes) for source in self.sources}
        return next(origin for origin in get_args(Origin) if origin in origins)

    def bytes_to_write(self, folder: Path, copy: bool) -> int:
        """Bytes of disk that `write` will take in `folder`, as far as can be told before."""
        if self.convert is not None:
            return self.total_bytes
        reals = [source.resolve() for source in self.sources]
        return sum(real.stat().st_size for real in reals if not _is_free(real, folder, copy))


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
    return _plan_conversion(checkpoint.tensors, sources, precision)


def plan_in_one_dtype(tensors: Mapping[str, TensorEntry], precision: Literal["fp32", "bf16"]) -> WeightPlan:
    """Links the files of tensors that are all stored in a precision, else converts all of them."""
    sources = tuple(sorted({entry.file for entry in tensors.values()}))
    if all(entry.dtype == _DTYPE_OF.get(precision, "BF16") for entry in tensors.values()):
        return WeightPlan(tensors, precision, sources, None)
    return _plan_conversion(tensors, sources, precision)


def _plan_conversion(tensors: Mapping[str, TensorEntry], sources: tuple[Path, ...], precision: Precision) -> WeightPlan:
    convert: dict[Path, tuple[TensorEntry, ...]] = {}
    entries: dict[str, TensorEntry] = {}
    for source in sources:
        own = sorted((e for e in tensors.values() if e.file == source), key=lambda e: e.offset)
        convert[source] = tuple(own)
        entries.update(_layout(own, precision)[1])
    return WeightPlan(entries, precision, sources, convert)


def _targets(entry: TensorEntry, precision: Precision) -> list[TensorEntry]:
    """What becomes of a tensor, not yet placed."""
    if (dtype := format_of(entry.name, precision)) is not None:
        scale = replace(entry, name=entry.name + SCALE, dtype="BF16", shape=scale_shape(entry.shape))
        return [replace(entry, dtype=dtype), scale]
    return [replace(entry, dtype=_DTYPE_OF.get(precision, "BF16"))]


def _layout(
    tensors: list[TensorEntry] | tuple[TensorEntry, ...], precision: Precision
) -> tuple[bytes, dict[str, TensorEntry]]:
    """Header of a safetensors file that holds `tensors` in a precision, and where each will lie."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset, placed = 0, {}
    for entry in (target for tensor in tensors for target in _targets(tensor, precision)):
        shape = stored_shape(entry.dtype, entry.shape)
        dtype, element = _STORED_DTYPES.get(entry.dtype) or (entry.dtype, DTYPE_BYTES[entry.dtype])
        num_bytes = math.prod(shape) * element
        header[entry.name] = {
            "dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + num_bytes],
        }  # fmt: skip
        placed[entry.name] = replace(entry, offset=offset, num_bytes=num_bytes)
        offset += num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _DATA_ALIGNMENT)
    start = 8 + len(text)
    placed = {name: replace(entry, offset=start + entry.offset) for name, entry in placed.items()}
    return struct.pack("<Q", len(text)) + text, placed


def _place(source: Path, target: Path, copy: bool, on_bytes: OnBytes) -> Origin:
    """A hard link unless `copy`; else, or where linking is impossible (other file system, no permission), a copy."""
    real = source.resolve()  # hub caches are symbolic links, which ONNX Runtime refuses
    size = real.stat().st_size
    if not copy:
        try:
            os.link(real, target)
        except OSError:
            pass
        else:
            on_bytes(size)
            return "linked"
    origin: Origin = "reflinked"
    with real.open("rb") as reader, target.open("wb") as writer:
        if _reflink(reader, writer):
            on_bytes(size)
        else:
            origin = "copied"
            while chunk := reader.read(_CHUNK_BYTES):
                writer.write(chunk)
                on_bytes(len(chunk))
    shutil.copystat(real, target)
    return origin


def _reflink(reader: BinaryIO, writer: BinaryIO) -> bool:
    """Makes `writer` a copy that shares blocks with `reader` until one of them is written to, where there is such."""
    try:
        fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
    except OSError:
        return False
    return True


def _is_free(real: Path, folder: Path, copy: bool) -> bool:
    """Whether a file of the package can share the blocks of `real`."""
    if real.stat().st_dev != folder.stat().st_dev:
        return False
    if not copy:
        return True
    with real.open("rb") as reader, tempfile.TemporaryFile(dir=folder) as writer:
        return _reflink(reader, writer)


def _convert_file(
    source: Path, tensors: tuple[TensorEntry, ...], plan: WeightPlan, target: Path, on_bytes: OnBytes
) -> None:
    header, _ = _layout(tensors, plan.precision)
    with source.open("rb") as reader, target.open("wb") as writer:
        writer.write(header)
        for entry in tensors:
            if (scale := plan.entries.get(entry.name + SCALE)) is not None:
                _quantise_tensor(reader, entry, (plan.entries[entry.name], scale), writer, on_bytes)
            else:
                _convert_tensor(reader, entry, plan.entries[entry.name], writer, on_bytes)


def _convert_tensor(
    reader: BinaryIO, entry: TensorEntry, target: TensorEntry, writer: BinaryIO, on_bytes: OnBytes
) -> None:
    writer.seek(target.offset)
    for chunk in _chunks(reader, entry, _CHUNK_BYTES):
        on_bytes(_write(writer, chunk.to(_torch_dtype(target.dtype))))


def _quantise_tensor(
    reader: BinaryIO, entry: TensorEntry, targets: tuple[TensorEntry, TensorEntry], writer: BinaryIO, on_bytes: OnBytes
) -> None:
    """Chunks of whole rows, each to its place among the integers and among the scales, which lie behind them."""
    places = [target.offset for target in targets]
    width = entry.shape[-1]
    row_bytes = width * DTYPE_BYTES[entry.dtype]
    for chunk in _chunks(reader, entry, max(1, _QUANTISED_BYTES // row_bytes) * row_bytes):
        rows = chunk.view(-1, width).float()
        if not rows.isfinite().all():
            raise InvalidCheckpoint(mismatch(f"tensor {entry.name}", "finite values", "infinity or NaN"))
        for index, part in enumerate(quantise(rows, targets[0].dtype)):
            writer.seek(places[index])
            written = _write(writer, part)
            places[index] += written
            on_bytes(written)


def _chunks(reader: BinaryIO, entry: TensorEntry, chunk_bytes: int) -> Iterator[torch.Tensor]:
    """The elements of a tensor, flat."""
    import torch

    reader.seek(entry.offset)
    left = entry.num_bytes
    while left:
        chunk = bytearray(reader.read(min(left, chunk_bytes)))
        if len(chunk) < min(left, chunk_bytes):
            raise Unsupported(
                mismatch(f"{entry.file.name}", "a file that does not change during the export", "its end")
            )
        yield torch.frombuffer(chunk, dtype=_torch_dtype(entry.dtype))
        left -= len(chunk)


def _write(writer: BinaryIO, values: torch.Tensor) -> int:
    import torch

    return writer.write(values.contiguous().view(torch.uint8).numpy().data)


def _torch_dtype(dtype: str) -> torch.dtype:
    import torch

    return {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}[dtype]
