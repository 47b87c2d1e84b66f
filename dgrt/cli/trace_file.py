"""Writes the trace of a generation as one numpy `.npz`: every `StepTrace` field stacked over the steps.

Used by `dgrt generate --trace`. Shapes: N steps, L canvas, D hidden.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np

from dgrt.result import GenerateResult

_ARRAYS = ("canvas_in", "soft_in", "argmax", "entropy", "sampled", "accepted", "canvas_out")
_SCALARS = ("canvas_index", "step", "temperature", "kv_len", "stopped")


def write_trace(path: Path, result: GenerateResult) -> None:
    """Writes `path`: beside it first and then by a rename, so that an interrupt leaves no broken file.

    Each field of `StepTrace` becomes an array with a leading step axis. `soft_out` is zero where a step has none;
    `has_soft_out` [N] says where it has. `tokens`, `prompt_tokens` and `seed` stand beside them.

    Args:
        path: The file; its name is kept as given.
        result: A result with a trace.

    Example:
        >>> write_trace(Path("steps.npz"), rt.generate("Hi", trace=True, max_new_tokens=8))
        >>> "argmax" in np.load("steps.npz").files
        True
    """
    trace = result.trace or []
    columns: dict[str, Any] = {
        name: np.array([getattr(step, name) for step in trace]) for name in (*_ARRAYS, *_SCALARS)
    }
    columns["has_soft_out"] = np.array([step.soft_out is not None for step in trace])
    columns["soft_out"] = np.array(
        [step.soft_out if step.soft_out is not None else np.zeros_like(step.soft_in) for step in trace]
    )
    columns["tokens"] = result.tokens
    columns["prompt_tokens"] = result.prompt_tokens
    columns["seed"] = np.array(result.options.seed, np.uint64)
    if path.exists() and not path.is_file():  # /dev/null or a pipe: nothing to keep whole, and not ours to replace
        _save(path, columns)
        return
    path = path.resolve()  # the rename would replace a symbolic link, not its target
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        _save(partial, columns)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _save(path: Path, columns: dict[str, Any]) -> None:
    with path.open("wb") as file:  # a file object, because numpy would append .npz to a bare name
        np.savez_compressed(file, **columns)
