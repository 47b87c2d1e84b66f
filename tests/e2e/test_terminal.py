"""`dgrt generate` at a real terminal: the animation, and Ctrl-C wherever it comes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import termios
from pathlib import Path
from typing import Any

import pytest
from cases import LONG, LONG_OPTIONS, PROCESS_TIMEOUT_S, QUICK, QUICK_OPTIONS

import dgrt
from dgrt.cli.show import printable

ROWS, COLUMNS = 50, 200
TOKEN = re.compile(r"\x1b\[(?P<args>[0-9;?]*)(?P<final>[A-Za-z])|(?P<text>[^\x1b])")
INTERRUPT_SCRIPT = """
import os, signal, sys, threading
import dgrt
from dgrt import _native
runtime = dgrt.Runtime(sys.argv[1], threads=1)
wanted = runtime.generate([2, 9], max_new_tokens=8).tokens.tolist()
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    runtime.generate([2, 9], max_denoising_steps=100_000, confidence_threshold=1e-30)
    print("not interrupted")
except KeyboardInterrupt:
    alive = [thread.name for thread in threading.enumerate() if thread.name == "dgrt-generate"]
    same = runtime.generate([2, 9], max_new_tokens=8).tokens.tolist() == wanted
    print("interrupted", alive, same)
"""
ABANDON_SCRIPT = """
import sys
import dgrt
events = dgrt.Runtime(sys.argv[1], threads=1).stream([2, 9], max_denoising_steps=100_000, confidence_threshold=1e-30)
print(next(events).kind)
"""


def screen(output: str) -> list[str]:
    """What a terminal shows after `output`: the few control sequences an animation needs, on endless lines."""
    lines, row, column = [""], 0, 0
    for found in TOKEN.finditer(output):
        final, text = found["final"], found["text"]
        if final == "A":
            row = max(0, row - int(found["args"] or 1))
        elif final == "K":
            lines[row] = "" if found["args"] == "2" else lines[row][:column]
        elif text == "\r":
            column = 0
        elif text == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif text is not None:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def read_to_end(master: int, until: str = "") -> str:
    """Reads from a pty until the process closes it, or `until` has appeared."""
    output = b""
    while not until or until.encode() not in output:
        try:
            chunk = os.read(master, 65_536)
        except OSError:  # how Linux reports the end of a pty
            break
        if not chunk:
            break
        output += chunk
    return output.decode()


@pytest.fixture
def terminal() -> Any:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    yield master, slave
    os.close(master)


PROMPT = "json\nname=Ana Silva; age=34"  # has an answer, so there is text to draw


def start_show(spawn: Any, terminal: tuple[int, int], engine: Path, *options: str) -> Any:
    _, slave = terminal
    process = spawn(
        "generate", engine, PROMPT, "--show", *options, stdin=slave, stdout=slave, env={"TERM": "xterm-256color"}
    )
    os.close(slave)
    return process


def test_the_animation_is_drawn_and_only_the_text_remains(
    spawn: Any, terminal: tuple[int, int], mini_engine: Path, mini: dgrt.Runtime
) -> None:
    process = start_show(spawn, terminal, mini_engine, *QUICK)
    output, summary = read_to_end(terminal[0]), process.stderr.read().decode()
    assert process.wait(PROCESS_TIMEOUT_S) == 0, summary
    assert re.fullmatch(r"\d+ tokens in \d+ denoise steps, 1 canvas: \d+ ms, [\d,]+ tokens per second\n", summary)
    assert "canvas 1 · step" in output and "tokens/s" in output  # drawn
    assert re.search(r"\x1b\[(\d+;)*[12](;\d+)*m", output)  # styled: bold or dim, alone or with other attributes
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1  # the cursor came back
    text = mini.generate(PROMPT, **QUICK_OPTIONS).text
    assert text is not None
    shown = [line.rstrip() for line in printable(text).expandtabs(8).split("\n")]
    left = screen(output)
    while left and not left[-1]:
        left.pop()
    while shown and not shown[-1]:
        shown.pop()
    assert left == shown


def test_the_demo_shows_its_steps_and_leaves_the_answer(spawn: Any, terminal: tuple[int, int]) -> None:
    master, slave = terminal
    process = spawn("demo", stdin=slave, stdout=slave, env={"TERM": "xterm-256color"})
    os.close(slave)
    output = read_to_end(master)
    assert process.wait(PROCESS_TIMEOUT_S) == 0, process.stderr.read()
    assert all(f"canvas 1 · step {step}/" in output for step in (1, 2))
    left = screen(output)
    assert "739285641" in left and "286749153" in left and any(line.startswith("solved: ") for line in left)
    assert not any("canvas 1 · step" in line for line in left)


def test_an_interrupted_animation_gives_the_terminal_back(
    spawn: Any, terminal: tuple[int, int], plain_engine: Path
) -> None:
    process = start_show(spawn, terminal, plain_engine, *LONG)
    output = read_to_end(terminal[0], until="canvas 1 · step")
    process.send_signal(signal.SIGINT)
    output += read_to_end(terminal[0])
    assert process.wait(PROCESS_TIMEOUT_S) == 130
    assert process.stderr.read() == b"interrupted\n"
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1


def test_no_prompt_at_a_terminal_is_an_error_and_does_not_wait(
    spawn: Any, terminal: tuple[int, int], mini_engine: Path
) -> None:
    process = spawn("generate", mini_engine, stdin=terminal[1])
    os.close(terminal[1])
    _, err = process.communicate(timeout=PROCESS_TIMEOUT_S)
    assert process.returncode == 2 and b"no prompt; give PROMPT" in err


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_while_generating_exits_with_130(spawn: Any, plain_engine: Path, times: int) -> None:
    process = spawn("generate", plain_engine, "Hi", *LONG)
    assert process.stdout.read(1)  # the first canvas is out, the next one is being refined
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    # A second one may fall into the interpreter's own last moments and end it as a signal, which shells also call 130.
    assert process.wait(PROCESS_TIMEOUT_S) in ([130] if times == 1 else [130, -signal.SIGINT])
    assert b"Traceback" not in process.stderr.read()


def test_an_interrupt_in_python_leaves_a_runtime_that_works(spawn: Any, plain_engine: Path) -> None:
    process = spawn(plain_engine, code=INTERRUPT_SCRIPT)
    out, err = process.communicate(timeout=PROCESS_TIMEOUT_S)
    assert out.decode() == "interrupted [] True\n", err


def test_a_process_may_end_in_the_middle_of_a_stream(spawn: Any, plain_engine: Path) -> None:
    process = spawn(plain_engine, code=ABANDON_SCRIPT)
    out, err = process.communicate(timeout=PROCESS_TIMEOUT_S)
    assert (process.returncode, out, err) == (0, b"draft\n", b"")


def test_the_long_options_of_these_tests_are_the_same_on_both_surfaces() -> None:
    from dgrt.cli import build_parser
    from dgrt.cli.arguments import generate_options

    options = generate_options(build_parser()[0].parse_args(["generate", "e", "p", *LONG]), trace=False)
    assert {name: getattr(options, name) for name in LONG_OPTIONS} == LONG_OPTIONS
