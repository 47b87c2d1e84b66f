"""Exports DiffusionGemma checkpoints to engine packages (ONNX graphs bound to the checkpoint's own weight bytes).

Public: `export`, `ExportReport` and the exception classes. README.md one folder up specifies the package. This
package never imports dgrt or its native extension, and importing it loads neither torch nor onnx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ExportError, InvalidCheckpoint, NoSpace, OutputError, ParityError, Unsupported

if TYPE_CHECKING:
    from .exporter import ExportReport, export

__all__ = ["ExportError", "ExportReport", "InvalidCheckpoint", "NoSpace", "OutputError", "ParityError", "Unsupported",
           "export"]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Loads the exporter on first use, so that `python -m dgrt_export.contract` runs its module once."""
    if name in ("ExportReport", "export"):
        from . import exporter

        return getattr(exporter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
