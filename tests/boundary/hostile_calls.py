"""Hostile calls of the C API in a process of their own; test_c_hostile.py runs it with ENGINE ORT SEED COUNT.

Before a call its number is printed, so that the parent knows which one ended the process. Every call has to return a
status with a text; calls that are wrong for sure have to be refused.
"""

from __future__ import annotations

import ctypes
import random
import sys
from collections.abc import Callable
from ctypes import byref, c_double, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from typing import Any

sys.path.insert(0, __file__.rsplit("/", 2)[0])

from boundary import c_api
from boundary.c_api import LIB, Ids

# Sizes of arrays of four elements: beyond any memory, just beyond a context, and what overflows when multiplied by 4.
COUNTS = (2**64 - 1, 2**63 + 1, 2**63, 2**62 + 4, 2**62, 2**61, 2**40, 2**32, 2**32 + 4, 2**31, 5_000)
INTEGERS = (-(2**31), -1000, -1, 2, 3, 7, 99, 2**31 - 1)
FLOATS = (float("nan"), float("inf"), float("-inf"), -1.0, -1e-30, 1e38)
ENUMS = ("guarantee", "drafter", "pipeline", "verify_packing", "verify_redraft")
FLAGS = ("logprobs", "verify_one_pass", "verify_always")
MEMORY = (c_int32 * 4)(2, 3, 4, 5)
Call = Callable[[], int]


