"""What can go wrong in an export, as exception classes. The command line prints their text as one line.

Every message says what was expected and what was found. Nothing here imports anything.
"""

from __future__ import annotations


class ExportError(Exception):
    """Base of everything the exporter raises on purpose."""


class InvalidCheckpoint(ExportError):
    """The checkpoint is damaged, incomplete, or not a checkpoint."""


class Unsupported(ExportError):
    """The checkpoint is sound, but asks for something the exporter does not do."""


class OutputError(ExportError):
    """The output folder cannot be written or must not be replaced."""


class NoSpace(OutputError):
    """The disk, a quota or a limit has no room for the output."""


class ParityError(ExportError):
    """The exported graphs do not compute what the reference computes."""


def mismatch(what: str, expected: object, found: object, remedy: str = "") -> str:
    """The one wording of every mismatch: `what: expected X, found Y; remedy`. One line, whatever a path may hold."""
    text = f"{what}: expected {expected}, found {found}" + (f"; {remedy}" if remedy else "")
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def quote(value: object, limit: int = 200) -> str:
    """What a file says, as one short line: types can be told apart, line feeds and control characters are escaped."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def plain(name: str, limit: int = 200) -> str:
    """A name from a file as it is, if it is one: short and printable. Else as `quote` shows it."""
    return name if name and name.isprintable() and len(name) <= limit else quote(name, limit)
