"""A process that loads an engine and forks many children; test_fork.py runs `fork_parent.py STATE ENGINE ORT [OTHER]`.

A child does one thing with what it inherited, writes a line to stdout without flushing it, and ends as programs end.
The last line that the parent prints is JSON: the wait status of each child by its name.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import dgrt

STATE, ENGINE, ORT, *OTHER = sys.argv[1:]

QUICK: dict[str, Any] = {"max_new_tokens": 8, "max_denoising_steps": 2, "seed": 1}
ENDS = ("exit 0", "exit 3", "exit with a text", "raise", "return")
CHEAP, COSTLY = ("nothing", "use the old one", "close the old one", "drop the old one"), ("open another", "fork again")
CASES = [(action, how) for action in CHEAP for how in ENDS] + [(action, how) for action in COSTLY for how in ENDS[1::3]]
ALARM_S = 60  # what hangs ends with a signal


def runtime() -> dgrt.Runtime:
    return dgrt.Runtime(ENGINE, threads=2, ort_library=ORT, max_running=1)


class Parent:
    """What the children inherit."""

    def __init__(self) -> None:
        for library in OTHER:
            ctypes.CDLL(library)  # before dgrt loads its own
        self.runtime: Any = runtime()
        self.kept: list[Any] = []
        getattr(self, STATE, lambda: None)()

    def generated(self) -> None:
        self.runtime.generate([2, 105], **QUICK)

    def submitted(self) -> None:
        self.runtime.submit([2, 105], **QUICK).result()

    def pending(self) -> None:
        long = {"confidence_threshold": 1e-30, "max_denoising_steps": 60_000, "stop_ids": ()}
        self.kept = [self.runtime.submit([2, 105], **long) for _ in range(2)]  # one more than run at once

    def chat(self) -> None:
        self.kept = [self.runtime.chat(**QUICK)]
        self.kept[0].send("json\ncolour=red")

    def streaming(self) -> None:
        stream = self.runtime.stream([2, 105], confidence_threshold=1e-30, max_denoising_steps=60_000)
        next(stream)
        self.kept = [stream]

    def closed(self) -> None:
        self.generated()
        self.runtime.close()

    def deleted(self) -> None:
        self.generated()
        self.runtime = None
        gc.collect()


def require_refusal(call: Callable[[], Any]) -> None:
    try:
        call()
    except (dgrt.InvalidArgument, dgrt.Cancelled) as error:
        if "fork()" in str(error) or "closed" in str(error):
            return
        raise
    raise AssertionError("the call was not refused")


def use(parent: Parent) -> None:
    """Every way to use what was opened before fork() is refused at once."""
    old = parent.runtime
    if old is not None:
        path = os.path.join(tempfile.gettempdir(), "never-written")
        for call in (
            lambda: old.generate([2, 105], **QUICK), lambda: old.submit([2, 105], **QUICK), old.prefix_stats,
            lambda: old.stream([2, 105], **QUICK), lambda: old.chat(**QUICK).send("hi"), old.serving_stats,
            old.clear_prefixes, lambda: old.save_prefixes(path), lambda: old.load_prefixes(__file__),
        ):  # fmt: skip
            require_refusal(call)
        assert repr(old) and old.info  # facts do not need the engine's threads
    for kept in parent.kept:
        if isinstance(kept, dgrt.GenerateFuture):
            require_refusal(kept.result)
        elif STATE == "streaming":
            require_refusal(lambda stream=kept: next(stream))
        elif STATE == "chat":
            require_refusal(lambda chat=kept: chat.send("json\ncolour=blue"))


def act(parent: Parent, action: str) -> None:
    if action == "use the old one":
        use(parent)
    elif action == "close the old one":
        for kept in parent.kept:
            getattr(kept, "close", lambda: None)()
        if parent.runtime is not None:
            parent.runtime.close()
    elif action == "drop the old one":
        parent.runtime, parent.kept = None, []
        gc.collect()
    elif action == "open another":
        with runtime() as own:
            assert own.generate([2, 105], **QUICK).tokens.size == 8
    elif action == "fork again":
        grandchild = os.fork()
        if grandchild == 0:
            act(parent, "open another")
            sys.exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 5


def end(how: str) -> None:
    if how == "raise":
        raise RuntimeError("an exception that nobody catches")
    if how != "return":
        sys.exit({"exit 0": 0, "exit 3": 3, "exit with a text": "a text for stderr"}[how])


def main() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    parent = Parent()
    statuses = {}
    for action, how in CASES:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            signal.alarm(ALARM_S)
            print(f"{action}, {how}")
            act(parent, action)
            return end(how)
        statuses[f"{action}, {how}"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for kept in parent.kept:  # what ran in the parent is not disturbed, and ends when it is asked to
        if isinstance(kept, dgrt.GenerateFuture):
            assert kept.cancel()
        else:
            kept.close()
    if STATE not in ("closed", "deleted"):
        assert parent.runtime.generate([2, 105], **QUICK).tokens.size == 8
        parent.runtime.close()
    assert threading.active_count() == 1
    print(json.dumps(statuses))


main()
