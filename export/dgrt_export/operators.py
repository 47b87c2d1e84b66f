"""Where the operators of our own ONNX domain are: in the extension module of the `dgrt` package, as a file.

The parity gate gives the file to ONNX Runtime. Nothing of it is called from Python.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .contract import FUSED
from .errors import Unsupported, mismatch

_EXTENSION = "dgrt._native"


def find_library() -> Path:
    """The library that registers the operators.

    Raises:
        Unsupported: the native half of dgrt is not installed.
    """
    try:
        found = importlib.util.find_spec(_EXTENSION)
    except ModuleNotFoundError:  # not even the package around it
        found = None
    if found is None or found.origin is None:
        expected = f"the extension module {_EXTENSION}, which has its operators"
        raise Unsupported(mismatch(f"profile {FUSED!r}", expected, "none (is dgrt built and installed?)"))
    return Path(found.origin)
