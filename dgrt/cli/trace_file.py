"""Writes the trace of a generation as one numpy `.npz`: every `StepTrace` field stacked over the steps.

Used by `dgrt generate --trace`. Shapes: N steps, L canvas, D hidden.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dgrt.errors import InvalidArgument
from dgrt.files import StrPath, check_output, output_file
from dgrt.result import GenerateResult

_ARRAYS = ("canvas_in", "soft_in", "argmax", "entropy", "sampled", "accepted", "canvas_out")
_SCALARS = ("canvas_index", "step", "temperature", "kv_len", "stopped")
_OTHERS = ("has_soft_out", "soft_out", "tokens", "prompt_tokens", "seed")
STDOUT = "-"
_KIND = "trace"


def check_trace_path(path: StrPath, *, overwrite: bool = False) -> None:
    """Refuses a path that `write_trace` would refuse; before the work.

    Raises:
        InvalidArgument: As `write_trace`.

    Example:
        >>> check_trace_path("steps.npz")
    """
    if path != STDOUT:
        check_output(path, _KIND, is_trace, overwrite=overwrite)
    elif sys.stdout is None or sys.stdout.isatty():
        found = "none" if sys.stdout is None else "a terminal"
        raise InvalidArgument(f"trace '-': expected a file or a pipe as standard output, found {found}")


def write_trace(path: StrPath, result: GenerateResult, *, overwrite: bool = False) -> None:
    """Writes `path` by the rules of `dgrt.files`: whole or not at all, and in place of another trace only.

    Each field of `StepTrace` becomes an array with a leading step axis. `soft_out` is zero where a step has none;
    `has_soft_out` [N] says where it has. `tokens`, `prompt_tokens` and `seed` stand beside them.

    Args:
        path: The file; its name is kept as given. "-": standard output.
        result: A result with a trace.
        overwrite: Whether another kind of file may be replaced.

    Raises:
        InvalidArgument: For a path that cannot or must not be written, and for a terminal.
        DeviceError: If there is no room.

    Example:
        >>> write_trace("steps.npz", rt.generate("Hi", trace=True, max_new_tokens=8))
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
    check_trace_path(path, overwrite=overwrite)
    if path == STDOUT:
        np.savez_compressed(sys.stdout.buffer, **columns)
        sys.stdout.buffer.flush()
        return
    with output_file(path, _KIND, is_trace, overwrite=overwrite) as file:
        np.savez_compressed(file, **columns)  # a file object, because numpy would append .npz to a bare name


def is_trace(path: Path) -> bool:
    """Returns whether a file is one that `write_trace` wrote.

    Example:
        >>> is_trace(Path(__file__))
        False
    """
    try:
        with zipfile.ZipFile(path) as file:
            return set(file.namelist()) == {f"{name}.npy" for name in (*_ARRAYS, *_SCALARS, *_OTHERS)}
    except (OSError, zipfile.BadZipFile, ValueError):
        return False
