"""Native calls on a thread of their own: the caller's thread only waits, which is why Ctrl-C is answered at once.

`stream.py` runs generations here, `runtime.py` the loading of an engine. At its end the interpreter waits for these
threads: a native call must not outlive it, because its return would find no GIL to take.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from dgrt.errors import InvalidArgument

Put = Callable[[str, Any], None]
T = TypeVar("T")


class NativeThread:
    """Runs `work` on a daemon thread; what it puts comes out of `next`, and there what it raises is raised.

    Args:
        name: Name of the thread.
        work: Gets the function that queues an entry (kind, value).
        cancel: Makes `work` return early; called from other threads.

    Example:
        >>> thread = NativeThread("example", lambda put: put("answer", 42))
        >>> thread.start(); thread.next()
        ('answer', 42)
        >>> thread.stop()
    """

    def __init__(self, name: str, work: Callable[[Put], None], cancel: Callable[[], None] = lambda: None) -> None:
        self._queue: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._work, self._cancel = work, cancel
        self._ended = threading.Event()
        self._process = os.getpid()  # a child of fork() has this object and not its thread
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether `work` has begun and not ended."""
        return self._is_here() and self._thread.ident is not None and not self._ended.is_set()

    def start(self) -> None:
        """Starts the thread; once."""
        _LIVE.add(self)
        self._thread.start()

    def next(self) -> tuple[str, Any]:
        """Waits for the next entry; in turns, so that an interrupt is seen whichever thread its signal reached."""
        while True:
            if not self._is_here():
                raise InvalidArgument("the call was begun before fork(): begin another one in the child process")
            try:
                kind, value = self._queue.get(timeout=_POLL_S)
            except Empty:
                continue
            if kind == _ERROR:
                raise value
            return kind, value

    def cancel(self) -> None:
        """Makes `work` return early, unless it has ended."""
        if self._is_here() and not self._ended.is_set():
            self._cancel()

    def join(self) -> None:
        """Waits until `work` has ended. May be interrupted and called again."""
        if self._thread.ident is None or not self._is_here():  # interrupted before it began; or it runs elsewhere
            return
        # Not join() alone: one that Ctrl-C breaks into marks a running thread as ended (CPython 3.11, bpo-45274).
        while not self._ended.wait(_POLL_S):
            continue
        self._thread.join()

    def stop(self) -> None:
        """Cancels and waits."""
        self.cancel()
        self.join()

    def _is_here(self) -> bool:
        return os.getpid() == self._process

    def _run(self) -> None:
        try:
            self._work(lambda kind, value: self._queue.put((kind, value)))
        except BaseException as error:  # whatever it is belongs to the caller's thread
            self._queue.put((_ERROR, error))
        finally:
            self._ended.set()


def on_native_thread(call: Callable[[], T]) -> T:
    """Returns what `call` returns. On Ctrl-C the caller goes on at once, and the call runs to its end unseen.

    Example:
        >>> on_native_thread(lambda: 42)
        42
    """
    thread = NativeThread("dgrt-call", lambda put: put("result", call()))
    thread.start()
    result: T = thread.next()[1]
    thread.stop()
    return result


def calls_are_running() -> bool:
    """Returns whether the end of the interpreter would have to wait for a native call.

    Example:
        >>> calls_are_running()
        False
    """
    return any(thread.is_running for thread in list(_LIVE))


_ERROR = "error"
_POLL_S = 0.1
_LIVE: weakref.WeakSet[NativeThread] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for thread in list(_LIVE):
        thread.stop()
