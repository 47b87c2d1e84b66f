"""Exception classes, the same names as in C++; one per status of the native error table.

They are defined by the native extension. A checkout whose extension is not built gets classes of the same names and
bases, so that `dgrt export` and `dgrt doctor` work there; `native_import_error` then says why. Used by every module.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

native_import_error: ImportError | None = None


def _require_main_interpreter() -> None:
    """Refuses an interpreter inside another: there the import of the extension would wait for ever."""
    try:
        interpreters = import_module("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
    except ImportError:  # a Python without them
        return
    if interpreters.get_current() != interpreters.get_main():
        raise ImportError("dgrt runs in the main interpreter only; for mod_wsgi: WSGIApplicationGroup %{GLOBAL}")


try:
    _require_main_interpreter()
    from dgrt._native import (
        Cancelled,
        ContractMismatch,
        DeadlineExceeded,
        DeviceError,
        DgrtError,
        InternalError,
        InvalidArgument,
        OutOfMemory,
        QueueFull,
        Unsupported,
    )
except ImportError as _error:
    native_import_error = _error
    if not TYPE_CHECKING:

        class DgrtError(Exception):
            """Base of every error that dgrt raises on purpose."""

        class InvalidArgument(DgrtError, ValueError):
            """An argument, option or prompt that cannot be right."""

        class ContractMismatch(DgrtError):
            """An engine package of another format or version, or a damaged one."""

        class Unsupported(DgrtError, NotImplementedError):
            """A request that is valid but that this build or engine cannot serve."""

        class OutOfMemory(DgrtError, MemoryError):
            """A reservation that the limit or the machine does not allow."""

        class Cancelled(DgrtError):
            """A prefill that was cancelled before it finished."""

        class DeviceError(DgrtError):
            """The engine or the device failed."""

        class InternalError(DgrtError):
            """A defect in dgrt."""

        class DeadlineExceeded(DgrtError, TimeoutError):
            """A request whose deadline passed before it was finished."""

        class QueueFull(DgrtError):
            """A request more than the queue takes: try again later."""


class DgrtWarning(UserWarning):
    """Something that works, and probably not as meant."""


class NotCopied:
    """Base of handles of native memory: copying or pickling one is refused with the reason."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        raise Unsupported(
            f"a {type(self).__name__} cannot be copied, pickled or sent to another process: it holds native memory;"
            " open the engine there with dgrt.Runtime(path)"
        )


def native_module() -> Any:
    """Returns the native extension.

    Raises:
        Unsupported: If it cannot be loaded, with the reason.

    Example:
        >>> native_module().__name__
        'dgrt._native'
    """
    if native_import_error is not None:
        from dgrt.hints import install_hint

        reason = f"the native extension cannot be loaded ({native_import_error})"
        if isinstance(native_import_error, ModuleNotFoundError):
            where = f"{Path(__file__).parent} has none, and no other dgrt for this Python is on its path"
            reason = f"{reason}: {where}; {install_hint()}"
        raise Unsupported(reason)
    from dgrt import _native

    return _native


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns `"; did you mean 'x'?"` for the known name closest to `name`, or an empty string.

    Args:
        name: What was given.
        known: What would have been right.

    Example:
        >>> nearest("sed", ["seed", "trace"])
        "; did you mean 'seed'?"
    """
    lowered = {one.lower(): one for one in known}
    matches = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f"; did you mean '{lowered[matches[0]]}'?" if matches else ""


__all__ = [  # for mypy: these names are meant to be imported from here
    "Cancelled",
    "ContractMismatch",
    "DeadlineExceeded",
    "DeviceError",
    "DgrtError",
    "DgrtWarning",
    "InternalError",
    "InvalidArgument",
    "OutOfMemory",
    "QueueFull",
    "Unsupported",
]
