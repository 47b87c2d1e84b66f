"""Files that a user names, written whole or not at all, and never in place of something that is not ours.

The rules are those of `csrc/common/output_file.h`: a device, pipe, socket or folder is refused, a symbolic link stays
one, mode and owner of what is replaced are kept. Used by `dgrt.cli` and by whoever else writes a file for a user.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dgrt.errors import DeviceError, InvalidArgument
from dgrt.info import path_text

PART_PREFIX = ".dgrt-part-"  # also in csrc/common/output_file.cc
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}

StrPath = str | os.PathLike[str]


def check_output(path: StrPath, kind: str, is_ours: Callable[[Path], bool], *, overwrite: bool = False) -> Path:
    """Returns the file that writing `path` makes or replaces: `path` with symbolic links followed.

    Call it before the work whose result is to be written.

    Args:
        path: The file.
        kind: What it is to be, for the message: "trace".
        is_ours: Whether an existing regular file that is not empty is of this kind.
        overwrite: Whether another kind of regular file may be replaced.

    Raises:
        InvalidArgument: If it cannot or must not be written.

    Example:
        >>> check_output("steps.npz", "trace", lambda path: False).name
        'steps.npz'
    """
    name = path_text("path", path)
    shown = f"{kind} '{name}': cannot write"
    if name.endswith("/"):
        raise InvalidArgument(f"{shown}: expected the path of a file, found that of a folder")
    try:
        target = Path(os.path.realpath(name))
        mode = target.stat().st_mode if target.exists() else None
        if not target.parent.is_dir():
            raise InvalidArgument(f"{shown}: no such folder: '{target.parent}'")
        may_write = [os.access(target.parent, os.W_OK | os.X_OK, effective_ids=True)]
        if mode is not None:
            may_write.append(os.access(target, os.W_OK, effective_ids=True))
        if not all(may_write):
            raise InvalidArgument(f"{shown}: permission denied")
        if mode is None and target.is_symlink():
            raise InvalidArgument(f"{shown}: too many symbolic links")
        if mode is not None and not stat.S_ISREG(mode):
            found = _KINDS.get(stat.S_IFMT(mode), "a device")
            raise InvalidArgument(f"{shown}: expected a regular file or none, found {found}")
        if mode is not None and _is_standard_output(target):
            raise InvalidArgument(
                f"{shown}: expected a file of its own, found that of standard output or error: give another path"
            )
        if mode is not None and target.stat().st_size and not overwrite and not is_ours(target):
            raise InvalidArgument(
                f"{shown}: expected such a file, an empty one or none, found another kind of file: give another path,"
                " or allow it to be overwritten"
            )
    except OSError as error:
        raise InvalidArgument(f"{shown}: {error.strerror}") from None
    return target


def _is_standard_output(target: Path) -> bool:
    """What is printed later would go to a file without a name. "/dev/stdout" leads here, too."""
    for descriptor in (1, 2):
        with suppress(OSError):  # closed
            if os.path.samestat(os.fstat(descriptor), target.stat()):
                return True
    return False


@contextmanager
def output_file(
    path: StrPath, kind: str, is_ours: Callable[[Path], bool], *, overwrite: bool = False
) -> Iterator[IO[bytes]]:
    """Opens a part file beside `path` that takes its place when the block ends well, and is gone if it does not.

    Args:
        path: As for `check_output`, as are the others.
        kind: See there.
        is_ours: See there.
        overwrite: See there.

    Raises:
        InvalidArgument: If it cannot or must not be written.
        DeviceError: If there is no room or the disk fails.

    Example:
        >>> with output_file("steps.npz", "trace", lambda path: False) as file:  # doctest: +SKIP
        ...     file.write(b"all of it")
    """
    target = check_output(path, kind, is_ours, overwrite=overwrite)
    remove_leftovers(target.parent)
    try:
        descriptor, part = _open_part(target.parent)
    except OSError as error:
        raise InvalidArgument(f"{kind} '{path}': cannot write: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            _keep_owner_and_mode(descriptor, target)
            yield file
            file.flush()
            os.fsync(descriptor)
            os.replace(part, target)
    except OSError as error:
        written = os.stat(part).st_size if os.path.exists(part) else 0
        room = ""
        if error.errno in _NO_ROOM:
            free = shutil.disk_usage(target.parent).free
            room = f": expected room for more than {written} bytes, found {free} bytes free"
        raise DeviceError(f"{kind} '{path}': writing failed: {error.strerror}{room}") from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)


def remove_leftovers(folder: Path) -> None:
    """Removes the part files in a folder whose process was killed: nobody holds their locks."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.name.startswith(PART_PREFIX) and entry.is_file(follow_symlinks=False):
                with suppress(OSError), open(entry.path, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)


def _open_part(folder: Path) -> tuple[int, str]:
    """Returns a locked file: the lock says that somebody writes."""
    while True:
        descriptor, part = tempfile.mkstemp(prefix=PART_PREFIX, dir=folder)
        with suppress(OSError):  # where there are no locks, nobody removes leftovers either
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor, part
        os.close(descriptor)  # taken for a leftover before the lock was there


def _keep_owner_and_mode(descriptor: int, target: Path) -> None:
    """As the file that is replaced has them, as far as the process may; a new one as the process makes files."""
    if not target.exists():
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(descriptor, 0o666 & ~mask)
        return
    old = target.stat()
    mode = stat.S_IMODE(old.st_mode) & 0o777
    try:
        os.fchown(descriptor, old.st_uid, old.st_gid)
    except OSError:
        try:
            os.fchown(descriptor, -1, old.st_gid)
        except OSError:
            mode &= ~0o070  # another group gets no rights that only the old one had
    os.fchmod(descriptor, mode)
