"""Finds the ONNX Runtime library, the one of the installed `onnxruntime` wheel without importing that package.

Called by `Runtime` and by `dgrt doctor`. `DGRT_ORT_LIBRARY`, where set, wins and is read by the native side.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from dgrt import errors

ENVIRONMENT_VARIABLE = "DGRT_ORT_LIBRARY"
QUIET_VARIABLE = "ORT_DISABLE_TELEMETRY"  # as in csrc/engine/ort_library.cc, which says why
API_VERSION = 29  # of the headers that the native side is built with; ONNX Runtime 1.N serves the versions 1..N
_PATTERNS = ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime.dll")
_NATIVE_NAMES = ("libonnxruntime.so.1", "libonnxruntime.so")


def wheel_library() -> Path | None:
    """Returns the shared library inside the installed wheel, or None if there is no wheel or no library in it.

    Example:
        >>> library = wheel_library()
        >>> library is None or library.is_file()
        True
    """
    try:
        spec = importlib.util.find_spec("onnxruntime")
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    for folder in spec.submodule_search_locations or ():
        for pattern in _PATTERNS:
            found = sorted((Path(folder) / "capi").glob(pattern))
            if found:
                return found[0]
    return None


def find_ort_library() -> str:
    """Returns the path for the native side: "" if the environment names one or if none is found (it then searches).

    Example:
        >>> isinstance(find_ort_library(), str)
        True
    """
    if os.environ.get(ENVIRONMENT_VARIABLE):
        return ""
    library = wheel_library()
    return str(library) if library is not None else ""


def import_onnxruntime() -> Any:
    """Returns the module `onnxruntime`, which reports nothing to its maker unless the user has asked for that.

    Raises:
        ImportError: If it is not installed.

    Example:
        >>> import_onnxruntime().__name__
        'onnxruntime'
    """
    os.environ.setdefault(QUIET_VARIABLE, "1")
    return importlib.import_module("onnxruntime")


def library_candidates() -> list[str]:
    """Returns what `Runtime` tries, in its order; the first that can be opened is taken (csrc/engine/ort_library.cc).

    Example:
        >>> library_candidates()[-1].rpartition("/")[2].startswith("libonnxruntime")
        True
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE) or find_ort_library()
    if named:
        return [named]
    beside = []
    if errors.native_import_error is None:
        folder = Path(errors.native_module().__file__).resolve().parent
        beside = [str(folder / name) for name in _NATIVE_NAMES]
    return [*beside, *_NATIVE_NAMES]
