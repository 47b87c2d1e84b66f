"""Where an export may write: nothing of the user's is replaced, and what cannot work is told before any work."""

from __future__ import annotations

import errno
import json
import os
import pty
import random
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pytest
from dgrt_export import OutputError, package, weights
from dgrt_export.package import PACKAGE, FolderKind, check_output, staged, write_manifest

from dgrt.cli import main

DRAFTER = FolderKind("a drafter", "config.json", "model_type", "dgrt_block_drafter", lambda config: ("README.md",))
NUM_CASES = 240


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything in a tree: kind and mode, inode, content or target."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        content: Any = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = (facts.st_mode, facts.st_ino, content)
    return found


def write_package(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "manifest.json").write_text(json.dumps({"format": "dgrt-engine", "files": {"model.safetensors": {}}}))


def write_drafter(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "dgrt_block_drafter"}')
    (folder / "README.md").write_text("card")


def write_checkpoint(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "diffusion_gemma"}')
    (folder / "model.safetensors").write_bytes(b"weights")


def write_home(folder: Path) -> None:
    write_package(folder)
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("mine")


def write_package_with_notes(folder: Path) -> None:
    write_package(folder)
    (folder / "notes.txt").write_text("mine")


def write_foreign_manifest(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"name": "a web app"}')


def write_fifo_manifest(folder: Path) -> None:
    folder.mkdir(parents=True)
    os.mkfifo(folder / "manifest.json")


def write_folder_manifest(folder: Path) -> None:
    (folder / "manifest.json").mkdir(parents=True)


def write_socket(path: Path) -> None:
    place = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(place)


def write_loop(path: Path) -> None:
    path.symlink_to(path.name)


# What stands at the output, and with which kinds it may be replaced (with force).
Make = Callable[[Path], None]
THINGS: dict[str, tuple[Make, tuple[FolderKind, ...]]] = {
    "package": (write_package, (PACKAGE,)),
    "drafter": (write_drafter, (DRAFTER,)),
    "checkpoint": (write_checkpoint, ()),
    "home": (write_home, ()),
    "package with notes": (write_package_with_notes, ()),
    "foreign manifest": (write_foreign_manifest, ()),
    "FIFO for a manifest": (write_fifo_manifest, ()),
    "folder for a manifest": (write_folder_manifest, ()),
    "file": (lambda path: path.write_text("mine") and None, ()),
    "empty file": (lambda path: path.touch(), ()),
    "FIFO": (os.mkfifo, ()),
    "socket": (write_socket, ()),
    "loop": (write_loop, ()),
}
FREE: dict[str, Make] = {"nothing": lambda path: None, "empty folder": Path.mkdir}


def reached(rng: random.Random, root: Path, real: Path) -> str:
    """A way to write the path: itself, with a detour, or through links."""
    kind = rng.randrange(4)
    if kind == 0:
        return str(real)
    if kind == 1:
        return f"{real.parent}/../{real.parent.name}/./{real.name}"
    link = root / f"link{rng.randrange(10**6)}"
    if kind == 2:
        link.symlink_to(real)
        return str(link)
    link.symlink_to(real.parent)
    return str(link / real.name)


def test_checking_an_output_refuses_what_is_not_ours_and_changes_nothing(tmp_path: Path) -> None:
    rng = random.Random(29)
    for case in range(NUM_CASES):
        root = tmp_path / str(case)
        parent = root / "place"
        parent.mkdir(parents=True)
        kind, force = rng.choice((PACKAGE, DRAFTER)), rng.random() < 0.7
        name = rng.choice([*THINGS, *FREE])
        make, replaceable = THINGS.get(name) or (FREE[name], ())
        real = parent / rng.choice(("engine", "ü n", "-o", "a.partial", "e" * 90))
        make(real)
        output = reached(rng, root, real)
        before = snapshot(root)
        allowed = name in FREE or (force and kind in replaceable)
        try:
            assert check_output(output, [root / "source"], force, kind) == real
            assert allowed, (name, force, kind.name)
        except OutputError as error:
            assert not allowed, (name, error)
            assert "expected" in str(error) and "found" in str(error) and "\n" not in str(error)
        assert snapshot(root) == before, name


