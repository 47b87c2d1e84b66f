"""Exports DiffusionGemma checkpoints to engine packages (ONNX graphs bound to the checkpoint's own weight bytes).

Public: `export`, `ExportReport` and the exception classes. README.md one folder up specifies the package. This
package never imports dgrt or its native extension, and importing it loads neither torch nor onnx.
"""

from .errors import ExportError, InvalidCheckpoint, OutputError, ParityError, Unsupported
from .exporter import ExportReport, export

__all__ = ["ExportError", "ExportReport", "InvalidCheckpoint", "OutputError", "ParityError", "Unsupported", "export"]