class Calls:
    """Draws a call; `draw` returns its name, the call, and whether it has to be refused."""

    def __init__(self, engine: str, ort: str, seed: int) -> None:
        self.engine, self.ort, self.random = engine.encode(), ort.encode(), random.Random(seed)
        self.runtime = c_api.Runtime(engine, threads=1, ort_library=self.ort)
        self.scheduler = c_api.Scheduler(self.runtime)
        self.tokenizer = c_api.Tokenizer(engine)
        self.detokenizer = c_api.Detokenizer(self.tokenizer)
        self.template = c_api.ChatTemplate(engine)
        self.keep: list[Any] = []

    def draw(self) -> tuple[str, Call, bool]:
        kinds = (
            self.count_of_tokens, self.count_in_options, self.session_option, self.runtime_option, self.reserved,
            self.struct_size, self.count_of_text, self.null, self.special_tokens, self.timeout, self.scheduler_option,
        )  # fmt: skip
        return self.random.choice(kinds)()

    def count_of_tokens(self) -> tuple[str, Call, bool]:
        count, tokens = self.random.choice(COUNTS), self.random.choice((ctypes.cast(MEMORY, Ids), None))
        session, text, handle = self.session(), (byref(c_void_p()), byref(c_size_t())), byref(c_void_p())
        calls: dict[str, Call] = {
            "prefill": lambda: LIB.dgrt_session_prefill(session, tokens, count),
            "extend": lambda: LIB.dgrt_session_extend(session, tokens, count),
            "set_canvas": lambda: LIB.dgrt_session_set_canvas(session, tokens, count),
            "generate": lambda: LIB.dgrt_generate(self.runtime.handle, None, tokens, count, None, None),
            "submit": lambda: LIB.dgrt_scheduler_submit(self.scheduler.handle, None, tokens, count, None, handle),
            "decode": lambda: LIB.dgrt_tokenizer_decode(self.tokenizer.handle, tokens, count, 0, *text),
            "push": lambda: LIB.dgrt_detokenizer_push(self.detokenizer.handle, tokens, count, *text),
        }
        name = self.random.choice(list(calls))
        if name in ("decode", "push") and tokens is not None and count < 2**31:
            count = 2**31  # below that bound it is the caller's memory that counts
        return f"{name}, {count} tokens", calls[name], True

    def count_in_options(self) -> tuple[str, Call, bool]:
        options, field = self.options(guarantee=2), self.random.choice(("stop_ids", "draft"))
        count = self.random.choice(COUNTS)
        setattr(options, field, ctypes.cast(MEMORY, Ids))
        setattr(options, f"num_{field}", count)
        return f"{field}, {count}", self.create(options), True

    def session_option(self) -> tuple[str, Call, bool]:
        options = self.options()
        pointers = ("struct_size", "stop_ids", "num_stop_ids", "draft", "num_draft")
        name, kind = self.random.choice([field for field in c_api.SessionOptions._fields_ if field[0] not in pointers])
        value: Any = self.random.choice(FLOATS if kind in (ctypes.c_float, c_double) else INTEGERS)
        if kind in (ctypes.c_uint32, c_uint64):
            value = abs(value)
        setattr(options, name, value)
        return f"option {name} {value}", self.create(options), name in FLAGS or (name in ENUMS and not 0 <= value <= 4)

    def runtime_option(self) -> tuple[str, Call, bool]:
        options = c_api.RuntimeOptions()
        c_api.check(LIB.dgrt_runtime_options_init(byref(options), ctypes.sizeof(options)))
        options.ort_library, options.threads = self.ort, 1
        name = self.random.choice(("threads", "verify_weights", "reserved", "memory_limit_bytes", "kv_limit_bytes"))
        value = self.random.choice((-(2**31), -1, 2**31 - 1) if "bytes" not in name else (-(2**63), -1, -5))
        setattr(options, name, value)
        call = lambda: LIB.dgrt_runtime_create(self.engine, byref(options), byref(c_void_p()))  # noqa: E731
        return f"option {name} {value}", call, True

    def reserved(self) -> tuple[str, Call, bool]:
        value = self.random.choice(INTEGERS)
        session, callbacks, scheduler = self.options(), c_api.callbacks(), c_api.SchedulerOptions()
        c_api.check(LIB.dgrt_scheduler_options_init(byref(scheduler), ctypes.sizeof(scheduler)))
        structs = {"session": session, "callbacks": callbacks, "scheduler": scheduler}
        name = self.random.choice(list(structs))
        structs[name].reserved = value
        if name == "session":
            return f"{name}.reserved {value}", self.create(session), True
        if name == "scheduler":
            made = c_void_p()
            call = lambda: LIB.dgrt_scheduler_create(self.runtime.handle, byref(scheduler), byref(made))  # noqa: E731
            return f"{name}.reserved {value}", call, True
        call = lambda: LIB.dgrt_generate(self.runtime.handle, None, MEMORY, 4, byref(callbacks), None)  # noqa: E731
        return f"{name}.reserved {value}", call, True

    def struct_size(self) -> tuple[str, Call, bool]:
        size = self.random.choice((0, 1, 4, 7, 9, 4_097, 5_000, 2**31, 2**32 - 1))
        outputs: dict[str, tuple[Any, Any]] = {
            "info": (c_api.RuntimeFacts, LIB.dgrt_runtime_info),
            "memory": (c_api.Memory, LIB.dgrt_runtime_memory),
            "prefix": (c_api.PrefixStats, LIB.dgrt_prefix_cache_stats),
        }
        name = self.random.choice(list(outputs))
        kind, function = outputs[name]
        struct = kind(size)
        return f"{name}.struct_size {size}", lambda: function(self.runtime.handle, byref(struct)), True

    def count_of_text(self) -> tuple[str, Call, bool]:
        count = max(2**31, self.random.choice(COUNTS))
        tokens, text, size = byref(Ids()), byref(c_void_p()), byref(c_size_t())
        strings = (ctypes.c_char_p * 2)(b"user", b"user")
        calls: dict[str, Call] = {
            "encode": lambda: LIB.dgrt_tokenizer_encode(self.tokenizer.handle, b"ab", count, tokens, size),
            "format": lambda: LIB.dgrt_chat_template_format(self.template.handle, strings, strings, count, text, size),
        }
        name = self.random.choice(list(calls))
        return f"{name}, {count}", calls[name], True

    def null(self) -> tuple[str, Call, bool]:
        names = [n for n in vars(c_api.LIB) if n.startswith("dgrt_") and getattr(LIB, n).restype is c_int32]
        name = self.random.choice([n for n in names if n not in ("dgrt_abi_version",)])
        function = getattr(LIB, name)
        plain = (c_int32, c_size_t, c_double, c_int64)
        return f"{name}(NULL)", lambda: function(*[8 if kind in plain else None for kind in function.argtypes]), True

    def special_tokens(self) -> tuple[str, Call, bool]:
        value = self.random.choice(INTEGERS)
        text, size, handle = c_void_p(), c_size_t(), c_void_p()
        if self.random.random() < 0.5:
            call: Call = lambda: LIB.dgrt_detokenizer_create(self.tokenizer.handle, value, byref(handle))  # noqa: E731
        else:
            call = lambda: LIB.dgrt_tokenizer_decode(self.tokenizer.handle, MEMORY, 4, value, byref(text), byref(size))  # noqa: E731
        return f"special_tokens {value}", call, True

    def timeout(self) -> tuple[str, Call, bool]:
        request = self.scheduler.submit([2, 3], max_new_tokens=1, max_denoising_steps=1)
        self.keep.append(request)
        value, done = self.random.choice((*FLOATS, 1e300, -0.0, 5e-324, 1e12)), c_int32()
        return f"timeout {value}", lambda: LIB.dgrt_request_wait(request.handle, value, byref(done)), value != value

    def scheduler_option(self) -> tuple[str, Call, bool]:
        options, handle = c_api.SchedulerOptions(), c_void_p()
        c_api.check(LIB.dgrt_scheduler_options_init(byref(options), ctypes.sizeof(options)))
        name, value = self.random.choice(("max_running", "max_queued")), self.random.choice((-(2**31), -1, 2**31 - 1))
        setattr(options, name, value)
        call = lambda: LIB.dgrt_scheduler_create(self.runtime.handle, byref(options), byref(handle))  # noqa: E731
        return f"{name} {value}", call, True

    def session(self) -> Any:
        self.keep = [c_api.Session(self.runtime)]
        return self.keep[0].handle

    def options(self, **more: Any) -> Any:
        return self.runtime.session_options(max_new_tokens=1, max_denoising_steps=1, **more)

    def create(self, options: Any) -> Call:
        def call() -> int:
            handle = c_void_p()
            status: int = LIB.dgrt_session_create(self.runtime.handle, byref(options), byref(handle))
            LIB.dgrt_session_destroy(handle)
            return status

        return call


def main() -> None:
    engine, ort, seed, count = sys.argv[1:]
    calls = Calls(engine, ort, int(seed))
    refused = 0
    for number in range(int(count)):
        name, call, is_wrong = calls.draw()
        print(number, name, flush=True)
        status = call()
        text = LIB.dgrt_last_error().decode() if status else ""
        assert 0 <= status <= 9 and LIB.dgrt_status_name(status) != b"unknown status", (name, status)
        assert status != 7, (name, text)  # DGRT_INTERNAL would be a defect of ours
        assert bool(text) == (status != 0) and "\n" not in text, (name, text)
        assert status in (1, 3, 4) or not is_wrong, (name, status, text)
        refused += status != 0
    print("refused", refused)


main()
