"""Engines and ways to run the command line, for tests of what a user types."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dgrt
from dgrt.cli import main

RunMain = Callable[..., tuple[int, str, str]]
Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(scope="session")
def token_engine(engines: Any) -> Path:
    """An engine without a tokenizer."""
    return engines("only_full")


@pytest.fixture(scope="module")
def mini(mini_engine: Path) -> Iterator[dgrt.Runtime]:
    with dgrt.Runtime(mini_engine, threads=1) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def plain(plain_engine: Path) -> Iterator[dgrt.Runtime]:
    with dgrt.Runtime(plain_engine, threads=1) as runtime:
        yield runtime


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> RunMain:
    """Runs `dgrt` in this process: (exit code, stdout, stderr)."""

    def run_main(*argv: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(one) for one in argv])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run_main


@pytest.fixture
def spawn(repository: Path) -> Iterator[Spawn]:
    """Starts `dgrt` as a process of its own; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*argv: Any, code: str | None = None, **options: Any) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([str(repository), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", **options.pop("env", {})}
        what = ["-c", code] if code is not None else ["-m", "dgrt"]
        pipes = {name: options.pop(name, subprocess.PIPE) for name in ("stdin", "stdout", "stderr")}
        command = [sys.executable, *what, *(str(one) for one in argv)]
        process = subprocess.Popen(command, env=environment, cwd=repository, **pipes, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
            pipe.close()
