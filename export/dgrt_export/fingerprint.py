"""What tells one checkpoint from another: a hash of the beginnings of its tensors. A drafter names its target by it."""

from __future__ import annotations

import hashlib
import json

from .accounting import open_weights
from .checkpoint import Checkpoint

_HASHED_BYTES = 4096  # of each tensor


def fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256 in hexadecimal over the text tensors as the checkpoint stores them, in the order of their names.

    Of each: `["NAME",[SHAPE],"DTYPE"]` as compact JSON, a line feed, and the first 4096 bytes of the data. How the
    checkpoint is divided into files does not matter, nor what an export makes of it.
    """
    digest = hashlib.sha256()
    for name, entry in sorted(checkpoint.tensors.items()):
        digest.update(json.dumps([name, entry.shape, entry.dtype], separators=(",", ":")).encode() + b"\n")
        with open_weights(entry.file) as stream:
            stream.seek(entry.offset)
            digest.update(stream.read(min(entry.num_bytes, _HASHED_BYTES)))
    return digest.hexdigest()
