"""dgrt.h through ctypes: the view of a foreign host. Written from the header alone; knows nothing of `dgrt._native`."""

from __future__ import annotations

import ctypes
import json
from ctypes import (
    CFUNCTYPE,
    POINTER,
    byref,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

import dgrt._native

FINISH = {0: "", 1: "stop", 2: "length", 3: "cancelled"}
Ids = POINTER(c_int32)


def struct(name: str, **fields: Any) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": [("struct_size", c_uint32), *fields.items()]})


RuntimeOptions: Any = struct(
    "RuntimeOptions", threads=c_int32, ort_library=c_char_p, memory_limit_bytes=c_int64, verify_weights=c_int32,
    reserved=c_int32, kv_limit_bytes=c_int64, prefix_cache_bytes=c_int64,
)  # fmt: skip
RuntimeFacts: Any = struct(
    "RuntimeFacts", threads=c_int32, vocab_size=c_int64, hidden_size=c_int64, canvas_len=c_int64, context_len=c_int64,
    num_layers=c_int64, pad_token_id=c_int32, bos_token_id=c_int32, description=c_char_p, manifest_json=c_char_p,
)  # fmt: skip
Memory: Any = struct(
    "Memory", reserved=c_int32, weight_bytes=c_int64, kv_bytes_full_context=c_int64, workspace_bytes=c_int64,
    kv_bytes_per_token=c_int64, kv_window_bytes=c_int64,
)  # fmt: skip
SessionOptions: Any = struct(
    "SessionOptions", request=c_uint32, seed=c_uint64, max_new_tokens=c_int64, max_denoising_steps=c_int32,
    stability_threshold=c_int32, entropy_bound=c_float, confidence_threshold=c_float, t_min=c_float, t_max=c_float,
    stop_ids=Ids, num_stop_ids=c_uint64, guarantee=c_int32, drafter=c_int32, causal_temperature=c_float,
    pipeline=c_int32, logprobs=c_int32, verify_packing=c_int32, deadline_ms=c_double, draft=Ids, num_draft=c_uint64,
    verify_trust=c_float, verify_folds=c_int32, verify_causal_floor=c_float, verify_causal_budget=c_float,
    verify_min_confirmed=c_float, verify_one_pass=c_int32, verify_always=c_int32, verify_expected_steps=c_float,
    verify_redraft=c_int32, reserved=c_int32,
)  # fmt: skip
Step: Any = struct(
    "Step", canvas_index=c_int32, step=c_int32, temperature=c_float, kv_len=c_int64, canvas_len=c_int64,
    hidden_size=c_int64, canvas_in=Ids, argmax=Ids, entropy=POINTER(c_float), sampled=Ids, accepted=POINTER(c_uint8),
    canvas_out=Ids, soft_in=POINTER(c_float), soft_out=POINTER(c_float), stopped=c_int32, reserved=c_int32,
)  # fmt: skip
OnStep = CFUNCTYPE(c_int32, c_void_p, POINTER(Step))
OnCommit = CFUNCTYPE(c_int32, c_void_p, c_int32, Ids, c_size_t)
OnDone = CFUNCTYPE(None, c_void_p, c_int32, c_int32, c_char_p)
Callbacks: Any = struct(
    "Callbacks", reserved=c_int32, user_data=c_void_p, on_step=OnStep, on_commit=OnCommit, on_done=OnDone
)
SchedulerOptions: Any = struct("SchedulerOptions", max_running=c_int32, max_queued=c_int32, reserved=c_int32)
SCHEDULER_COUNTS = (
    "queued", "running", "finished", "failed", "cancelled", "refused", "planned_kv_bytes", "passes", "narrow_passes",
)  # fmt: skip
SchedulerCounts: Any = struct(
    "SchedulerCounts", reserved=c_int32, **dict.fromkeys(SCHEDULER_COUNTS, c_int64), busy_thread_ms=c_double
)
COUNTERS = (
    "prefill_passes", "denoise_passes", "commit_passes", "packed_passes", "draft_calls", "accepted_drafts",
    "row_tokens", "canvases", "prompt_tokens", "tokens",
)  # fmt: skip
TIMES = ("prefill_ms", "denoise_ms", "commit_ms", "head_ms", "draft_ms", "total_ms")
Stats: Any = struct(
    "Stats", finish_reason=c_int32, **dict.fromkeys(COUNTERS, c_int64), kv_len=c_int64, peak_kv_bytes=c_int64,
    tokens_per_pass=c_double, **dict.fromkeys(TIMES, c_double), steps_per_canvas=Ids,
    num_steps_per_canvas=c_uint64, causal_passes=c_int64, causal_ms=c_double,
    packed_commits=c_int64, packed_ms=c_double, queued_ms=c_double, wait_ms=c_double, prefix_tokens=c_int64,
    verify_passes=c_int64, verify_ms=c_double, draft_commits=c_int64, draft_refines=c_int64, draft_discards=c_int64,
    draft_passes=c_int64, draft_rows=c_int64,
)  # fmt: skip
PREFIX_COUNTERS = (
    "lookups", "hits", "prompt_tokens", "hit_tokens", "stored_chunks", "evicted_chunks", "evicted_windows",
    "num_chunks", "bytes", "limit_bytes", "kv_sequence_bytes", "kv_prefix_bytes", "kv_peak_bytes", "kv_limit_bytes",
)  # fmt: skip
PrefixStats: Any = struct("PrefixStats", reserved=c_int32, **dict.fromkeys(PREFIX_COUNTERS, c_int64))


class Failure(Exception):
    """A status other than DGRT_OK."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status, self.text = status, text


def library_path() -> Path:
    """libdgrt.so, which lies beside the extension."""
    return Path(dgrt._native.__file__).parent / "libdgrt.so"


def load() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(library_path()))
    handle, out_ids, out_size, out_text = c_void_p, POINTER(Ids), POINTER(c_size_t), POINTER(c_void_p)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "dgrt_version": (c_char_p, []),
        "dgrt_abi_version": (c_int32, []),
        "dgrt_status_name": (c_char_p, [c_int32]),
        "dgrt_last_error": (c_char_p, []),
        "dgrt_live_handles": (c_int64, []),
        "dgrt_runtime_options_init": (c_int32, [c_void_p, c_size_t]),
        "dgrt_runtime_create": (c_int32, [c_char_p, c_void_p, POINTER(handle)]),
        "dgrt_runtime_destroy": (None, [handle]),
        "dgrt_runtime_info": (c_int32, [handle, c_void_p]),
        "dgrt_runtime_memory": (c_int32, [handle, c_void_p]),
        "dgrt_session_options_init": (c_int32, [handle, c_void_p, c_size_t]),
        "dgrt_session_create": (c_int32, [handle, c_void_p, POINTER(handle)]),
        "dgrt_session_destroy": (None, [handle]),
        "dgrt_session_prefill": (c_int32, [handle, Ids, c_size_t]),
        "dgrt_session_next_canvas": (c_int32, [handle, c_void_p, out_ids, out_size, POINTER(c_int32)]),
        "dgrt_session_tokens": (c_int32, [handle, out_ids, out_size]),
        "dgrt_session_logprobs": (c_int32, [handle, POINTER(POINTER(c_float)), out_size]),
        "dgrt_session_cancel": (c_int32, [handle]),
        "dgrt_session_stats": (c_int32, [handle, c_void_p]),
        "dgrt_session_set_canvas": (c_int32, [handle, Ids, c_size_t]),
        "dgrt_session_get_canvas": (c_int32, [handle, out_ids, out_size]),
        "dgrt_scheduler_options_init": (c_int32, [c_void_p, c_size_t]),
        "dgrt_scheduler_create": (c_int32, [handle, c_void_p, POINTER(handle)]),
        "dgrt_scheduler_destroy": (None, [handle]),
        "dgrt_scheduler_submit": (c_int32, [handle, c_void_p, Ids, c_size_t, c_void_p, POINTER(handle)]),
        "dgrt_scheduler_stats": (c_int32, [handle, c_void_p]),
        "dgrt_request_destroy": (None, [handle]),
        "dgrt_request_cancel": (c_int32, [handle]),
        "dgrt_request_wait": (c_int32, [handle, c_double, POINTER(c_int32)]),
        "dgrt_request_result": (c_int32, [handle, out_ids, out_size, POINTER(c_int32)]),
        "dgrt_request_logprobs": (c_int32, [handle, POINTER(POINTER(c_float)), out_size]),
        "dgrt_request_stats": (c_int32, [handle, c_void_p]),
        "dgrt_generate": (c_int32, [handle, c_void_p, Ids, c_size_t, c_void_p, c_void_p]),
        "dgrt_tokenizer_create": (c_int32, [c_char_p, POINTER(handle)]),
        "dgrt_tokenizer_destroy": (None, [handle]),
        "dgrt_tokenizer_encode": (c_int32, [handle, c_char_p, c_size_t, out_ids, out_size]),
        "dgrt_tokenizer_decode": (c_int32, [handle, Ids, c_size_t, c_int32, out_text, out_size]),
        "dgrt_detokenizer_create": (c_int32, [handle, c_int32, POINTER(handle)]),
        "dgrt_detokenizer_destroy": (None, [handle]),
        "dgrt_detokenizer_push": (c_int32, [handle, Ids, c_size_t, out_text, out_size]),
        "dgrt_detokenizer_finish": (c_int32, [handle, out_text, out_size]),
        "dgrt_chat_template_create": (c_int32, [c_char_p, POINTER(handle)]),
        "dgrt_chat_template_destroy": (None, [handle]),
        "dgrt_chat_template_format": (
            c_int32, [handle, POINTER(c_char_p), POINTER(c_char_p), c_size_t, out_text, out_size],
        ),
        "dgrt_chat_template_render": (c_int32, [handle, c_char_p, c_size_t, out_text, out_size]),
        "dgrt_prefix_cache_stats": (c_int32, [handle, c_void_p]),
        "dgrt_prefix_cache_clear": (c_int32, [handle]),
        "dgrt_prefix_cache_save": (c_int32, [handle, c_char_p]),
        "dgrt_prefix_cache_load": (c_int32, [handle, c_char_p, POINTER(c_int64)]),
        "dgrt_session_extend": (c_int32, [handle, Ids, c_size_t]),
    }  # fmt: skip
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


LIB = load()


def check(status: int) -> None:
    if status != 0:
        raise Failure(LIB.dgrt_status_name(status).decode(), LIB.dgrt_last_error().decode())


def ids(tokens: list[int]) -> Any:
    return (c_int32 * len(tokens))(*tokens)


def callbacks(on_step: Any = None, on_commit: Any = None, on_done: Any = None) -> Any:
    return Callbacks(
        ctypes.sizeof(Callbacks), 0, None, OnStep(on_step or 0), OnCommit(on_commit or 0), OnDone(on_done or 0)
    )


class Runtime:
    """A dgrt_runtime handle."""

    def __init__(self, path: Path | str, **options: Any) -> None:
        self.handle = c_void_p()
        settings = RuntimeOptions()
        check(LIB.dgrt_runtime_options_init(byref(settings), ctypes.sizeof(settings)))
        for name, value in options.items():
            setattr(settings, name, value)
        check(LIB.dgrt_runtime_create(str(path).encode(), byref(settings), byref(self.handle)))

    def info(self) -> Any:
        facts = RuntimeFacts(ctypes.sizeof(RuntimeFacts))
        check(LIB.dgrt_runtime_info(self.handle, byref(facts)))
        return facts

    def memory(self) -> Any:
        memory = Memory(ctypes.sizeof(Memory))
        check(LIB.dgrt_runtime_memory(self.handle, byref(memory)))
        return memory

    def prefix_stats(self) -> dict[str, int]:
        stats = PrefixStats(ctypes.sizeof(PrefixStats))
        check(LIB.dgrt_prefix_cache_stats(self.handle, byref(stats)))
        return {name: getattr(stats, name) for name in PREFIX_COUNTERS}

    def clear_prefixes(self) -> None:
        check(LIB.dgrt_prefix_cache_clear(self.handle))

    def save_prefixes(self, path: Path) -> None:
        check(LIB.dgrt_prefix_cache_save(self.handle, str(path).encode()))

    def load_prefixes(self, path: Path) -> int:
        count = c_int64()
        check(LIB.dgrt_prefix_cache_load(self.handle, str(path).encode(), byref(count)))
        return count.value

    def session_options(self, **options: Any) -> Any:
        settings = SessionOptions()
        check(LIB.dgrt_session_options_init(self.handle, byref(settings), ctypes.sizeof(settings)))
        for name, value in options.items():
            if name in ("stop_ids", "draft"):
                setattr(settings, name, ids(value))
                setattr(settings, f"num_{name}", len(value))
            else:
                setattr(settings, name, value)
        return settings

    def destroy(self) -> None:
        LIB.dgrt_runtime_destroy(self.handle)
        self.handle = c_void_p()


class Session:
    """A dgrt_session handle."""

    def __init__(self, runtime: Runtime, **options: Any) -> None:
        self.handle = c_void_p()
        check(LIB.dgrt_session_create(runtime.handle, byref(runtime.session_options(**options)), byref(self.handle)))
        self.finish_reason = ""

    def prefill(self, prompt: list[int]) -> None:
        check(LIB.dgrt_session_prefill(self.handle, ids(prompt), len(prompt)))

    def extend(self, tokens: list[int]) -> None:
        check(LIB.dgrt_session_extend(self.handle, ids(tokens), len(tokens)))

    def next_canvas(self, on_step: Any = None, on_commit: Any = None) -> list[int]:
        tokens, count, finish = Ids(), c_size_t(), c_int32()
        keep = callbacks(on_step, on_commit)
        check(LIB.dgrt_session_next_canvas(self.handle, byref(keep), byref(tokens), byref(count), byref(finish)))
        self.finish_reason = FINISH[finish.value]
        return tokens[: count.value]

    def logprobs(self) -> list[float]:
        numbers, count = POINTER(c_float)(), c_size_t()
        check(LIB.dgrt_session_logprobs(self.handle, byref(numbers), byref(count)))
        return numbers[: count.value]

    def _ids(self, function: Any) -> list[int]:
        tokens, count = Ids(), c_size_t()
        check(function(self.handle, byref(tokens), byref(count)))
        return tokens[: count.value]

    def tokens(self) -> list[int]:
        return self._ids(LIB.dgrt_session_tokens)

    def canvas(self) -> list[int]:
        return self._ids(LIB.dgrt_session_get_canvas)

    def set_canvas(self, canvas: list[int]) -> None:
        check(LIB.dgrt_session_set_canvas(self.handle, ids(canvas), len(canvas)))

    def cancel(self) -> None:
        check(LIB.dgrt_session_cancel(self.handle))

    def stats(self) -> Any:
        stats = Stats(ctypes.sizeof(Stats))
        check(LIB.dgrt_session_stats(self.handle, byref(stats)))
        return stats

    def destroy(self) -> None:
        LIB.dgrt_session_destroy(self.handle)
        self.handle = c_void_p()


class Scheduler:
    """A dgrt_scheduler handle."""

    def __init__(self, runtime: Runtime, **options: Any) -> None:
        self.handle, self.runtime = c_void_p(), runtime
        settings = SchedulerOptions()
        check(LIB.dgrt_scheduler_options_init(byref(settings), ctypes.sizeof(settings)))
        for name, value in options.items():
            setattr(settings, name, value)
        check(LIB.dgrt_scheduler_create(runtime.handle, byref(settings), byref(self.handle)))

    def submit(self, prompt: list[int], keep: Any = None, **options: Any) -> Request:
        """keep: what `callbacks` made; the caller holds it until the request is done."""
        request = Request()
        settings = self.runtime.session_options(**options)
        keep = keep or callbacks()
        check(
            LIB.dgrt_scheduler_submit(
                self.handle, byref(settings), ids(prompt), len(prompt), byref(keep), byref(request.handle)
            )
        )
        return request

    def stats(self) -> Any:
        counts = SchedulerCounts(ctypes.sizeof(SchedulerCounts))
        check(LIB.dgrt_scheduler_stats(self.handle, byref(counts)))
        return counts

    def destroy(self) -> None:
        LIB.dgrt_scheduler_destroy(self.handle)
        self.handle = c_void_p()


class Request:
    """A dgrt_request handle."""

    def __init__(self) -> None:
        self.handle, self.finish_reason = c_void_p(), ""

    def cancel(self) -> None:
        check(LIB.dgrt_request_cancel(self.handle))

    def wait(self, timeout_ms: float = -1) -> bool:
        done = c_int32()
        check(LIB.dgrt_request_wait(self.handle, timeout_ms, byref(done)))
        return done.value == 1

    def result(self) -> list[int]:
        tokens, count, finish = Ids(), c_size_t(), c_int32()
        check(LIB.dgrt_request_result(self.handle, byref(tokens), byref(count), byref(finish)))
        self.finish_reason = FINISH[finish.value]
        return tokens[: count.value]

    def logprobs(self) -> list[float]:
        numbers, count = POINTER(c_float)(), c_size_t()
        check(LIB.dgrt_request_logprobs(self.handle, byref(numbers), byref(count)))
        return numbers[: count.value]

    def stats(self) -> Any:
        stats = Stats(ctypes.sizeof(Stats))
        check(LIB.dgrt_request_stats(self.handle, byref(stats)))
        return stats

    def destroy(self) -> None:
        LIB.dgrt_request_destroy(self.handle)


def text_of(function: Any, *arguments: Any) -> str:
    """Calls a function that returns text."""
    text, size = c_void_p(), c_size_t()
    check(function(*arguments, byref(text), byref(size)))
    return ctypes.string_at(text.value or 0, size.value).decode()


class Tokenizer:
    """A dgrt_tokenizer handle."""

    def __init__(self, folder: Path | str) -> None:
        self.handle = c_void_p()
        check(LIB.dgrt_tokenizer_create(str(folder).encode(), byref(self.handle)))

    def encode(self, text: str | bytes) -> list[int]:
        content = text.encode() if isinstance(text, str) else text
        tokens, count = Ids(), c_size_t()
        check(LIB.dgrt_tokenizer_encode(self.handle, content, len(content), byref(tokens), byref(count)))
        return tokens[: count.value]

    def decode(self, tokens: list[int], *, keep_special: bool = False) -> str:
        return text_of(LIB.dgrt_tokenizer_decode, self.handle, ids(tokens), len(tokens), int(keep_special))

    def destroy(self) -> None:
        LIB.dgrt_tokenizer_destroy(self.handle)
        self.handle = c_void_p()


class Detokenizer:
    """A dgrt_detokenizer handle."""

    def __init__(self, tokenizer: Tokenizer, *, keep_special: bool = False) -> None:
        self.handle = c_void_p()
        check(LIB.dgrt_detokenizer_create(tokenizer.handle, int(keep_special), byref(self.handle)))

    def push(self, tokens: list[int]) -> str:
        return text_of(LIB.dgrt_detokenizer_push, self.handle, ids(tokens), len(tokens))

    def finish(self) -> str:
        return text_of(LIB.dgrt_detokenizer_finish, self.handle)

    def destroy(self) -> None:
        LIB.dgrt_detokenizer_destroy(self.handle)
        self.handle = c_void_p()


class ChatTemplate:
    """A dgrt_chat_template handle."""

    def __init__(self, folder: Path | str) -> None:
        self.handle = c_void_p()
        check(LIB.dgrt_chat_template_create(str(folder).encode(), byref(self.handle)))

    def format(self, messages: list[tuple[str, str]]) -> str:
        strings = c_char_p * len(messages)
        roles, contents = (strings(*(message[i].encode() for message in messages)) for i in (0, 1))
        return text_of(LIB.dgrt_chat_template_format, self.handle, roles, contents, len(messages))

    def render(self, conversation: dict[str, Any] | bytes) -> str:
        content = conversation if isinstance(conversation, bytes) else json.dumps(conversation).encode()
        return text_of(LIB.dgrt_chat_template_render, self.handle, content, len(content))

    def destroy(self) -> None:
        LIB.dgrt_chat_template_destroy(self.handle)
        self.handle = c_void_p()
