"""The prompts to distil from: a file of JSON lines.

A line is an object with one of `prompt` (text, a user turn), `messages` (a list of role and content) or `tokens` (ids),
and, if wanted, `task`, a name that the report groups by.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DistillError

_KINDS = ("prompt", "messages", "tokens")


@dataclass(frozen=True)
class PromptLine:
    """One prompt as `dgrt.Runtime.encode` takes it."""

    content: Any
    task: str


def read_prompts(path: Path) -> list[PromptLine]:
    """The prompts of a file, in its order.

    Raises:
        DistillError: the file cannot be read, is empty, or a line is not what the module says; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DistillError(f"{path}: expected a file of JSON lines, found {error}") from None
    prompts = [_parse(f"{path} line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise DistillError(f"{path}: expected at least one prompt, found none")
    return prompts


def _parse(where: str, line: str) -> PromptLine:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DistillError(f"{where}: expected a JSON object, found {error}") from None
    kinds = [kind for kind in _KINDS if isinstance(found, dict) and kind in found]
    if len(kinds) != 1:
        raise DistillError(f"{where}: expected an object with one of {', '.join(_KINDS)}, found {line[:80]}")
    content, task = found[kinds[0]], found.get("task", "all")
    if not isinstance(content, str if kinds[0] == "prompt" else list) or not content:
        raise DistillError(f"{where}: expected {kinds[0]} with content, found {str(content)[:80]!r}")
    if not isinstance(task, str):
        raise DistillError(f"{where}: expected a name as task, found {task!r}")
    return PromptLine(content, task)
