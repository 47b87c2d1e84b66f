"""Stage 7, readable twin of `csrc/runtime/commit.cc`: cut a finished canvas, and append it to the KV cache."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgrt.reference.prefill import prefill


def emitted(canvas: NDArray[np.int32], stop_ids: Iterable[int], room: int | None) -> tuple[NDArray[np.int32], str]:
    """Returns the tokens of a canvas that are output, and why the output ends ("" if it does not).

    Args:
        canvas: The finished canvas, [L].
        stop_ids: Ids that end the output; the first one found is kept, the rest of the canvas is cut.
        room: Most tokens that may still be emitted; None: no limit.

    Example:
        >>> emitted(np.array([5, 1, 7]), [1], None)[1]
        'stop'
    """
    stops = np.flatnonzero(np.isin(canvas, list(stop_ids)))
    length, reason = (int(stops[0]) + 1, "stop") if stops.size else (len(canvas), "")
    if room is not None and length >= room and not (reason and length == room):
        length, reason = room, "length"
    return canvas[:length], reason


def commit(model: Any, cache: Any, canvas: NDArray[np.int32]) -> Any:
    """Writes the keys and values of a finished canvas and returns the cache.

    Example:
        >>> commit(model, cache, canvas).get_seq_length()           # doctest: +SKIP
        128
    """
    return prefill(model, canvas.tolist(), cache)
