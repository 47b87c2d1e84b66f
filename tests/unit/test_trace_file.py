"""The file of `dgrt generate --trace`: whole or not there."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dgrt import GenerateOptions, GenerateResult, InvalidArgument
from dgrt.cli.trace_file import write_trace

NONE = np.empty(0, np.int32)
RESULT = GenerateResult(
    text=None,
    tokens=np.array([7], np.int32),
    prompt_tokens=NONE,
    finish_reason="stop",
    stats=None,  # type: ignore[arg-type]
    options=GenerateOptions(seed=5),
    origins=np.zeros(1, np.uint8),
    trace=[],
)


def test_the_name_is_kept_as_given_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_trace(tmp_path / "steps", RESULT)
    assert [path.name for path in tmp_path.iterdir()] == ["steps"]
    with np.load(tmp_path / "steps") as file:
        assert file["tokens"].tolist() == [7] and file["seed"] == 5


def test_an_interrupt_while_writing_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(file: Any, **columns: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    write_trace(tmp_path / "t.npz", RESULT)
    old = (tmp_path / "t.npz").read_bytes()
    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_trace(tmp_path / "t.npz", RESULT)
    assert [path.name for path in tmp_path.iterdir()] == ["t.npz"] and (tmp_path / "t.npz").read_bytes() == old


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_trace(tmp_path / "link", RESULT)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").is_file()


def test_a_dash_is_standard_output_if_that_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        write_trace("-", RESULT)
    with os.fdopen(reader, "rb") as pipe, np.load(io.BytesIO(pipe.read())) as file:
        assert file["tokens"].tolist() == [7]
    controller, terminal = os.openpty()
    with os.fdopen(terminal, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(InvalidArgument, match="found a terminal"):
            write_trace("-", RESULT)
    os.close(controller)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(InvalidArgument, match="found none"):
        write_trace("-", RESULT)
