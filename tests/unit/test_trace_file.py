"""The file of `dgrt generate --trace`: whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dgrt import GenerateOptions, GenerateResult
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

    (tmp_path / "t.npz").write_bytes(b"old")
    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_trace(tmp_path / "t.npz", RESULT)
    assert [path.name for path in tmp_path.iterdir()] == ["t.npz"] and (tmp_path / "t.npz").read_bytes() == b"old"


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_trace(tmp_path / "link", RESULT)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").is_file()


def test_what_is_no_ordinary_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_trace(pipe, RESULT)
    assert pipe.is_fifo() and os.read(reader, 2) == b"PK"
    os.close(reader)