def test_a_terminal_is_no_output() -> None:
    """A character device that may be harmed."""
    parent, child = pty.openpty()
    try:
        name = os.ttyname(child)
        for force in (False, True):
            with pytest.raises(OutputError, match="expected a folder, found a device"):
                check_output(name, [], force)
        assert stat.S_ISCHR(os.stat(name).st_mode)
    finally:
        os.close(parent)
        os.close(child)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("", "expected the name of a folder"), ("/", "a mount point"), ("/proc", "a mount point"),
        ("x\0y", "the name of a folder"), ("{}/file/engine", "a folder .*/file to write in, found a file"),
        ("{}/" + "e" * 250, "name of the output: expected at most"), ("{}/" + "e" * 300, "found 300"),
    ],
)  # fmt: skip
def test_names_that_cannot_work_are_told(tmp_path: Path, output: str, says: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=says):
        check_output(output.replace("{}", str(tmp_path)), [], force=True)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*words: Any) -> tuple[int, str]:
        status = main(["export", *map(str, words)])
        return status, capsys.readouterr().err

    return run


@pytest.mark.parametrize("name", sorted(THINGS))
def test_the_verb_refuses_them_before_any_work(
    run: Any, checkpoints: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    if name == "package":
        return
    output = tmp_path / "engine"
    THINGS[name][0](output)
    before = snapshot(tmp_path)
    status, err = run(checkpoints("plain"), "-o", output, "--force")
    assert status == 2 and err.count("\n") == 1 and "expected" in err
    assert snapshot(tmp_path) == before


def publish(output: Path, force: bool = True) -> None:
    with staged(output, force) as folder:
        (folder / "graph.onnx").write_bytes(b"new")
        write_manifest(folder, {"format": "dgrt-engine", "files": {"graph.onnx": {}}})


def test_links_and_modes_of_the_output_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "engine", tmp_path / "engine"
    write_package(real)
    real.chmod(0o2750)
    link.symlink_to(real)
    publish(check_output(link, [], force=True))
    assert link.is_symlink() and (link / "graph.onnx").read_bytes() == b"new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o2750 and sorted(os.listdir(real.parent)) == ["engine"]
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o700)
    publish(check_output(empty, [], force=False), force=False)
    assert stat.S_IMODE(empty.stat().st_mode) == 0o700
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "later" / "engine")
    publish(check_output(dangling, [], force=False), force=False)
    assert dangling.is_symlink() and (tmp_path / "later" / "engine" / "graph.onnx").exists()


@pytest.mark.parametrize("output", ["/proc/engine", "/proc/a/b/engine"])
def test_a_file_system_that_refuses_only_the_attempt_is_named(output: str) -> None:
    with pytest.raises(OutputError, match=f"output {output}: expected a folder .*found .*"), staged(
        check_output(output, [], force=False), force=False
    ):
        raise AssertionError("there cannot be a folder")


def test_a_failure_also_removes_the_folders_that_were_made_for_the_output(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), staged(tmp_path / "a" / "b" / "engine", force=False):
        raise RuntimeError
    assert os.listdir(tmp_path) == []


# What a killed export leaves

