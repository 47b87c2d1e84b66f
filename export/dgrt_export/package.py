"""The output folder as a transaction: everything is written beside it and appears by one rename, or not at all.

The manifest is the last file written, so not even a power cut or SIGKILL leaves something that a reader would load. The
hidden folder that is being filled is locked (flock): one without a lock was left by a killed process.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import contract
from .errors import NoSpace, OutputError, mismatch

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_LEFTOVER = r"\.[0-9a-f]{12}\.(partial|previous)"
_STAGING_SUFFIX_BYTES = len("..0123456789ab.previous")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FILE_KINDS = {
    stat.S_IFREG: "a file", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip


@dataclass(frozen=True)
class FolderKind:
    """What tells a folder of ours from any other: `file` is a JSON object with `value` at `key`."""

    name: str
    file: str
    key: str
    value: str
    own_files: Callable[[dict[str, Any]], Iterable[str]]  # from the JSON object, the names of the others


def _listed_files(manifest: dict[str, Any]) -> Iterable[str]:
    files = manifest.get("files")
    return files if isinstance(files, dict) else ()


PACKAGE = FolderKind("a package", contract.MANIFEST_FILE, "format", contract.FORMAT, _listed_files)


def check_output(output: str | Path, sources: Iterable[Path], force: bool, kind: FolderKind = PACKAGE) -> Path:
    """Refuses an output that must not or cannot be written, before any work is done.

    Removes what a killed process left beside it.

    Args:
        output: As the user wrote it.
        sources: What it is made from, absolute.
        force: Whether a folder of this kind may be replaced.
        kind: The kind.

    Returns:
        The folder, links resolved: a symbolic link stays and its target is written.
    """
    output = _resolved(output)
    for source in sources:
        if output == source or output in source.parents or source in output.parents:
            raise OutputError(mismatch(f"output {output}", "a folder apart from its sources", source))
    if not output.name or os.path.ismount(output):
        raise OutputError(mismatch(f"output {output}", "a folder that can be renamed", "a mount point"))
    try:
        _check_place(output)
        found = output.stat() if output.exists() else None
        if found is not None and not stat.S_ISDIR(found.st_mode):
            kind_found = _FILE_KINDS.get(stat.S_IFMT(found.st_mode), "something else")
            raise OutputError(mismatch(f"output {output}", "a folder", kind_found))
        entries = list(output.iterdir()) if found is not None else []
    except OSError as error:
        raise OutputError(mismatch(f"output {output}", "a folder that can be written", error)) from None
    if entries and not force:
        raise OutputError(mismatch(f"output {output}", "a new or empty folder (or --force)", f"{len(entries)} files"))
    if entries:
        _check_replaceable(output, kind)
    _remove_leftovers(output)
    return output


def _resolved(output: str | Path) -> Path:
    if not os.fspath(output):
        raise OutputError(mismatch("output", "the name of a folder", "an empty one"))
    try:
        return Path(output).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL
        raise OutputError(mismatch(f"output {str(output)!r}", "the name of a folder", error)) from None


def existing_parent(output: Path) -> Path:
    """The folder that `output` is in, or the nearest around it that exists."""
    return next(parent for parent in output.parents if parent.exists())


def _check_place(output: Path) -> None:
    longest = os.pathconf(existing_parent(output), "PC_NAME_MAX") - _STAGING_SUFFIX_BYTES
    if (length := len(os.fsencode(output.name))) > longest:
        raise OutputError(mismatch("name of the output", f"at most {longest} bytes", length))
    parent = existing_parent(output)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        found = "no permission" if parent.is_dir() else "a file"
        raise OutputError(mismatch(f"output {output}", f"a folder {parent} to write in", found))


def _check_replaceable(output: Path, kind: FolderKind) -> None:
    """Refuses to replace anything else: a home, a project, a checkpoint may be named by mistake."""
    if inner := next((e for e in output.iterdir() if e.is_dir() and not e.is_symlink()), None):
        raise OutputError(mismatch(f"output {output}", "a folder without sub-folders to replace", inner.name))
    expected = f"{kind.name} to replace ({kind.file} with {kind.key} {kind.value!r})"
    if (output / kind.file).exists() and not (output / kind.file).is_file():
        raise OutputError(mismatch(f"output {output}", expected, f"a {kind.file} that is no file"))
    try:
        content = json.loads((output / kind.file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OutputError(mismatch(f"output {output}", expected, f"no {kind.file}")) from None
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(mismatch(f"output {output}", expected, error)) from None
    found = content.get(kind.key) if isinstance(content, dict) else type(content).__name__
    if found != kind.value:
        raise OutputError(mismatch(f"output {output}", expected, repr(found)))
    own = {kind.file, *kind.own_files(content)}
    if foreign := sorted(entry.name for entry in output.iterdir() if entry.name not in own):
        expected, found = f"{kind.name} and no other files to replace", ", ".join(foreign[:3])
        raise OutputError(mismatch(f"output {output}", expected, f"also {found}: move them away first"))


@contextmanager
def staged(output: Path, force: bool, kind: FolderKind = PACKAGE) -> Iterator[Path]:
    """A folder to fill; becomes `output` when the block ends well, disappears when anything is raised."""
    made = [parent for parent in output.parents if not parent.exists()]
    staging, lock = output, None
    try:
        with _naming_the_place(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            while lock is None:  # a second round only if another export took the folder for a leftover
                staging = output.parent / f".{output.name}.{uuid.uuid4().hex[:12]}.partial"
                staging.mkdir()
                lock = _lock(staging)
        yield staging
        _publish(staging, output, force, kind)
    finally:
        # After a successful exchange this is the previous package; after an error, our own unfinished one.
        if staging != output:
            _remove(staging)
        if lock is not None:
            os.close(lock)
        for parent in made:
            with suppress(OSError):  # not empty: the package is there
                parent.rmdir()


@contextmanager
def _naming_the_place(output: Path) -> Iterator[None]:
    """Some file systems refuse only the attempt: /proc, or one of a network whose server gives fewer rights."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise OutputError(mismatch(f"output {output}", "a folder that can be written", error)) from None


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None if another process has it or has removed the folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # a file system without locks: leftovers stay there, for nobody can lock them either
        return descriptor
    if os.fstat(descriptor).st_nlink == 0:
        os.close(descriptor)
        return None
    return descriptor


