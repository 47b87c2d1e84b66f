"""dgrt: runs DiffusionGemma from an exported engine package, natively.

The public names of the package, and nothing else. Importing it loads neither torch nor onnx nor transformers.

Example:
    >>> import dgrt
    >>> with dgrt.Runtime("engine") as rt:                       # doctest: +SKIP
    ...     print(rt.generate("Why is the sky blue?", seed=1).text)
"""

from dgrt._version import __version__
from dgrt.errors import (
    Cancelled,
    ContractMismatch,
    DeviceError,
    DgrtError,
    InternalError,
    InvalidArgument,
    OutOfMemory,
    Unsupported,
)
from dgrt.info import EngineInfo, LayerInfo, MemoryPlan
from dgrt.options import GenerateOptions
from dgrt.result import Event, GenerateResult, Stats, StepTrace
from dgrt.runtime import Runtime
from dgrt.stream import EventStream

__all__ = [
    "Cancelled",
    "ContractMismatch",
    "DeviceError",
    "DgrtError",
    "EngineInfo",
    "Event",
    "EventStream",
    "GenerateOptions",
    "GenerateResult",
    "InternalError",
    "InvalidArgument",
    "LayerInfo",
    "MemoryPlan",
    "OutOfMemory",
    "Runtime",
    "Stats",
    "StepTrace",
    "Unsupported",
    "__version__",
]
