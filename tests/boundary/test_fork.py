"""Children of a process that has loaded an engine end as any process does, and may open a runtime of their own.

No child here ends with `os._exit`: that is what hides a hang in exit handlers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from boundary import c_api
from cases import PROCESS_TIMEOUT_S

HERE = Path(__file__).parent
STATES = ("loaded", "generated", "submitted", "pending", "chat", "streaming", "closed", "deleted")
STATUS = {"exit 0": 0, "exit 3": 3, "exit with a text": 1, "raise": 1, "return": 0}
QUIET = "ORT_DISABLE_TELEMETRY"  # unset, as a user has it


def run_parent(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != QUIET}
    words = [str(word) for word in command]
    return subprocess.run(
        words, capture_output=True, text=True, timeout=10 * PROCESS_TIMEOUT_S, check=False, env=environment
    )


def build(source: Path, program: Path, *options: str) -> Path:
    variable, default = ("CXX", "c++") if source.suffix == ".cc" else ("CC", "cc")
    compiler = shutil.which(os.environ.get(variable, default))
    if compiler is None:
        pytest.skip(f"no {default} on this machine")
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1"]
    subprocess.run([compiler, *strict, *options, str(source), "-ldl", "-pthread", "-o", str(program)], check=True)
    return program


@pytest.fixture(scope="module")
def other_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that ONNX Runtime of another part of the program could be, and that a child's end would wait for."""
    path = tmp_path_factory.mktemp("other") / "libonnxruntime_other.so"
    return build(HERE / "waiting_library.cc", path, "-std=c++20", "-shared", "-fPIC")


@pytest.mark.parametrize("state", [*STATES, "beside another library"])
def test_every_child_in_python_ends(
    mini_engine: Path, ort_library: str, state: str, request: pytest.FixtureRequest
) -> None:
    other = [request.getfixturevalue("other_library")] if state == "beside another library" else []
    run = run_parent(
        sys.executable, "-W", "ignore", HERE / "fork_parent.py", state, mini_engine, ort_library, *other
    )
    assert run.returncode == 0, run.stderr
    *lines, last = run.stdout.splitlines()
    statuses = json.loads(last)
    assert len(statuses) == 24
    assert statuses == {name: STATUS[name.split(", ")[1]] for name in statuses}, run.stderr
    assert sorted(lines) == sorted(statuses)  # each child flushed its output, once


def test_loading_an_engine_turns_the_reports_of_onnx_runtime_off(plain_engine: Path, ort_library: str) -> None:
    code = (
        "import ctypes, os, sys, dgrt, numpy\n"  # numpy: its BLAS may have threads of its own
        "threads = lambda: len(os.listdir('/proc/self/task'))\n"
        "before = threads()\n"
        "runtime = dgrt.Runtime(sys.argv[1], threads=1, ort_library=sys.argv[2])\n"
        "getenv = ctypes.CDLL(None).getenv; getenv.restype = ctypes.c_char_p\n"
        "print(getenv(b'ORT_DISABLE_TELEMETRY'), threads() - before)\n"
    )
    run = run_parent(sys.executable, "-c", code, plain_engine, ort_library)
    assert (run.returncode, run.stdout, run.stderr) == (0, "b'1' 0\n", "")


@pytest.fixture(scope="module")
def host(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("host") / "fork_host"
    return build(HERE / "fork_host.c", program, "-std=gnu11", f"-I{repository / 'csrc/include'}")


@pytest.mark.parametrize("has_other", [False, True])
@pytest.mark.parametrize("state", ["loaded", "generated", "scheduler", "destroyed", "unloaded"])
def test_every_child_in_c_ends(
    host: Path, other_library: Path, plain_engine: Path, ort_library: str, state: str, has_other: bool
) -> None:
    other = [other_library] if has_other else []
    run = run_parent(host, c_api.library_path(), plain_engine, ort_library, state, *other)
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout.splitlines()
    children = [line.removeprefix("child ") for line in lines if line.startswith("child ")]
    expected = {"exit 0": "0", "exit 3": "3", "return": "4"}
    actions = ("nothing", "use", "destroy", "open", "again")
    assert [line.split(": ")[0] for line in children] == [f"{a}, {how}" for a in actions for how in expected]
    assert all(line.split(": ")[1] == expected[line.split(": ")[0].split(", ")[1]] for line in children), run.stdout
    handlers = {name: lines.count(f"handler registered {name}") for name in ("before dgrt", "in the child")}
    # Of children, grandchildren, and the parent. Beside another library the handlers that were registered before fork()
    # are what a child ends without: among them are those that would wait.
    assert handlers["in the child"] == (15 if has_other else 15 + 3)
    assert handlers["before dgrt"] == (1 if has_other else 15 + 3 + 1)
    assert lines.count("not flushed") == 15
