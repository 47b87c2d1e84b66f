"""Whatever a Python caller passes: a result, or a DgrtError that says in one line what was found. Nothing foreign."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import enum
import inspect
import itertools
import pickle
import threading
import time
from collections import UserDict, UserString, deque
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cases import LONG_OPTIONS, PROCESS_TIMEOUT_S

import dgrt
import dgrt.plain

QUICK: dict[str, Any] = {"max_new_tokens": 1, "max_denoising_steps": 1}


class Raising:
    """An object all of whose protocols raise what no caller expects."""

    def _raise(self, *arguments: Any) -> Any:
        raise RuntimeError("raised by the caller's object")

    __index__ = __float__ = __int__ = __len__ = __iter__ = __getitem__ = __fspath__ = __bool__ = __eq__ = _raise
    __hash__ = None  # type: ignore[assignment]


class RaisingMapping(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("raised by the caller's mapping")

    def __iter__(self) -> Any:
        return iter(["role", "content"])

    def __len__(self) -> int:
        return 2


class RaisingModel:
    def model_dump(self) -> Any:
        raise RuntimeError("raised by the caller's model")


class Colour(enum.Enum):
    RED = "red"


class Endless(list):  # type: ignore[type-arg]
    def __repr__(self) -> str:
        raise RuntimeError("raised by the caller's repr")


ITSELF: list[Any] = []
ITSELF.append(ITSELF)
DEEP: list[Any] = []
for _ in range(5000):
    DEEP = [DEEP]

# Made anew for each call: some can be used once.
VALUES: list[Callable[[], Any]] = [lambda value=value: value for value in (
    None, True, np.True_, 0, 1, -1, 2**31, 2**63, 2**64, -(2**70), 10**5000, 1.0, -0.5, float("nan"), float("inf"),
    1e39,
    1e308, "", "x", "\ud800", "a\udfffb", "\ud83c\udf78", "a\0b", "None", b"x", bytearray(b"x"), memoryview(b"x"),
    [], [None], [[1]], ["x"], [1, "x"], [2**40], (), (1, 2), {}, {"role": "user"}, {1: 2},
    {"role": "user", "content": 1},
    {1, 2}, frozenset(), object(), object, len, Ellipsis, NotImplemented, np.int64(3), np.uint64(2**64 - 1),
    np.float32(0.5), np.float64("nan"), np.str_("x"), np.array(3), np.array([1.0]), np.zeros((2, 2), int),
    np.array([object()]), np.array(["x"]), np.array([], np.int32), np.array([2], ">i8"), range(3), range(10**12),
    Path("x"), Decimal("1.5"), Fraction(1, 2), 1j, date(2026, 1, 1), Colour.RED, Colour, deque([1]),
    MappingProxyType({"a": 1}), SimpleNamespace(role="user", content="x"), Raising(), [Raising()], RaisingMapping(),
    [RaisingMapping()], RaisingModel(), [RaisingModel()], Endless([1]), ITSELF, [{"role": "user", "content": ITSELF}],
    DEEP,
    [{"role": "user", "content": "x", "more": DEEP}], [{"role": "user", "content": "x", 3: {4: Raising()}}],
)] + [lambda: iter([1]), lambda: (i for i in [1]), lambda: map(str, [1])]  # fmt: skip


def check(call: Callable[[], Any], what: str) -> bool:
    """Runs a call that may refuse. Returns whether it did."""
    try:
        call()
    except dgrt.DgrtError as error:
        text = str(error)
        assert text and "\n" not in text and len(text) < 1200, (what, text)
        assert "incompatible" not in text and not isinstance(error, dgrt.InternalError), (what, text)
        return True
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error
    return False


def check_all(calls: dict[str, Callable[[Any], Any]]) -> None:
    refused = cases = 0
    for name, call in calls.items():
        for number, make in enumerate(VALUES):
            cases += 1
            refused += check(lambda call=call, make=make: call(make()), f"{name}, value {number}")  # type: ignore[misc]
    assert cases >= 200 and refused > cases // 2


def test_options_take_any_value_or_refuse_it() -> None:
    calls: dict[str, Callable[[Any], Any]] = {}
    for cls in (dgrt.GenerateOptions, dgrt.VerifyOptions):
        for field in dataclasses.fields(cls):
            calls[f"{cls.__name__}.{field.name}"] = lambda value, cls=cls, name=field.name: cls(**{name: value})
    calls["draft"] = lambda value: dgrt.GenerateOptions(guarantee="verified", draft=value)
    calls["temperature"] = lambda value: dgrt.GenerateOptions(guarantee="causal", temperature=value)
    check_all(calls)


def test_prompts_take_any_value_or_refuse_it(plain: dgrt.Runtime) -> None:
    shapes: dict[str, Callable[[Any], Any]] = {
        "prompt": lambda value: value,
        "list": lambda value: [value],
        "ids and": lambda value: [2, value],
        "message and": lambda value: [{"role": "user", "content": "x"}, value],
        "role": lambda value: [{"role": value, "content": "x"}],
        "content": lambda value: [{"role": "user", "content": value}],
        "part": lambda value: [{"role": "user", "content": [value]}],
        "text": lambda value: [{"role": "user", "content": [{"type": "text", "text": value}]}],
        "type": lambda value: [{"role": "user", "content": [{"type": value, "text": "x"}]}],
        "calls": lambda value: [{"role": "assistant", "tool_calls": value}],
    }
    calls: dict[str, Callable[[Any], Any]] = {
        name: lambda value, shape=shape: plain.encode(shape(value)) for name, shape in shapes.items()
    }
    calls["options"] = lambda value: plain.encode("x", value)
    check_all(calls)


def test_every_method_that_takes_a_prompt_takes_any_value_or_refuses_it(plain: dgrt.Runtime) -> None:
    async def stream(value: Any) -> None:
        async for _ in plain.stream_async(value, **QUICK):
            pass

    check_all({
        "generate": lambda value: plain.generate(value, **QUICK),
        "stream": lambda value: list(plain.stream(value, **QUICK)),
        "drafts": lambda value: plain.stream([2], drafts=value, **QUICK),
        "submit": lambda value: plain.submit(value, **QUICK).result(timeout=PROCESS_TIMEOUT_S),
        "generate_async": lambda value: asyncio.run(plain.generate_async(value, **QUICK)),  # type: ignore[arg-type]
        "stream_async": lambda value: asyncio.run(stream(value)),
        "options": lambda value: plain.generate([2], value, **QUICK),
    })  # fmt: skip


def test_chats_take_any_value_or_refuse_it(plain: dgrt.Runtime) -> None:
    chat = plain.chat(**QUICK)
    tokenizer = plain.tokenizer
    assert tokenizer is not None
    check_all({
        "send": chat.send, "stream": chat.stream,
        "drafts": lambda value: chat.stream("x", drafts=value),
        "system": lambda value: plain.chat(system=value),
        "messages": lambda value: plain.chat(messages=value),
        "options": lambda value: plain.chat(value),
        "tokenizer.encode": tokenizer.encode, "tokenizer.decode": tokenizer.decode,
        "EngineInfo.from_json": dgrt.EngineInfo.from_json,
    })  # fmt: skip
    assert all(isinstance(message["content"], str) for message in chat.messages)


def test_runtimes_open_with_any_value_or_refuse_it(plain_engine: Path) -> None:
    names = [name for name, one in inspect.signature(dgrt.Runtime).parameters.items() if one.kind is one.KEYWORD_ONLY]
    calls: dict[str, Callable[[Any], Any]] = {
        name: lambda value, name=name: dgrt.Runtime(plain_engine, **{name: value}).close()
        for name in names
    }
    calls["path"] = dgrt.Runtime
    check_all(calls)


def test_a_number_that_is_none_is_named(plain: dgrt.Runtime) -> None:
    for name in ("seed", "request"):
        with pytest.raises(dgrt.InvalidArgument, match=f"{name} must be an integer, got None"):
            plain.generate([2], **{name: None}, **QUICK)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "path is empty"),
        ("google/diffusiongemma-26B", "looks like the name of a model on a hub: .* 'dgrt export'"),
        ("no/such/engine/here", "no such folder$"),
        (None, "path must be a string or a path, got NoneType"),
        (b"engine", "got bytes"),
        ("a\0b", "NUL character at position 1"),
        ("a" * 5000, "File name too long$"),
        ("a\nb", r"no engine at 'a\\nb': no such folder$"),
        ("https://host/engine", "no engine at 'https://host/engine'"),
    ],
)
def test_a_path_that_is_no_engine_says_what_it_is(path: Any, says: str) -> None:
    with pytest.raises(dgrt.InvalidArgument, match=says):
        dgrt.Runtime(path)


def test_surrogates_are_joined_or_named_on_every_way(plain: dgrt.Runtime) -> None:
    ways: list[Callable[[str], Any]] = [
        lambda text: plain.encode(text).tolist(), lambda text: plain.encode(text, raw=True).tolist(),
        lambda text: plain.encode([{"role": "user", "content": text}]).tolist(),
        lambda text: plain.encode([{"role": text, "content": "x"}]).tolist(),
        lambda text: plain.chat(system=text, **QUICK).messages,
        lambda text: plain.chat(**QUICK).send(text).tokens.tolist(),
        lambda text: dgrt.GenerateOptions(guarantee="verified", draft=text).draft,
        lambda text: plain.tokenizer.encode(text) if plain.tokenizer else None,
        lambda text: plain.encode("x", template_arguments={"x": text}).tolist(),
    ]  # fmt: skip
    for way in ways:
        assert way("a\ud83c\udf78b") == way("a\U0001f378b")
        with pytest.raises(dgrt.InvalidArgument, match=r"half of a surrogate pair \(U\+D83C\) at position 1"):
            way("a\ud83cb")


@pytest.mark.parametrize("prompts", [["a", "b"], [[{"role": "user", "content": "a"}]], [[1], [2]], [np.array([1])]])
def test_a_list_of_prompts_names_submit(plain: dgrt.Runtime, prompts: Any) -> None:
    with pytest.raises(dgrt.InvalidArgument, match=r"one call takes one prompt, .* \[runtime.submit\(prompt\) for"):
        plain.generate(prompts)


def test_what_holds_native_memory_is_neither_copied_nor_pickled(plain: dgrt.Runtime) -> None:
    holders = [plain, plain.chat(**QUICK), plain.stream([2], **QUICK), plain.submit([2], **QUICK)]
    for holder, act in itertools.product(holders, (copy.copy, copy.deepcopy, pickle.dumps)):
        with pytest.raises(dgrt.Unsupported, match=f"a {type(holder).__name__} cannot be copied, pickled or sent"):
            act(holder)


@pytest.mark.parametrize("what", ["stream", "chat"])
def test_a_second_thread_is_refused(plain: dgrt.Runtime, what: str) -> None:
    chat, stream = plain.chat(**LONG_OPTIONS), plain.stream([2, 9], **LONG_OPTIONS)
    holder, use = (chat, lambda: chat.send("Hi")) if what == "chat" else (stream, lambda: list(stream))
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(use()))
    thread.start()
    while not holder._use.locked() or (what == "chat" and chat._stream is None):
        time.sleep(0.001)
    with pytest.raises(dgrt.InvalidArgument, match=f"the {what} is in use by another thread"):
        while thread.is_alive():  # a stream is free for a moment between two events
            chat.send("Hi") if what == "chat" else next(stream)
    running = stream if chat._stream is None else chat._stream
    running.cancel()
    thread.join(PROCESS_TIMEOUT_S)
    assert not thread.is_alive() and len(ended) == 1  # not disturbed


class ModelOfVersion1:  # pydantic 1 has no model_dump
    __fields__ = ("role", "content")

    def dict(self) -> Any:
        return {"role": "user", "content": "Hi"}


class Endless2:
    def __iter__(self) -> Any:
        return itertools.repeat(1)


@pytest.mark.parametrize(
    "value", [b"Hi", UserString("Hi"), Colour.RED, date(2026, 1, 1), memoryview(b"x"), {1}, Path("x")]
)
def test_what_is_no_text_never_becomes_the_text_of_a_message(plain: dgrt.Runtime, value: Any) -> None:
    kind = type(value).__name__
    shapes = {
        "content": {"role": "user", "content": value},
        "role": {"role": value, "content": "Hi"},
        "'text' is not a string": {"role": "user", "content": [{"type": "text", "text": value}]},
    }
    for says, message in shapes.items():
        with pytest.raises(dgrt.InvalidArgument, match=rf"{says}|'{says}'\] must be a string.*got {kind}"):
            plain.encode([message])
        with pytest.raises(dgrt.InvalidArgument):
            plain.chat(**QUICK).send(message)


def test_objects_that_stand_for_prompts_are_taken(plain: dgrt.Runtime) -> None:
    torch = pytest.importorskip("torch")
    assert plain.encode(torch.tensor([2, 5])).tolist() == [2, 5]
    assert plain.encode([ModelOfVersion1()]).tolist() == plain.encode("Hi").tolist()  # type: ignore[list-item]
    with pytest.raises(dgrt.InvalidArgument, match=r"one dimension, got shape \[1, 2\]; one call takes one prompt"):
        plain.encode(torch.tensor([[2, 5]]))
    with pytest.raises(dgrt.InvalidArgument, match="token ids must be integers, got dtype float32"):
        plain.encode(torch.tensor([2.0]))
    with pytest.raises(dgrt.InvalidArgument, match="got UserDict; give its 'input_ids'"):  # what a tokenizer returns
        plain.encode(UserDict(input_ids=[2, 5]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ([("user", "Hi")], r"messages\[0\] must be a dict, dataclass or pydantic model .*, got tuple"),
        ([{"type": "human", "content": "Hi"}], r"messages\[0\] has no 'role', found 'type', 'content'"),
        ([{"role": "user", "content": ["Hi"]}], r"\['content'\]\[0\]: expected a part such as .*, got 'Hi'"),
    ],
)
def test_messages_of_other_forms_are_told_what_they_lack(plain: dgrt.Runtime, prompt: Any, says: str) -> None:
    with pytest.raises(dgrt.InvalidArgument, match=says):
        plain.encode(prompt)


def test_sequences_without_an_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dgrt.plain, "_MAX_ITEMS", 1000)
    for name in ("stop_ids", "tools"):
        with pytest.raises(dgrt.InvalidArgument, match=f"{name}: expected at most 1000 items, found more"):
            dgrt.GenerateOptions(**{name: Endless2()})


def test_a_draft_that_is_too_long_is_called_a_draft(plain: dgrt.Runtime) -> None:
    for draft in ("a" * 200_000, [5] * 200_000):
        with pytest.raises(dgrt.InvalidArgument, match=r"^draft of (at least )?\d+ tokens leaves no room"):
            plain.generate("Hi", guarantee="verified", draft=draft)


def test_options_of_a_result_make_the_same_result_again(plain: dgrt.Runtime) -> None:
    for options in ({"guarantee": "causal"}, {"guarantee": "verified", "draft": "x"}, {"max_denoising_steps": 2}):
        first = plain.generate("Hi", max_new_tokens=3, **options)  # type: ignore[arg-type]
        assert plain.generate("Hi", first.options).tokens.tolist() == first.tokens.tolist()


def test_the_messages_of_a_chat_are_a_copy_to_the_last_part(plain: dgrt.Runtime) -> None:
    chat = plain.chat(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}]}], **QUICK)
    chat.messages[0]["content"][0]["text"] = "changed"
    assert chat.messages[0]["content"][0]["text"] == "a"


def test_the_tokenizer_refuses_what_is_no_number(plain: dgrt.Runtime) -> None:
    assert plain.tokenizer is not None
    check_all({
        "text_of": plain.tokenizer.text_of, "encode": plain.tokenizer.encode,
        "most": lambda value: plain.tokenizer.encode("x", most=value),  # type: ignore[union-attr]
    })  # fmt: skip
