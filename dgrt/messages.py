"""Chat: renders messages with the checkpoint's own chat template, in a sandbox, to the text that transformers makes.

The template owns the format (turn markers, roles, bos); this file only gives it what transformers would give it.
`PromptEncoder` calls it for message lists and for plain text prompts, `Chat` for its turns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgrt.errors import ContractMismatch, InvalidArgument, Unsupported
from dgrt.plain import REASONING_KEYS, plain_messages, plain_text
from dgrt.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jinja2 import Environment, Template

TEMPLATE_FILE = "chat_template.jinja"
TOOL_TEMPLATE_FILE = "chat_template.tool_use.jinja"  # of checkpoints that have another template for tools
RESERVED_NAMES = ("messages", "tools", "add_generation_prompt")  # template variables with an option of their own
Message = Mapping[str, Any]
# Goes where the last message ends, and is cut off with all behind it. The space tells whether the template strips text.
_END_MARK = "DGRT_END_OF_MESSAGE_TO_GO_ "  # as long as that of transformers: templates may measure a message


@dataclass(frozen=True, kw_only=True)
class TemplateInput:
    """What a chat template gets beside the messages, as plain data.

    Attributes:
        tools: Schemas of the tools that the model may call; None: no tools.
        continued: Key of the last message that the model goes on with, such as "content"; None: a new turn is opened.
        variables: More variables, by name; they win over the named special tokens.
    """

    tools: Sequence[Mapping[str, Any]] | None = None
    continued: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self != TemplateInput()


class ChatTemplate:
    """A chat template; compiled when it is first used, so that an engine whose template is broken serves token ids.

    Args:
        source: The Jinja text.
        tokenizer: Gives the named special tokens (`bos_token`, ...).
        tool_source: The Jinja text for conversations with tools; None: the same.

    Example:
        >>> chat = ChatTemplate.from_folder(rt.path, rt.info.files, rt.tokenizer)
        >>> chat.render([{"role": "user", "content": "Hi"}])
        '<bos><|turn>user\\nHi<turn|>\\n<|turn>model\\n'
    """

    def __init__(self, source: str, tokenizer: Tokenizer, tool_source: str | None = None) -> None:
        self._source = source
        self._tool_source = source if tool_source is None else tool_source
        self._tokens = tokenizer.named_tokens()
        self._compiled: dict[str, Template] = {}

    @classmethod
    def from_folder(
        cls, folder: Path, files: Container[str], tokenizer: Tokenizer, read: Callable[[str], bytes] | None = None
    ) -> ChatTemplate | None:
        """Reads the template of an engine package, from its file or its tokenizer config; None if it has none.

        Args:
            folder: The package.
            files: The names that its manifest lists; no other file is opened.
            tokenizer: The tokenizer of the package.
            read: Returns the content of a file. None: from the folder.

        Raises:
            ContractMismatch: If a template file cannot be read.
        """
        if TEMPLATE_FILE in files:
            text = partial(_text, read or (lambda name: (folder / name).read_bytes()), folder)
            tools = text(TOOL_TEMPLATE_FILE) if TOOL_TEMPLATE_FILE in files else None
            return cls(text(TEMPLATE_FILE), tokenizer, tools)
        source = tokenizer.config.get("chat_template")
        if isinstance(source, list):  # several named templates
            named = [one for one in source if isinstance(one, dict) and one.get("name") == "default"]
            source = named[0].get("template") if named else None
        return cls(source, tokenizer) if isinstance(source, str) else None

    def render(self, messages: Sequence[Message], given: TemplateInput | None = None) -> str:
        """Returns the prompt text: the turns, then the opening of the model's turn.

        A last message of the assistant is a turn like others: a new one is opened behind it, unless it is continued.

        Args:
            messages: Turns in order: mappings, dataclasses or pydantic models with "role" and "content".
            given: What else the template gets.

        Raises:
            InvalidArgument: If the messages are malformed, or the template refuses them or fails on them.
            Unsupported: If the template cannot be compiled, or a message holds images, sound or video.
        """
        given = given or TemplateInput()
        turns = [_with_reasoning(turn) for turn in plain_messages(messages)]
        if not turns:
            raise InvalidArgument("messages must hold at least one message")
        source = self._source if given.tools is None else self._tool_source
        template = self._template(source)
        from jinja2 import TemplateError

        end = None if given.continued is None else _mark_end(turns[-1], given.continued, source)
        variables = {
            "documents": None, **self._tokens, **given.variables, "messages": turns, "tools": given.tools,
            "add_generation_prompt": end is None,
        }  # fmt: skip
        try:
            text = template.render(variables)
        except TemplateError as error:
            raise InvalidArgument(f"the chat template refused the messages: {error}") from None
        except Exception as error:  # a template is a program and can fail like one
            raise InvalidArgument(f"the chat template failed: {type(error).__name__}: {error}") from None
        return plain_text("what the chat template made", text if end is None else _cut(text, end))

    def _template(self, source: str) -> Template:
        if source not in self._compiled:
            try:
                self._compiled[source] = _environment().from_string(source)
            except Unsupported:
                raise
            except Exception as error:  # syntax errors of Jinja, but also of the Python code that it makes
                reason = " ".join(str(error).split())
                raise Unsupported(
                    f"the chat template of this engine cannot be compiled: {reason}; give token ids, or text with"
                    " raw=True"
                ) from None
        return self._compiled[source]


def _text(read: Callable[[str], bytes], folder: Path, name: str) -> str:
    try:
        return TextIOWrapper(BytesIO(read(name)), "utf-8").read()
    except (OSError, UnicodeDecodeError) as error:
        raise ContractMismatch(f"cannot read {folder / name}: {error}") from None


def _with_reasoning(turn: dict[str, Any]) -> dict[str, Any]:
    """Returns a turn in which both names that templates read for its thoughts hold them."""
    thoughts = [turn[key] for key in REASONING_KEYS if key in turn]
    return {"thinking": thoughts[0], **turn, "reasoning_content": thoughts[0]} if thoughts else turn


def _mark_end(turn: dict[str, Any], key: str, source: str) -> str:
    """Puts the mark at the end of what the model shall go on with, and returns that text."""
    content = turn.get(key)
    if content is None:
        raise InvalidArgument(f"continue_final_message: the last message has no '{key}' to continue")
    names = [name for name in REASONING_KEYS if turn.get(name) == content] if key in REASONING_KEYS else [key]
    if not any(name in source for name in names):
        raise InvalidArgument(f"continue_final_message: the chat template of this engine does not use '{key}'")
    if isinstance(content, str):
        turn.update(dict.fromkeys(names, content + _END_MARK))
        return content
    parts = [part for part in content if "text" in part] if isinstance(content, (list, tuple)) else []
    if not parts:
        raise InvalidArgument(f"continue_final_message: '{key}' of the last message has no text to continue")
    end: str = parts[-1]["text"]
    parts[-1]["text"] = end + _END_MARK
    return end


def _cut(text: str, end: str) -> str:
    """Returns the rendered text up to where `end` ends."""
    at = text.rfind(_END_MARK.strip())
    if at < 0 or end.strip() not in text or _END_MARK[:8] in text[:at]:
        raise InvalidArgument(
            "continue_final_message: the chat template leaves out, changes or repeats the end of the last message, so"
            " it cannot be continued"
        )
    before = text[:at]
    return before if text.startswith(_END_MARK, at) else before.rstrip()


@cache
def _environment() -> Environment:
    """Returns the environment that transformers gives to templates: the same filters, globals and limits."""
    try:
        from jinja2 import nodes
        from jinja2.exceptions import SecurityError, TemplateError
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
        from jinja2.utils import Namespace
    except ImportError as error:
        raise Unsupported(f"chat prompts need the package 'jinja2' ({error}): pip install jinja2") from None

    class Generation(Extension):
        """`{% generation %} ... {% endgeneration %}` marks what a trainer learns from; here it is its body."""

        tags = frozenset({"generation"})  # type: ignore[assignment]

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("body"), [], [], body).set_lineno(line)

        def body(self, caller: Any) -> Any:
            return caller()

    class SafeNamespace(Namespace):
        """A namespace without names that begin with an underscore: these reach into Python."""

        def __init__(*args: Any, **names: Any) -> None:  # `self` may be a name, too
            this, values = args[0], dict(*args[1:], **names)
            Namespace.__init__(this, {_allowed(name): value for name, value in values.items()})

        def __setitem__(self, name: str, value: Any) -> None:
            super().__setitem__(_allowed(name), value)

    def _allowed(name: Any) -> Any:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace takes no name that begins with an underscore, got '{name}'")
        return name

    def refuse(message: Any) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": _Dict(),
        "namespace": SafeNamespace,
    }
    return environment


class _Dict:
    """`dict` for templates: made by a call, without the attributes of the class."""

    def __call__(self, *values: Any, **names: Any) -> dict[Any, Any]:
        return dict(*values, **names)

    def fromkeys(self, *values: Any) -> dict[Any, Any]:
        return dict.fromkeys(*values)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """The filter `tojson` of transformers: as `json.dumps`, without Jinja's escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
