"""Writers of files that a user names: every kind of path with every writer, and what the folder looks like afterwards.

A pseudo-terminal and a pipe stand for devices: no test may write to a node of /dev.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boundary import c_api
from cases import PROCESS_TIMEOUT_S

import dgrt
from dgrt.cli.trace_file import write_trace
from dgrt.files import PART_PREFIX, check_output, output_file

NONE = np.empty(0, np.int32)
RESULT = dgrt.GenerateResult(
    text=None, tokens=NONE, prompt_tokens=NONE, finish_reason="stop", stats=None,  # type: ignore[arg-type]
    options=dgrt.GenerateOptions(seed=5), origins=np.zeros(0, np.uint8), trace=[],
)  # fmt: skip
WRITERS = ("trace", "prefixes", "prefixes in C")
LINKED = ("own", "empty", "foreign", "pipe", "socket", "folder", "missing", "terminal")
SPECIAL = ("new/", "folder/", "folder/.", "", "no folder/file", "own/file", "x" * 300, "a\0b", "loop")
Writer = Callable[[str, bool], None]


@pytest.fixture(scope="module")
def writers(plain_engine: Path, ort_library: str) -> Iterator[dict[str, Writer]]:
    runtime = dgrt.Runtime(plain_engine, threads=1)
    foreign = c_api.Runtime(plain_engine, threads=1, ort_library=ort_library.encode())

    def in_c(path: str, overwrite: bool) -> None:
        assert not overwrite  # there is no such thing in C
        foreign.save_prefixes(path)  # type: ignore[arg-type]

    yield {
        "trace": lambda path, overwrite: write_trace(path, RESULT, overwrite=overwrite),
        "prefixes": lambda path, overwrite: runtime.save_prefixes(path, overwrite=overwrite),
        "prefixes in C": in_c,
    }
    runtime.close()
    foreign.destroy()


class Tree:
    """A folder with one entry of every kind, and links to each."""

    def __init__(self, write: Writer, mode: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dgrt-"))  # short: the name of a socket has a limit
        self.ends = os.openpty()
        write(str(self.folder / "own"), False)
        (self.folder / "empty").touch()
        (self.folder / "foreign").write_text("a text of mine")
        for name in ("own", "empty", "foreign"):
            (self.folder / name).chmod(mode)
        os.mkfifo(self.folder / "pipe")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.folder / "socket"))
        (self.folder / "folder").mkdir()
        for name in LINKED:
            target = os.ttyname(self.ends[1]) if name == "terminal" else name
            (self.folder / f"link to {name}").symlink_to(target)
            (self.folder / f"far link to {name}").symlink_to(self.folder / f"link to {name}")
        (self.folder / "loop").symlink_to("loop")

    def facts(self) -> dict[str, Any]:
        found = {}
        for path in self.folder.iterdir():
            facts = path.lstat()
            content: Any = path.readlink() if path.is_symlink() else None
            if stat.S_ISREG(facts.st_mode):
                content = path.read_bytes()
            found[path.name] = (facts.st_mode, facts.st_uid, facts.st_gid, content)
        return found

    def remove(self) -> None:
        self.socket.close()
        for end in self.ends:
            os.close(end)
        shutil.rmtree(self.folder)


def written(name: str, overwrite: bool) -> str | None:
    """The entry that is written when `name` is; None where that is refused."""
    end = name.split(" ")[-1]
    return end if end in ("own", "empty", "missing") or (end == "foreign" and overwrite) else None


@pytest.mark.parametrize("writer", WRITERS)
def test_every_kind_of_path_is_written_or_refused_untouched(writers: dict[str, Writer], writer: str) -> None:
    write, cases = writers[writer], 0
    names = [*LINKED[:-1], *SPECIAL, *(f"{far}link to {name}" for name in LINKED for far in ("", "far "))]
    for mode in (0o600, 0o640, 0o666):
        for overwrite in (False, True) if writer != "prefixes in C" else (False,):
            for name in names:
                if writer == "prefixes in C" and name in ("a\0b",):
                    continue  # a C string ends there
                tree, cases = Tree(write, mode), cases + 1
                try:
                    before = tree.facts()
                    own = before["own"][3]
                    path = f"{tree.folder}/{name}" if name else ""
                    end = written(name, overwrite)
                    if end is None:
                        with pytest.raises((dgrt.InvalidArgument, c_api.Failure)) as caught:
                            write(path, overwrite)
                        text = str(caught.value)
                        assert "\n" not in text and ("cannot write: " in text or "NUL character" in text)
                        assert getattr(caught.value, "status", "DGRT_INVALID_ARGUMENT") == "DGRT_INVALID_ARGUMENT"
                    else:
                        write(path, overwrite)
                        after = tree.facts()[end]
                        if end != "missing":
                            assert after[:3] == before[end][:3]
                        assert (len(after[3]) == len(own)) if writer == "trace" else (after[3] == own)
                        before[end] = after
                    assert tree.facts() == before, (name, overwrite)
                finally:
                    tree.remove()
    assert cases >= 90  # 270 and more with the three writers


def test_a_new_snapshot_is_its_users_alone_and_a_new_trace_is_as_any_file(
    writers: dict[str, Writer], tmp_path: Path
) -> None:
    before = os.umask(0o027)
    try:
        for name in ("prefixes", "trace"):
            writers[name](str(tmp_path / name), False)
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("prefixes", "trace")] == [0o600, 0o640]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_is_kept(writers: dict[str, Writer], tmp_path: Path) -> None:
    for name in ("prefixes", "trace"):
        path = tmp_path / name
        writers[name](str(path), False)
        os.chown(path, 1234, 2345)
        writers[name](str(path), False)
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


@pytest.mark.parametrize("path", [None, 7, 1.5, [], object(), "\ud800", b"bytes", "caf\udce9"])
def test_what_is_no_path_is_refused_as_such(writers: dict[str, Writer], path: Any) -> None:
    for name in ("prefixes", "trace"):
        with pytest.raises(dgrt.InvalidArgument, match="path (must be a string or a path, got|is not UTF-8)"):
            writers[name](path, False)


def test_names_beyond_ascii_are_written_and_read(plain_engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "Größe 模型"
    with dgrt.Runtime(plain_engine, threads=1) as runtime:
        runtime.save_prefixes(path)
        assert path.exists() and runtime.load_prefixes(path) == 0
    path.unlink()
    write_trace(path, RESULT)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_overwrite_is_true_or_false(plain_engine: Path, tmp_path: Path, value: Any) -> None:
    text = "overwrite must be True or False"
    with dgrt.Runtime(plain_engine, threads=1) as runtime, pytest.raises(dgrt.InvalidArgument, match=text):
        runtime.save_prefixes(tmp_path / "p", overwrite=value)


def test_a_pipe_is_not_waited_for_when_prefixes_are_loaded(plain_engine: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with dgrt.Runtime(plain_engine, threads=1) as runtime:
        for path, found in ((tmp_path / "pipe", "a pipe"), (tmp_path, "a folder")):
            with pytest.raises(dgrt.InvalidArgument, match=f"cannot read: expected a regular file, found {found}"):
                runtime.load_prefixes(path)


def test_what_a_killed_writer_left_goes_with_the_next_one(writers: dict[str, Writer], tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom dgrt.files import output_file\n"
        "with output_file(sys.argv[1], 'thing', lambda path: True) as file:\n"
        "    file.write(b'half')\n    file.flush()\n    print('writing', flush=True)\n    time.sleep(600)\n"
    )
    for name in ("prefixes", "trace"):
        killed = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x")], stdout=subprocess.PIPE)
        assert killed.stdout is not None and killed.stdout.readline() == b"writing\n"
        writers[name](str(tmp_path / name), False)
        assert len(list(tmp_path.glob(f"{PART_PREFIX}*"))) == 1  # in use: its lock is held
        killed.kill()
        killed.wait(PROCESS_TIMEOUT_S)
        killed.stdout.close()
        writers[name](str(tmp_path / name), False)
        assert not list(tmp_path.glob(f"{PART_PREFIX}*")) and not (tmp_path / "x").exists()


@contextmanager
def small_files() -> Iterator[None]:
    """No file of this process grows beyond 4 KiB, as on a disk that is full. Not for long: pytest writes files too."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_without_room_the_old_file_stays_and_the_error_has_numbers(plain_engine: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"old")
    with dgrt.Runtime(plain_engine, threads=1) as runtime:
        runtime.generate([2] * 600, max_new_tokens=1, max_denoising_steps=1)
        text = r"expected a limit on file sizes of at least \d{5,} bytes, found 4096"
        with small_files(), pytest.raises(dgrt.DeviceError, match=text):
            runtime.save_prefixes(tmp_path / "prefixes")
    text = r"writing failed: File too large: expected room for more than 4096 bytes, found \d+ bytes free"
    writing = output_file(kept, "thing", lambda path: True)
    with small_files(), pytest.raises(dgrt.DeviceError, match=text), writing as file:
        file.write(bytes(10_000))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and kept.read_bytes() == b"old"


