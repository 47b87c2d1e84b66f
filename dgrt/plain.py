"""What callers give, as plain data and text: messages of SDKs, tools, strings with surrogates.

Options, prompts and chats pass through here, so that a template sees nothing but JSON types, the tokenizer nothing but
text, and what cannot be right is refused with its place. Rules for messages are those of transformers.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from dgrt.errors import InvalidArgument, Unsupported

MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1
_MAX_ITEMS = 2**24  # of one sequence: more than any context, and an end for iterators that have none
_MAX_FLOAT32 = float.fromhex("0x1.fffffep+127")  # what native options can hold
# Names of one thing. Templates read different ones, so each gets what any of them holds.
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
_LONE_SURROGATE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")
_MEDIA = {"image": "images are", "audio": "sound is", "video": "video is"}


class NoData(str):
    """Stands for a value that is no data: the name of its type in angle brackets. It is never text of a message."""


def plain_text(where: str, value: Any) -> str:
    """Returns a string that is text: surrogate pairs are joined, as JSON decoders may leave them apart.

    Args:
        where: What to call it in an error.
        value: What should be a string.

    Raises:
        InvalidArgument: If it is none, or holds half of a pair, which is no character.

    Example:
        >>> plain_text("prompt", "\\ud83c\\udf78") == "\\U0001f378"
        True
    """
    if not isinstance(value, str):
        raise InvalidArgument(f"{where} must be a string, got {named(value)}")
    text = str.__str__(value)  # without what a subclass may add
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        pass
    lone = _LONE_SURROGATE.search(text)
    if lone is not None:
        raise InvalidArgument(
            f"{where} has half of a surrogate pair (U+{ord(lone[0]):04X}) at position {lone.start()}, which is no"
            " character; give text that was decoded whole"
        )
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def plain_data(where: str, value: Any) -> Any:
    """Returns a copy of JSON types only: mappings, lists, dataclasses, pydantic models, numpy scalars become such.

    Anything else becomes the name of its type in angle brackets, as transformers does: a template has no use for it.

    Raises:
        InvalidArgument: If a string is no text, or the value cannot be read.

    Example:
        >>> plain_data("tools", [{"name": "f", "strict": True}])
        [{'name': 'f', 'strict': True}]
    """
    try:
        return _plain(where, value)
    except InvalidArgument:
        raise
    except Exception as error:  # a mapping or model of the caller's, or data that holds itself
        raise InvalidArgument(f"{where} cannot be read as plain data: {type(error).__name__}: {error}") from None


def plain_messages(messages: Any) -> list[dict[str, Any]]:
    """Returns the turns of a conversation as plain dicts, keys without a value left out.

    Args:
        messages: A sequence of mappings, dataclasses or pydantic models with "role" and "content".

    Raises:
        InvalidArgument: If it is no conversation, with the place.
        Unsupported: If a turn holds images, sound or video.

    Example:
        >>> plain_messages([{"role": "user", "content": "Hi", "name": None}])
        [{'role': 'user', 'content': 'Hi'}]
    """
    if isinstance(messages, (str, bytes, bytearray, Mapping)) or not isinstance(messages, Iterable):
        raise InvalidArgument(f"messages must be a list of messages, got {named(messages)}")
    items = plain_items("messages", messages)
    return [plain_message(f"messages[{index}]", message) for index, message in enumerate(items)]


def plain_message(where: str, message: Any) -> dict[str, Any]:
    """Returns one turn as `plain_messages` does.

    Example:
        >>> plain_message("message", {"role": "user", "content": "Hi"})["role"]
        'user'
    """
    if not is_message(message):
        raise InvalidArgument(
            f"{where} must be a dict, dataclass or pydantic model with 'role' and 'content', got {named(message)}"
        )
    turn = {key: value for key, value in plain_data(where, message).items() if value is not None}
    if "role" not in turn:
        found = ", ".join(named(key) for key in list(turn)[:8]) or "nothing"
        raise InvalidArgument(f"{where} has no 'role', found {found}")
    if not _is_text(turn["role"]):
        raise InvalidArgument(f"{where}['role'] must be a string, got {named(turn['role'])}")
    if "content" in turn:
        _check_content(where, turn)
    elif not turn.keys() - {"role", "name"}:
        raise InvalidArgument(f"{where} has no 'content', and nothing in its place such as 'tool_calls'")
    return turn


def is_message(value: Any) -> bool:
    """Returns whether a value could be a turn of a conversation, by its type.

    Example:
        >>> is_message({}), is_message("Hi")
        (True, False)
    """
    if isinstance(value, type):
        return False
    return isinstance(value, Mapping) or dataclasses.is_dataclass(value) or _dump_of(value) is not None


def named(value: Any) -> str:
    """Returns a value for an error: numbers, None and short strings as they are, else the type.

    Example:
        >>> named("yes"), named([1])
        ("'yes'", 'list')
    """
    if value is None or type(value) in (bool, int, float, str):
        try:
            text = repr(value)
        except ValueError:  # an integer of thousands of digits
            return type(value).__name__
        return text if len(text) <= 60 else f"{text[:57]}..."
    return value[1:-1] if isinstance(value, NoData) else type(value).__name__


def checked_integer(name: str, value: Any, low: int, high: int) -> int:
    """Returns `value` as a plain int; numpy integers are fine, bools and floats are not.

    Raises:
        InvalidArgument: If it is no integer or outside low .. high.

    Example:
        >>> checked_integer("seed", 7, 0, 9)
        7
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except Exception:  # an object of the caller's may raise anything
        raise InvalidArgument(f"{name} must be an integer, got {named(value)}") from None
    if not low <= number <= high:
        bounds = f"at least {low}" if number < low and high in (MAX_INT32, MAX_INT64) else f"between {low} and {high}"
        raise InvalidArgument(f"{name} must be {bounds}, got {named(number)}")
    return number