def _remove_leftovers(output: Path) -> None:
    """Removes what killed exports to this folder left beside it; refuses to run beside a living one."""
    if not output.parent.exists():
        return
    pattern = re.compile(re.escape(f".{output.name}") + _LEFTOVER)
    for path in [entry for entry in output.parent.iterdir() if pattern.fullmatch(entry.name)]:
        if not path.is_dir() or path.is_symlink() or (path.suffix == ".previous" and not output.exists()):
            continue
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        except BlockingIOError:
            raise OutputError(mismatch(f"output {output}", "no other export to it at work", path.name)) from None
        except OSError:  # a file system without locks: nobody knows whether it is in use
            pass
        finally:
            os.close(descriptor)


def require_space(output: Path, needed: int) -> None:
    """Refuses a disk that has too little room for `needed` bytes; some file systems do not tell."""
    place = os.statvfs(existing_parent(output))
    if place.f_blocks and needed > place.f_bavail * place.f_frsize:
        raise NoSpace(_full_disk(output, needed, "less"))


@contextmanager
def naming_a_full_disk(output: Path, needed: int) -> Iterator[None]:
    """Makes "no space left" within the block an error that says where, how much is needed and how much is free."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise NoSpace(_full_disk(output, needed, error.strerror)) from error


def _full_disk(output: Path, needed: int, found: str) -> str:
    place = os.statvfs(existing_parent(output))
    free = place.f_bavail * place.f_frsize
    return mismatch(f"output {output}", f"room for {needed:,} bytes", f"{found} ({free:,} bytes free)")


def _remove(folder: Path) -> None:
    """Removes a folder to its end, whatever interrupts that; the interrupt is raised afterwards."""
    interrupt = None
    with suppress(OSError):
        folder.chmod(0o700)  # the mode of a package that it replaced may forbid it
    while True:
        try:
            shutil.rmtree(folder, ignore_errors=True)
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


def write_manifest(staging: Path, manifest: dict[str, Any]) -> None:
    """Writes manifest.json, durably, after everything else is on the disk."""
    for path in staging.iterdir():
        _sync(path)
    with (staging / contract.MANIFEST_FILE).open("w", encoding="utf-8") as stream:
        json.dump(manifest, stream, indent=2, ensure_ascii=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    _sync(staging)


def _publish(staging: Path, output: Path, force: bool, kind: FolderKind) -> None:
    if output.exists():
        staging.chmod(stat.S_IMODE(output.stat().st_mode))
    if output.exists() and any(output.iterdir()):
        if not force:  # it was free when the export began
            raise OutputError(mismatch(f"output {output}", "a new or empty folder (or --force)", "a newer package"))
        _check_replaceable(output, kind)  # again: the export took its time
        _exchange(staging, output)
    else:
        os.rename(staging, output)
    _sync(output.parent)


def _exchange(staging: Path, output: Path) -> None:
    """Swaps two folders: in one step where the kernel can, else with a moment in which `output` is missing."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(staging), os.fsencode(output)
    if renameat2 and renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return
    previous = staging.with_suffix(".previous")
    os.rename(output, previous)
    try:
        os.rename(staging, output)
    except BaseException:
        os.rename(previous, output)
        raise
    os.rename(previous, staging)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
