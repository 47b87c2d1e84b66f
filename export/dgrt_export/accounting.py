"""Accounts for every tensor of a checkpoint: used, a tied copy that equals its partner, vision, or refused by name.

A tensor that is passed over in silence is a wrong result that nobody notices. So nothing is: what transformers ties is
compared, what it would warn about is refused. Weights are read in chunks; memory does not grow with the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .errors import ExportError, InvalidCheckpoint, Unsupported, mismatch, plain, quote
from .foreign import describe_unknown_tensor, foreign_prefix, is_quantised_dtype, quantised, scheme_of_tensors

if TYPE_CHECKING:
    from .checkpoint import TensorEntry

Shapes = Mapping[str, tuple[int, ...]]
Array = np.ndarray[Any, np.dtype[Any]]

_CHUNK_ELEMENTS = 1 << 18  # fits a cache
_COMPARED_NAMES = 1000  # to find the one that is most like a missing one
# Of each dtype of a weight: how numpy reads its bits, and the bits of infinity. Larger ones without sign are NaN.
_BITS = {"F32": (np.uint32, 0x7F80_0000), "BF16": (np.uint16, 0x7F80), "F16": (np.uint16, 0x7C00)}


def account(found: Mapping[str, TensorEntry], used: Shapes, copies: Mapping[str, str], vision: tuple[str, ...]) -> None:
    """Sees from names, shapes and dtypes alone that every tensor has its place.

    Args:
        found: all tensors of the checkpoint.
        used: name and shape of every tensor that the graphs need.
        copies: tied copy -> its partner among `used`. None of them has to be there.
        vision: prefixes of what a text export leaves out.

    Raises:
        InvalidCheckpoint: a tensor is missing or has another shape.
        Unsupported: a tensor that has no place, or of a dtype that is not read.
    """
    rest = [name for name in found if name not in used and name not in copies and not name.startswith(vision)]
    if (scheme := scheme_of_tensors(rest)) is not None:
        name, kind = scheme
        raise quantised(f"tensor {plain(name)} in {found[name].file.name}", kind)
    if (missing := next((name for name in used if name not in found), None)) is not None:
        raise _missing(missing, found, used, rest)
    for name, partner in [*((name, name) for name in used), *copies.items()]:
        if name in found:
            _check_form(found[name], used[partner])
    if rest:
        name = min(rest)
        kind, remedy = describe_unknown_tensor(name)
        where = f"tensor {plain(name)} in {found[name].file.name}"
        raise Unsupported(mismatch(where, "only tensors of DiffusionGemmaForBlockDiffusion", kind, remedy))


def _missing(name: str, found: Mapping[str, TensorEntry], used: Shapes, rest: list[str]) -> ExportError:
    lost = [other for other in used if other not in found]
    if 2 * len(lost) > len(used) and (text := foreign_prefix(lost, rest)) is not None:
        return InvalidCheckpoint(text)
    expected, absent = f"shape {list(used[name])}", "no such tensor"
    if rest:
        other = get_close_matches(name, sorted(rest)[:_COMPARED_NAMES], 1, 0)[0]
        kind, remedy = describe_unknown_tensor(other)
        return InvalidCheckpoint(mismatch(f"tensor {name}", expected, f"{absent}, but {plain(other)}: {kind}", remedy))
    if found:
        absent += f" in {next(iter(found.values())).file.parent}"
    return InvalidCheckpoint(mismatch(f"tensor {name}", expected, absent))


def _check_form(entry: TensorEntry, shape: tuple[int, ...]) -> None:
    where = f"tensor {entry.name} in {entry.file.name}"
    if entry.dtype not in _BITS:
        if is_quantised_dtype(entry.dtype):
            raise quantised(where, f"dtype {entry.dtype}")
        remedy = "save the model in one of them: model.to(torch.bfloat16)"
        raise Unsupported(mismatch(f"{where} dtype", "F32, BF16 or F16", plain(entry.dtype), remedy))
    if entry.shape != shape:
        remedy = "save the gathered weights (ZeRO-3 leaves empty ones)" if 0 in entry.shape else ""
        raise InvalidCheckpoint(mismatch(where, list(shape), quote(list(entry.shape)), remedy))


def compare_copies(found: Mapping[str, TensorEntry], copies: Mapping[str, str]) -> None:
    """Compares each tied copy that is there with its partner, by value. dgrt has one tensor for both.

    Raises:
        Unsupported: they differ. transformers would load both and warn.
    """
    for name, partner in copies.items():
        if name not in found:
            continue
        place = _first_difference(found[name], found[partner])
        if place is None:
            continue
        shape = found[partner].shape
        row = f"row {place // math.prod(shape[1:])}" if len(shape) > 1 else f"value {place}"
        raise Unsupported(
            mismatch(
                f"untied {name}", f"the values of {partner}, since dgrt ties them as the model does",
                f"others, first in {row}",
                "train with tied weights, or remove it if it is a leftover",
            )
        )  # fmt: skip


def _first_difference(one: TensorEntry, other: TensorEntry) -> int | None:
    done = 0
    with ExitStack() as files:
        streams = [files.enter_context(open_weights(entry.file)) for entry in (one, other)]
        chunks = [_chunks(stream, entry) for stream, entry in zip(streams, (one, other), strict=True)]
        for a, b in zip(*chunks, strict=True):
            if one.dtype != other.dtype or not np.array_equal(a, b):
                differs = _widened(a, one.dtype) != _widened(b, other.dtype)  # so that -0 equals 0
                if differs.any():
                    return done + int(differs.argmax())
            done += a.size
    return None


def _widened(bits: Array, dtype: str) -> Array:
    if dtype == "F16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16 if dtype == "BF16" else bits).view(np.float32)


def require_finite(entries: Iterable[TensorEntry], on_bytes: Callable[[int], None] = lambda amount: None) -> None:
    """Reads weights and refuses NaN and infinity by the name of the tensor.

    Args:
        entries: of dtype F32, BF16 or F16.
        on_bytes: called with the bytes that were read since the last call.
    """
    by_file: dict[Path, list[TensorEntry]] = {}
    for entry in entries:
        by_file.setdefault(entry.file, []).append(entry)
    for file, tensors in by_file.items():
        with open_weights(file) as stream:
            for entry in sorted(tensors, key=lambda tensor: tensor.offset):
                _require_finite(stream, entry, on_bytes)


def _require_finite(stream: BinaryIO, entry: TensorEntry, on_bytes: Callable[[int], None]) -> None:
    infinity = _BITS[entry.dtype][1]
    done = 0
    for bits in _chunks(stream, entry):
        magnitude = bits & (np.iinfo(bits.dtype).max >> 1)  # without the sign
        if magnitude.max() >= infinity:
            place = int((magnitude >= infinity).argmax())
            what = "infinity" if magnitude[place] == infinity else "NaN"
            index = [int(i) for i in np.unravel_index(done + place, entry.shape)]
            found = f"{what} at {index} in {entry.file.name}"
            remedy = "the training diverged or the file is damaged: export an earlier checkpoint"
            raise InvalidCheckpoint(mismatch(f"tensor {entry.name}", "finite values", found, remedy))
        done += bits.size
        on_bytes(bits.nbytes)


def open_weights(file: Path) -> BinaryIO:
    """Opens a weight file whose header was read before."""
    try:
        return file.open("rb")
    except OSError as error:
        raise InvalidCheckpoint(mismatch(f"{file}", "a readable safetensors file", error.strerror)) from None


def _chunks(stream: BinaryIO, entry: TensorEntry) -> Iterator[Array]:
    """The bits of a tensor, flat. Each chunk is valid until the next."""
    dtype = np.dtype(_BITS[entry.dtype][0]).newbyteorder("<")
    left = math.prod(entry.shape)
    buffer = memoryview(bytearray(min(left, _CHUNK_ELEMENTS) * dtype.itemsize))
    stream.seek(entry.offset)
    while left:
        part = buffer[: min(left, _CHUNK_ELEMENTS) * dtype.itemsize]
        if stream.readinto(part) != len(part):  # type: ignore[attr-defined]
            remedy = "nobody may write to the checkpoint during the export"
            raise InvalidCheckpoint(mismatch(f"{entry.file.name}", "as many bytes as a moment ago", "fewer", remedy))
        yield np.frombuffer(part, dtype)
        left -= len(part) // dtype.itemsize