def test_a_disk_that_fails_is_a_device_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    text = "thing '.*': writing failed: Input/output error"
    with pytest.raises(dgrt.DeviceError, match=text), output_file(tmp_path / "x", "thing", lambda path: True) as file:
        file.write(b"all")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def nobodys_folder() -> Iterator[Path]:
    """A folder of the user that this process is for the time of a test: not root, who may write everywhere."""
    folder = Path(tempfile.mkdtemp(prefix="dgrt-"))
    before = os.geteuid()
    if before == 0:
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
    yield folder
    os.seteuid(before)
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_a_folder_or_file_that_may_not_be_written_is_refused(
    writers: dict[str, Writer], nobodys_folder: Path
) -> None:
    for name in ("prefixes", "trace"):
        own = nobodys_folder / name
        nobodys_folder.chmod(0o700)
        writers[name](str(own), False)
        own.chmod(0o400)
        for path, mode in ((own, 0o700), (nobodys_folder / "new", 0o500), (own, 0o500)):
            nobodys_folder.chmod(mode)
            with pytest.raises(dgrt.InvalidArgument, match="cannot write: [Pp]ermission denied"):
                writers[name](str(path), True)
    assert sorted(path.name for path in nobodys_folder.iterdir()) == ["prefixes", "trace"]