def checked_number(name: str, value: Any) -> float:
    """Returns `value` as a finite float; numpy numbers are fine, bools and strings are not.

    Raises:
        InvalidArgument: If it is no such number.

    Example:
        >>> checked_number("t_min", 1)
        1.0
    """
    try:
        if isinstance(value, (bool, str, bytes, bytearray)) or type(value).__name__ in ("bool_", "bool"):
            raise TypeError
        number = float(value)
    except Exception:
        raise InvalidArgument(f"{name} must be a number, got {named(value)}") from None
    if not math.isfinite(number):
        raise InvalidArgument(f"{name} must be a finite number, got {number}")
    if abs(number) > _MAX_FLOAT32:
        raise InvalidArgument(f"{name} must be at most {_MAX_FLOAT32:g}, got {number:g}")
    return number


def checked_flag(name: str, value: Any) -> bool:
    """Returns `value` as a plain bool; numpy's are fine, other values that count as true or false are not.

    Example:
        >>> checked_flag("raw", True)
        True
    """
    if isinstance(value, bool):
        return value
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.bool_):
        return bool(value)
    raise InvalidArgument(f"{name} must be True or False, got {named(value)}")


def checked_ids(name: str, values: Any) -> tuple[int, ...]:
    """Returns token ids as plain integers; what the engine's vocabulary holds is checked elsewhere.

    Example:
        >>> checked_ids("stop_ids", [1, 106])
        (1, 106)
    """
    if isinstance(values, (str, bytes, bytearray, Mapping)) or not isinstance(values, Iterable):
        raise InvalidArgument(f"{name} must be a sequence of token ids, got {named(values)}")
    items = plain_items(name, values)
    return tuple(checked_integer(f"{name}[{index}]", value, 0, MAX_INT32) for index, value in enumerate(items))


def plain_items(name: str, values: Any) -> list[Any]:
    """Returns the items of a sequence of the caller's, whose methods may raise anything.

    Example:
        >>> plain_items("stop_ids", range(3))
        [0, 1, 2]
    """
    try:
        items = list(islice(values, _MAX_ITEMS + 1))
    except Exception as error:
        raise InvalidArgument(f"{name} cannot be read: {type(error).__name__}: {error}") from None
    if len(items) > _MAX_ITEMS:
        raise InvalidArgument(f"{name}: expected at most {_MAX_ITEMS} items, found more")
    return items


def has(value: Any, name: str) -> bool:
    """Returns whether an object has an attribute; one that raises has none.

    Example:
        >>> has("", "upper")
        True
    """
    try:
        return hasattr(value, name)
    except Exception:
        return False


def _plain(where: str, value: Any) -> Any:
    if value is None or type(value) in (int, float, bool):
        return value
    if isinstance(value, str):
        return value if isinstance(value, NoData) else plain_text(where, value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {_plain(f"a key of {where}", key): _plain(f"{where}[{named(key)}]", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(f"{where}[{index}]", item) for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return _plain(where, value.item())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _plain(where, fields)
    dump = _dump_of(value)
    return NoData(f"<{type(value).__name__}>") if dump is None else _plain(where, dump())


def _dump_of(value: Any) -> Callable[[], Any] | None:
    """The method of a pydantic model, of version 2 or 1, that returns its fields; None of anything else."""
    if isinstance(value, type):
        return None
    name = "model_dump" if has(value, "model_dump") else "dict" if has(value, "__fields__") else ""
    dump = getattr(value, name) if name and has(value, name) else None
    return dump if callable(dump) else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, NoData)


def _check_content(where: str, turn: dict[str, Any]) -> None:
    content = turn["content"]
    if _is_text(content) or (isinstance(content, dict) and turn["role"] == "tool"):
        return
    if not isinstance(content, (list, tuple)):
        raise InvalidArgument(f"{where}['content'] must be a string or a list of parts, got {named(content)}")
    for index, part in enumerate(content):
        if not isinstance(part, dict):
            expected = "expected a part such as {'type': 'text', 'text': ...}"
            raise InvalidArgument(f"{where}['content'][{index}]: {expected}, got {named(part)}")
        kind = part.get("type")
        for medium, they_are in _MEDIA.items():
            if isinstance(kind, str) and medium in kind:
                found = f"found a part of type {named(kind)}"
                raise Unsupported(f"{where}['content'][{index}]: {they_are} not supported by this engine, {found}")
        if kind != "text":
            raise InvalidArgument(f"{where}['content'][{index}]: expected a part of type 'text', got {named(kind)}")
        if not _is_text(part.get("text")):
            raise InvalidArgument(f"{where}['content'][{index}] is a text part whose 'text' is not a string")
