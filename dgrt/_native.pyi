"""Type stub of the native extension (csrc/python). A test compares names and signatures with the real module."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str
abi_version: int

class DgrtError(Exception): ...
class InvalidArgument(DgrtError, ValueError): ...
class ContractMismatch(DgrtError): ...
class Unsupported(DgrtError, NotImplementedError): ...
class OutOfMemory(DgrtError, MemoryError): ...
class Cancelled(DgrtError): ...
class DeviceError(DgrtError): ...
class InternalError(DgrtError): ...
class DeadlineExceeded(DgrtError, TimeoutError): ...
class QueueFull(DgrtError): ...

class Runtime:
    """A loaded engine package. Any thread; the GIL is released while loading."""

    def __init__(
        self,
        path: str,
        *,
        threads: int = 0,
        ort_library: str = "",
        verify_weights: bool = False,
        memory_limit_bytes: int = 0,
        kv_limit_bytes: int = 0,
        prefix_cache_bytes: int = -1,
    ) -> None: ...
    @property
    def manifest_json(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def threads(self) -> int: ...
    def read_file(self, name: str) -> bytes:
        """A text file of the package, as it was exported."""
    def defaults(self) -> dict[str, Any]:
        """Generation defaults of the package: max_denoising_steps, entropy_bound, t_min, t_max,
        stability_threshold, confidence_threshold, stop_ids."""
    def memory(self) -> dict[str, int]:
        """The fields of dgrt.MemoryPlan."""
    def prefix_stats(self) -> dict[str, int]:
        """The fields of dgrt.PrefixStats."""
    def clear_prefixes(self) -> None: ...
    def save_prefixes(self, path: str, overwrite: bool) -> None: ...
    def load_prefixes(self, path: str) -> int:
        """Returns the chunks added."""

class Options:
    """Options of one generation over the defaults of its engine."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        max_new_tokens: int = -1,
        seed: int = 0,
        request: int = 0,
        max_denoising_steps: int | None = None,
        entropy_bound: float | None = None,
        t_min: float | None = None,
        t_max: float | None = None,
        stability_threshold: int | None = None,
        confidence_threshold: float | None = None,
        stop_ids: Sequence[int] | None = None,
        guarantee: int = 0,
        drafter: int = 0,
        causal_temperature: float = 1.0,
        pipeline: int = 0,
        logprobs: bool = False,
        deadline_ms: float = 0.0,
        draft: Sequence[int] = [],
        verify_trust: float = 0.5,
        verify_folds: int = 2,
        verify_causal_floor: float = 7.0,
        verify_causal_budget: float = 24.0,
        verify_min_confirmed: float = 0.9,
        verify_one_pass: bool = True,
        verify_always: bool = False,
        verify_expected_steps: float = 8.0,
        verify_packing: int = 0,
        verify_redraft: int = 0,
    ) -> None:
        """guarantee: 0 exact, 1 causal, 2 verified. drafter: 0 none, 1 suffix, 2 model, 3 auto, 4 overlap.
        pipeline, verify_packing and verify_redraft: 0 auto, 1 off, 2 on. None: the engine's."""

class Session:
    """One sequence. One thread at a time; `cancel` from any thread. The GIL is released in prefill and next_canvas."""

    def __init__(self, runtime: Runtime, options: Options) -> None: ...
    def prefill(self, prompt: NDArray[np.int32]) -> None: ...
    def extend(self, tokens: NDArray[np.int32]) -> None:
        """Another turn after stop or length."""
    def next_canvas(
        self,
        on_step: Callable[[dict[str, Any]], None] | None = None,
        *,
        with_soft: bool = False,
    ) -> NDArray[np.int32]:
        """Refines and commits one canvas, or runs one causal pass, and returns the emitted tokens. `on_step` gets one
        dict per denoise step with the fields of dgrt.StepTrace (soft_in and soft_out only if with_soft, else None);
        arrays are copies."""
    def draft(self, most: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """What the drafter expects next, as the stages ask it: at most so many tokens, and how likely it is that each
        and all before it are right. Changes no token, but counts in the statistics."""
    def set_canvas(self, canvas: NDArray[np.int32]) -> None: ...
    def canvas(self) -> NDArray[np.int32]: ...
    def cancel(self) -> None: ...
    @property
    def finish_reason(self) -> str:
        """"" while running, then "stop", "length" or "cancelled"."""
    @property
    def tokens(self) -> NDArray[np.int32]: ...
    @property
    def origins(self) -> NDArray[np.uint8]:
        """One per token of the last next_canvas: 0 undrafted, 1 drafted, 2 revised."""
    @property
    def logprobs(self) -> NDArray[np.float32]:
        """One per emitted token, nats; empty unless asked for."""
    @property
    def kv_len(self) -> int: ...
    def stats(self) -> dict[str, Any]:
        """The fields of dgrt.Stats."""

class Request:
    """A submitted request. Any thread."""

    def cancel(self) -> None: ...
    @property
    def is_done(self) -> bool: ...
    def wait(self, seconds: float) -> bool:
        """Whether it is done; waits at most that long."""

class Scheduler:
    """A bounded queue of requests in front of a runtime. Any thread."""

    def __init__(self, runtime: Runtime, *, max_running: int = 8, max_queued: int = 256) -> None: ...
    def submit(
        self,
        prompt: NDArray[np.int32],
        options: Options,
        on_event: Callable[[str, Any], None],
        *,
        want_steps: bool = False,
        with_soft: bool = False,
    ) -> Request:
        """on_event(kind, value) on threads of the scheduler: "step" (as on_step of Session), "commit" (tokens, origins)
        and last "done" (a dict: finish_reason, tokens, logprobs, stats, error)."""
    def stats(self) -> dict[str, Any]:
        """The fields of dgrt.ServingStats."""

def vocabulary_head(
    hidden: NDArray[np.float32],
    table: NDArray[Any],
    *,
    softcap: float,
    temperature: float,
    embed_scale: float,
    uniform: NDArray[np.float64],
    pinned: Sequence[int] | None = None,
    allowed: Sequence[Sequence[int] | None] | None = None,
    want_soft: bool = True,
    bf16_products: bool = False,
    threads: int = 1,
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], NDArray[np.float32] | None]:
    """The sampler kernel for tests: (argmax [L], entropy [L], sampled [L], soft [L, D] or None). `table` is float32
    [V, D], or uint16 [V, D] holding bfloat16 bits. `pinned[l]` is a token id or -1."""

def accept_by_entropy(entropy: NDArray[np.float32], entropy_bound: float) -> NDArray[np.bool_]: ...
def noise_uniform(
    seed: int, request: int, canvas: int, step: int, stream: int, num_positions: int
) -> NDArray[np.float64]: ...
def noise_integers(
    seed: int, request: int, canvas: int, step: int, stream: int, num_positions: int, bound: int
) -> NDArray[np.int32]: ...
def live_handles() -> int: ...
def usable_cpus() -> tuple[int, str]: ...
