"""The output folder as a transaction: everything is written beside it and appears by one rename, or not at all.

The manifest is the last file written, so not even a power cut or SIGKILL leaves something that a reader would load.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import contract
from .errors import OutputError, mismatch

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@dataclass(frozen=True)
class FolderKind:
    """What tells a folder of ours from any other: `file` is a JSON object with `value` at `key`."""

    name: str
    file: str
    key: str
    value: str


PACKAGE = FolderKind("a package", contract.MANIFEST_FILE, "format", contract.FORMAT)


def check_output(output: Path, sources: Iterable[Path], force: bool, kind: FolderKind = PACKAGE) -> None:
    """Refuses an output that must not be written, before any work is done; `sources` are what it is made from."""
    for source in sources:
        if output == source or output in source.parents or source in output.parents:
            raise OutputError(mismatch(f"output {output}", "a folder apart from its sources", source))
    if not output.exists():
        return
    if not output.is_dir():
        raise OutputError(mismatch(f"output {output}", "a folder", "a file"))
    entries = list(output.iterdir())
    if entries and not force:
        raise OutputError(mismatch(f"output {output}", "a new or empty folder (or --force)", f"{len(entries)} files"))
    if entries:
        _check_replaceable(output, kind)


def _check_replaceable(output: Path, kind: FolderKind) -> None:
    """Refuses to replace anything else: a home, a project, a checkpoint may be named by mistake."""
    if inner := next((e for e in output.iterdir() if e.is_dir() and not e.is_symlink()), None):
        raise OutputError(mismatch(f"output {output}", "a folder without sub-folders to replace", inner.name))
    expected = f"{kind.name} to replace ({kind.file} with {kind.key} {kind.value!r})"
    try:
        content = json.loads((output / kind.file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OutputError(mismatch(f"output {output}", expected, f"no {kind.file}")) from None
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(mismatch(f"output {output}", expected, error)) from None
    found = content.get(kind.key) if isinstance(content, dict) else type(content).__name__
    if found != kind.value:
        raise OutputError(mismatch(f"output {output}", expected, repr(found)))


@contextmanager
def staged(output: Path, force: bool, kind: FolderKind = PACKAGE) -> Iterator[Path]:
    """A folder to fill; becomes `output` when the block ends well, disappears when anything is raised."""
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = output.parent / f".{output.name}.{uuid.uuid4().hex[:12]}.partial"
    try:
        staging.mkdir()
        yield staging
        _publish(staging, output, force, kind)
    finally:
        # After a successful exchange this is the previous package; after an error, our own unfinished one.
        _remove(staging)


def _remove(folder: Path) -> None:
    """Removes a folder to its end, whatever interrupts that; the interrupt is raised afterwards."""
    interrupt = None
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
