"""Native calls on their own thread: results, errors, and Ctrl-C that does not wait for the call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cases import PROCESS_TIMEOUT_S

from dgrt.native_thread import calls_are_running, on_native_thread

LOAD_SCRIPT = """
import sys, time, types
import dgrt.cli, dgrt.runtime
def load(*args, **options):
    print("loading", flush=True)
    time.sleep(600)
dgrt.runtime.native_module = lambda: types.SimpleNamespace(Runtime=load)
sys.exit(dgrt.cli.main())
"""


def test_the_result_of_a_call_is_returned_and_its_thread_has_ended() -> None:
    threads = [on_native_thread(threading.current_thread) for _ in range(2)]
    assert threading.current_thread() not in threads and not any(thread.is_alive() for thread in threads)


def test_an_error_of_a_call_is_raised_in_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        on_native_thread(lambda: 1 // 0)


def test_an_interrupt_does_not_wait_for_the_call() -> None:
    import _thread

    began, may_end = threading.Event(), threading.Event()

    def call() -> None:
        began.set()
        may_end.wait()

    threading.Thread(target=lambda: (began.wait(), time.sleep(0.05), _thread.interrupt_main())).start()
    with pytest.raises(KeyboardInterrupt):
        on_native_thread(call)
    assert calls_are_running()
    may_end.set()
    while calls_are_running():
        time.sleep(0.01)


@pytest.mark.parametrize("argv", [["inspect", "--verify"], ["generate", "--tokens", "1"]])
def test_ctrl_c_while_an_engine_is_loaded_ends_the_command(repository: Path, tmp_path: Path, argv: list[str]) -> None:
    path = os.pathsep.join([str(repository), *filter(None, [os.environ.get("PYTHONPATH")])])
    verb, *options = argv
    process = subprocess.Popen(
        [sys.executable, "-c", LOAD_SCRIPT, verb, str(tmp_path), *options], env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=PROCESS_TIMEOUT_S)  # the load would take longer
    finally:
        process.kill()
    assert process.returncode == 130 and err.splitlines()[-1] == "interrupted"
