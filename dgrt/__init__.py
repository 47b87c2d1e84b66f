"""dgrt: runs DiffusionGemma from an exported engine package, natively.

The public names of the package, and nothing else. All but the exceptions are imported when they are first used, so that
the command line starts at once; nothing here ever loads torch, onnx or transformers.

Example:
    >>> import dgrt
    >>> with dgrt.Runtime("engine") as rt:  # the folder that `dgrt export` wrote, or that `dgrt demo --path` prints
    ...     print(rt.generate("json\\nname=Ana Silva; age=34; active=yes", seed=1).text)
    {"name":"Ana Silva","age":34,"active":true}
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dgrt._shadowed import step_aside

step_aside()  # before anything else of the package is imported

from dgrt.errors import (  # noqa: E402
    Cancelled,
    ContractMismatch,
    DeadlineExceeded,
    DeviceError,
    DgrtError,
    DgrtWarning,
    InternalError,
    InvalidArgument,
    OutOfMemory,
    QueueFull,
    Unsupported,
)

if TYPE_CHECKING:
    from dgrt._version import __version__
    from dgrt.chat import Chat
    from dgrt.info import DrafterInfo, EngineInfo, LayerInfo, MemoryPlan, PrefixStats
    from dgrt.options import GenerateOptions, VerifyOptions
    from dgrt.result import Event, GenerateResult, ServingStats, Stats, StepTrace
    from dgrt.runtime import Runtime
    from dgrt.serving import GenerateFuture
    from dgrt.stream import EventStream

__all__ = [
    "Cancelled",
    "Chat",
    "ContractMismatch",
    "DeadlineExceeded",
    "DeviceError",
    "DgrtError",
    "DgrtWarning",
    "DrafterInfo",
    "EngineInfo",
    "Event",
    "EventStream",
    "GenerateFuture",
    "GenerateOptions",
    "GenerateResult",
    "InternalError",
    "InvalidArgument",
    "LayerInfo",
    "MemoryPlan",
    "OutOfMemory",
    "PrefixStats",
    "QueueFull",
    "Runtime",
    "ServingStats",
    "Stats",
    "StepTrace",
    "Unsupported",
    "VerifyOptions",
    "__version__",
]

_MODULES = ("_version", "chat", "info", "options", "result", "runtime", "serving", "stream")
_HOMES = {
    "Chat": "chat",
    "DrafterInfo": "info",
    "EngineInfo": "info",
    "Event": "result",
    "EventStream": "stream",
    "GenerateFuture": "serving",
    "GenerateOptions": "options",
    "GenerateResult": "result",
    "LayerInfo": "info",
    "MemoryPlan": "info",
    "PrefixStats": "info",
    "Runtime": "runtime",
    "ServingStats": "result",
    "Stats": "result",
    "StepTrace": "result",
    "VerifyOptions": "options",
    "__version__": "_version",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"dgrt.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'dgrt' has no attribute '{name}'")
    value = getattr(import_module(f"dgrt.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