KILLED = """
import sys, time
from pathlib import Path
from dgrt_export.package import check_output, staged
with staged(check_output(sys.argv[1], [], True), True) as folder:
    (folder / "model.safetensors").write_bytes(b"half")
    print("at work", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def living(repository: Path) -> Any:
    """Starts exports that wait half-way."""
    started = []

    def start(output: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(output)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(repository / "export")},
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "at work\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_the_next_export_removes_what_a_killed_one_left_and_nothing_else(living: Any, tmp_path: Path) -> None:
    output = tmp_path / "engine"
    write_package(output)
    for name in ("engine", ".engine.0123456789xy", "xengine.0123456789ab", ".engine2.0123456789ab"):
        (tmp_path / f"{name}.partial").mkdir()
    (tmp_path / ".engine.0123456789ab.partial").write_text("a file of somebody")
    before = snapshot(tmp_path)
    for number in (signal.SIGKILL, signal.SIGKILL):
        process = living(output)
        process.send_signal(number)
        process.wait()
    assert len(snapshot(tmp_path)) == len(before) + 2  # the second has removed what the first left
    assert check_output(output, [], force=True) == output
    assert snapshot(tmp_path) == before


def test_an_export_does_not_run_beside_another_to_the_same_folder(living: Any, tmp_path: Path) -> None:
    output = tmp_path / "engine"
    process = living(output)
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match=r"no other export to it at work, found \.engine\.[0-9a-f]{12}\.partial"):
        check_output(output, [], force=True)
    assert snapshot(tmp_path) == before
    check_output(tmp_path / "engine2", [], force=True)
    process.send_signal(signal.SIGTERM)
    process.wait()
    check_output(output, [], force=True)
    assert os.listdir(tmp_path) == []


def test_a_previous_package_is_kept_while_there_is_no_other(tmp_path: Path) -> None:
    """Killed between the two renames of a file system that cannot exchange folders."""
    output, previous = tmp_path / "engine", tmp_path / ".engine.0123456789ab.previous"
    write_package(previous)
    check_output(output, [], force=True)
    assert previous.exists()
    write_package(output)
    check_output(output, [], force=True)
    assert not previous.exists()


# No space, no packages

Disk = namedtuple("Disk", "f_blocks f_bavail f_frsize")


def test_too_little_space_is_told_before_any_work(
    run: Any, checkpoints: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (checkpoints("plain") / "model.safetensors").stat().st_size
    monkeypatch.setattr(package.os, "statvfs", lambda path: Disk(1000, 10, 1024))
    status, err = run(checkpoints("plain"), "-o", tmp_path / "e", "--copy")
    assert status == 1 and err.count("\n") == 1 and "trace" not in err
    needed = int(err.split("room for ")[1].split(" bytes")[0].replace(",", ""))
    assert err.startswith(f"error: output {tmp_path / 'e'}: expected room for ") and "10,240 bytes free" in err
    assert size < needed < size + (8 << 20) and os.listdir(tmp_path) == []
    monkeypatch.setattr(package.os, "statvfs", lambda path: Disk(0, 0, 0))  # a file system that does not tell
    package.require_space(tmp_path / "e", 1 << 60)


def test_links_need_no_space_and_conversions_all_of_it(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    from dgrt_export.checkpoint import open_checkpoint
    from dgrt_export.config import parse_config, read_json

    source = models.copy_checkpoint(checkpoints("plain"), tmp_path / "checkpoint")
    tensors = open_checkpoint(source, parse_config(read_json(source / "config.json")))
    size = (source / "model.safetensors").stat().st_size
    linked, converted = weights.plan_weights(tensors, None), weights.plan_weights(tensors, "bf16")
    assert linked.bytes_to_write(tmp_path, copy=False) == 0
    assert linked.bytes_to_write(tmp_path, copy=True) in (0, size)  # 0: reflinks
    assert converted.bytes_to_write(tmp_path, copy=False) == converted.total_bytes < size
    assert sorted(os.listdir(tmp_path)) == ["checkpoint"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_named_and_nothing_stays(
    run: Any, checkpoints: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def write(*args: Any) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(weights.WeightPlan, "write", write)
    status, err = run(checkpoints("plain"), "-o", tmp_path / "e", "--profile", "portable")
    last = err.splitlines()[-1]
    assert status == 1 and f"output {tmp_path / 'e'}: expected room for " in last
    assert f"found {os.strerror(number)} (" in last and last.endswith(" bytes free)") and os.listdir(tmp_path) == []


def test_a_limit_on_file_sizes_is_named(checkpoints: Callable[[str], Path], tmp_path: Path, repository: Path) -> None:
    code = """
import sys, torch
from dgrt.cli import main
torch.set_num_threads(1)
sys.exit(main(["export", *sys.argv[1:]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(checkpoints("plain")), "-o", str(tmp_path / "e"), "--copy"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), str(repository / "export")])},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "expected room for" in last and "found File too large (" in last, done.stderr
    assert os.listdir(tmp_path) == []


def test_all_missing_packages_are_named_before_work(
    run: Any, checkpoints: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "safetensors"):
        monkeypatch.setitem(sys.modules, name, None)
    status, err = run(checkpoints("plain"), "-o", tmp_path / "e")
    assert status == 2 and err.count("\n") == 1 and err.endswith(", found no safetensors, no onnx\n")
    assert os.listdir(tmp_path) == []


def test_copies_say_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes(os.urandom(100_000))
    folder = tmp_path / "package"
    folder.mkdir()
    plan = weights.WeightPlan({}, "fp32", (source,), None)
    seen: list[int] = []
    for copy, possible in ((False, ("linked",)), (True, ("reflinked", "copied"))):
        origin = plan.write(folder, seen.append, copy)
        target = folder / source.name
        assert origin in possible and target.samefile(source) == (not copy)
        assert target.read_bytes() == source.read_bytes() and sum(seen) == 100_000
        target.unlink()
        seen.clear()
    monkeypatch.setattr(weights.fcntl, "ioctl", lambda *args: 0)  # a file system that says it has cloned
    assert plan.write(folder, seen.append, copy=True) == "reflinked" and seen == [100_000]
