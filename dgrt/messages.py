"""Chat: renders messages with the checkpoint's own `chat_template.jinja`, in a sandbox.

The template owns the format (turn markers, roles, bos); this file only gives it what Hugging Face would give it.
`Runtime` calls it for message lists and for plain text prompts.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dgrt.errors import ContractMismatch, InvalidArgument, Unsupported
from dgrt.tokenizer import Tokenizer

TEMPLATE_FILE = "chat_template.jinja"
Message = Mapping[str, Any]


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: The Jinja text.
        tokenizer: Gives the named special tokens (`bos_token`, ...).

    Example:
        >>> chat = ChatTemplate.from_folder(rt.path, rt.info.files, rt.tokenizer)
        >>> chat.render([{"role": "user", "content": "Hi"}])
        '<bos><|turn>user\\nHi<turn|>\\n<|turn>model\\n'
    """

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        try:
            from jinja2.ext import loopcontrols
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            raise Unsupported("chat prompts need the package 'jinja2': pip install jinja2") from None
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_from_template
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source)
        except Exception as error:  # syntax errors of Jinja, but also of the Python code that it makes
            raise ContractMismatch(f"{TEMPLATE_FILE}: {error}") from None
        names = ("bos_token", "eos_token", "unk_token", "pad_token")
        self._tokens = {name: tokenizer.token(name) or "" for name in names}

    @classmethod
    def from_folder(cls, folder: Path, files: Container[str], tokenizer: Tokenizer) -> ChatTemplate | None:
        """Reads the template of an engine package, from its file or its tokenizer config; None if it has none.

        Args:
            folder: The package.
            files: The names that its manifest lists; no other file is opened.
            tokenizer: The tokenizer of the package.

        Raises:
            ContractMismatch: If the template cannot be read.
        """
        if TEMPLATE_FILE in files:
            try:
                return cls((folder / TEMPLATE_FILE).read_text(encoding="utf-8"), tokenizer)
            except (OSError, UnicodeDecodeError) as error:
                raise ContractMismatch(f"cannot read {folder / TEMPLATE_FILE}: {error}") from None
        source = tokenizer.config.get("chat_template")
        if isinstance(source, list):  # several named templates
            named = [one for one in source if isinstance(one, dict) and one.get("name") == "default"]
            source = named[0].get("template") if named else None
        return cls(source, tokenizer) if isinstance(source, str) else None

    def render(self, messages: Sequence[Message]) -> str:
        """Returns the prompt text: the turns, then the opening of the model's turn.

        Args:
            messages: Turns in order, each `{"role": ..., "content": ...}`.

        Raises:
            InvalidArgument: If the messages are malformed, or the template refuses them or fails on them.
        """
        from jinja2 import TemplateError

        turns = [_checked(index, message) for index, message in enumerate(messages)]
        if not turns:
            raise InvalidArgument("messages must hold at least one message")
        try:
            text: str = self._template.render(messages=turns, add_generation_prompt=True, tools=None, **self._tokens)
            return text
        except TemplateError as error:
            raise InvalidArgument(f"the chat template refused the messages: {error}") from None
        except Exception as error:  # a template is a program and can fail like one
            raise InvalidArgument(f"the chat template failed: {type(error).__name__}: {error}") from None


def _checked(index: int, message: Any) -> dict[str, Any]:
    """Returns a copy of one message; content is text, or a list of `{"type": "text", "text": ...}` parts."""
    where = f"messages[{index}]"
    if not isinstance(message, Mapping):
        raise InvalidArgument(f"{where} must be a dict with 'role' and 'content', got {type(message).__name__}")
    for key in ("role", "content"):
        if key not in message:
            raise InvalidArgument(f"{where} has no '{key}'")
    if not isinstance(message["role"], str):
        raise InvalidArgument(f"{where}['role'] must be a string, got {message['role']!r}")
    content = message["content"]
    if isinstance(content, str):
        return dict(message)
    if not isinstance(content, Sequence) or not all(isinstance(part, Mapping) for part in content):
        raise InvalidArgument(f"{where}['content'] must be a string or a list of parts, got {type(content).__name__}")
    for part in content:
        if part.get("type") != "text":
            raise Unsupported(f"{where}['content'] has a part of type {part.get('type')!r}; available: text")
        if not isinstance(part.get("text"), str):
            raise InvalidArgument(f"{where}['content'] has a text part whose 'text' is not a string")
    return {**message, "content": [dict(part) for part in content]}


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_from_template(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)
