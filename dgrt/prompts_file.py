"""A file of prompts, as `dgrt bench` and `dgrt distill` read it: JSON lines, or plain text with a prompt per line.

A JSON line is an object with one of `prompt` (text, a user turn), `messages` (a list of role and content) or `tokens`
(ids), and, if wanted, `task`, a name that reports group by. A file with one such line, or of nothing but JSON, has to
have no others. A byte order mark at its begin is no part of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgrt.errors import InvalidArgument

_KINDS = ("prompt", "messages", "tokens")


@dataclass(frozen=True)
class PromptLine:
    """One prompt as `Runtime.encode` takes it.

    Attributes:
        content: Text, messages or token ids.
        task: A name that reports group by.
        where: What to call it in an error: file and line.
    """

    content: Any
    task: str = "all"
    where: str = field(default="", compare=False)


def read_prompts(path: Path, *, plain: bool = False) -> list[PromptLine]:
    """Returns the prompts of a file, in its order.

    Args:
        path: The file.
        plain: Whether a file that is not JSON is taken as plain text, each line a prompt.

    Raises:
        InvalidArgument: If the file cannot be read, has no prompts, or a line is not what it should be; names the line.

    Example:
        >>> _ = Path("prompts.jsonl").write_text('{"prompt": "json\\\\nname=Ana"}')
        >>> read_prompts(Path("prompts.jsonl"))[0].content
        'json\\nname=Ana'
    """
    kind = "a file of prompts" if plain else "a file of JSON lines"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path}: expected {kind}, found {error}") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise InvalidArgument(f"{path}: expected at least one prompt, found none")
    if plain and not _is_json(text, [line for _, line in lines]):
        return [PromptLine(line.rstrip("\r"), where=f"{path} line {number}") for number, line in lines]
    return [_parse(f"{path} line {number}", line) for number, line in lines]


def _is_json(text: str, lines: list[str]) -> bool:
    """Whether a file is meant as JSON: a line of ours, nothing but objects and lists, or one of them over many lines.

    So a file of another form, such as one object per line with other keys, is never measured as if it were prose.
    """
    found = [_container(line) for line in lines]
    ours = any(isinstance(one, dict) and any(kind in one for kind in _KINDS) for one in found)
    return ours or None not in found or _container(text) is not None


def _container(text: str) -> dict[str, Any] | list[Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, (dict, list)) else None


def _parse(where: str, line: str) -> PromptLine:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{where}: expected a JSON object, as in other lines, found {error}") from None
    kinds = [kind for kind in _KINDS if isinstance(found, dict) and kind in found]
    if len(kinds) != 1:
        raise InvalidArgument(f"{where}: expected an object with one of {', '.join(_KINDS)}, found {line[:80]}")
    content, task = found[kinds[0]], found.get("task", "all")
    if not isinstance(content, str if kinds[0] == "prompt" else list) or not content:
        raise InvalidArgument(f"{where}: expected {kinds[0]} with content, found {str(content)[:80]!r}")
    if not isinstance(task, str):
        raise InvalidArgument(f"{where}: expected a name as task, found {task!r}")
    return PromptLine(content, task, where)