def test_two_writers_of_one_path_leave_one_whole_file(tmp_path: Path) -> None:
    with (
        output_file(tmp_path / "x", "thing", lambda path: True) as one,
        output_file(tmp_path / "x", "thing", lambda path: True) as two,
    ):
        one.write(b"one")
        two.write(b"two")
        with pytest.raises(OSError), open(next(tmp_path.glob(f"{PART_PREFIX}*")), "rb") as part:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert (tmp_path / "x").read_bytes() in (b"one", b"two") and len(list(tmp_path.iterdir())) == 1


def test_the_check_alone_makes_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("new")
    assert check_output(tmp_path / "link", "thing", lambda path: True) == tmp_path / "new"
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_what_is_printed_to_a_file_is_not_lost(plain_engine: Path, ort_library: str, tmp_path: Path) -> None:
    """The file that is standard output or error, by its name, a link and the name that "/dev/stdout" stands for."""
    code = """
import os, sys
import dgrt
from dgrt.cli.trace_file import check_trace_path
runtime = dgrt.Runtime(sys.argv[1], threads=1, ort_library=sys.argv[2])
for path in sys.argv[3:]:
    for write in (runtime.save_prefixes, check_trace_path):
        try:
            write(path, overwrite=True)
        except dgrt.InvalidArgument as error:
            assert "found that of standard output or error: give another path" in str(error), error
            os.write(1, b"o")
            os.write(2, b"e")
"""
    out, err, link = tmp_path / "out", tmp_path / "err", tmp_path / "link"
    link.symlink_to("out")
    paths = [out, err, link, "/proc/self/fd/1", "/proc/self/fd/2"]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        command = [sys.executable, "-c", code, str(plain_engine), ort_library, *map(str, paths)]
        run = subprocess.run(command, stdout=stdout, stderr=stderr, timeout=PROCESS_TIMEOUT_S, check=False)
    assert (run.returncode, out.read_bytes(), err.read_bytes()) == (0, b"o" * 10, b"e" * 10)
