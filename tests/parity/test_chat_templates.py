"""The native renderer of chat templates against transformers' own, for templates in the style of the field's models.

`chat_templates/` has one for each family, written for these tests, with the constructs that its family uses. That of
the bundled model is one more.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from boundary import c_api
from parity.jinja_oracle import Outcome, native, reference
from parity.template_cases import BEYOND, EXPRESSIONS, REFUSED

FAMILIES = ["gemma4", "gemma3", "chatml", "llama3", "mistral", "qwen", "deepseek", "rag"]
TOKENS = {"bos_token": "<bos>", "eos_token": "</s>"}


def call(name: str, arguments: Any, identifier: str = "call-1") -> dict[str, Any]:
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Weather of a "city"',
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Its name", "nullable": True},
                "unit": {"type": "string", "description": "Grad °", "enum": ["c", "f"]},
                "options": {
                    "type": "object",
                    "description": "More",
                    "properties": {"days": {"type": "array", "description": "Which", "items": {"type": "number"}}},
                    "required": ["days"],
                },
            },
            "required": ["city", "unit"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "Time <now>", "parameters": None}}

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one turn": [{"role": "user", "content": "Hi"}],
    "with a system turn": [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Hi\n"},
        {"role": "assistant", "content": "Yo <|channel>thought\nhm<channel|> there"},
        {"role": "user", "content": "<&>\"'é😀 {{ x }}"},
    ],
    "a tool call and its result": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "reasoning_content": "They ask.", "tool_calls": [
            call("get_weather", {"unit": "c", "city": "Köln", "n": 1.5, "b": True, "l": [1, "x", None], "o": {"z": ""}})
        ]},
        {"role": "tool", "tool_call_id": "call-1", "content": "sunny"},
    ],
    "several calls, older thoughts": [
        {"role": "user", "content": "W?"},
        {"role": "assistant", "content": "", "reasoning": "old", "tool_calls": [
            call("get_weather", {"city": "a"}), call("clock", '{"q": 1}', "call-2")
        ]},
        {"role": "tool", "tool_call_id": "call-2", "content": {"t": 1}},
        {"role": "tool", "tool_call_id": "nobody", "content": [1, 2]},
        {"role": "assistant", "content": "It <think>a</think>\n\n is"},
        {"role": "user", "content": "ok"},
    ],
    "parts": [
        {"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "image"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "c"}]},
    ],
    "roles that do not alternate": [{"role": "assistant", "content": "x"}, {"role": "assistant", "content": "y"}],
}  # fmt: skip
SWITCHES: list[dict[str, Any]] = [
    {},
    {"add_generation_prompt": True},
    {"tools": [WEATHER]},
    {"tools": [WEATHER, CLOCK], "add_generation_prompt": True, "enable_thinking": True},
    {"tools": [CLOCK], "enable_thinking": False, "add_generation_prompt": True, "tools_in_user_message": False},
    {"enable_thinking": True, "date_string": "1 Jan 2026"},
    {"documents": [{"title": "T", "text": "a\nb"}, {"hidden": 1}, {"text": "c"}], "show_date": True},
]


def source_of(family: str, mini_checkpoint: Path) -> str:
    path = Path(__file__).parent / "chat_templates" / f"{family}_style.jinja"
    return (mini_checkpoint / "chat_template.jinja" if family == "mini" else path).read_text(encoding="utf-8")


@pytest.mark.parametrize("family", [*FAMILIES, "mini"])
def test_templates_of_the_field_render_as_in_transformers(family: str, mini_checkpoint: Path, tmp_path: Path) -> None:
    template = source_of(family, mini_checkpoint)
    texts = set()
    for messages in CONVERSATIONS.values():
        for switches in SWITCHES:
            conversation = {"messages": messages, **TOKENS, **switches}
            expected, found = reference(template, conversation), native(tmp_path, template, conversation)
            assert found.text == expected.text, (found, expected)
            assert (found.text is not None) or found.error.startswith("DGRT_INVALID_ARGUMENT"), found
            texts.add(found.text)
    assert len(texts - {None}) >= 6


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_construct_renders_as_in_transformers(expression: str, tmp_path: Path) -> None:
    conversation = {"messages": CONVERSATIONS["with a system turn"], "x": {"a": 1, "update": 2}, "texts": ["b", "A"]}
    expected = reference(expression, conversation)
    assert expected.text is not None, expected
    assert native(tmp_path, expression, conversation) == expected


@pytest.mark.parametrize("expression", REFUSED)
def test_what_fails_in_transformers_fails_here(expression: str, tmp_path: Path) -> None:
    conversation = {"messages": CONVERSATIONS["one turn"], "x": {"a": 1}}
    assert reference(expression, conversation).text is None
    found = native(tmp_path, "\n" + expression, conversation)
    assert found.text is None and "chat_template.jinja line 2: " in found.error, found
    assert not found.is_unsupported, found


@pytest.mark.parametrize(("expression", "reason"), BEYOND)
def test_what_the_renderer_lacks_is_refused_by_name(expression: str, reason: str, tmp_path: Path) -> None:
    found = native(tmp_path, "line one\n" + expression, {"messages": CONVERSATIONS["one turn"], "x": {"a": 1}})
    assert found.error.startswith("DGRT_UNSUPPORTED: chat_template.jinja line 2: "), found
    assert reason in found.error, found


def test_constructs_that_are_lacking_are_told_when_the_template_is_read(tmp_path: Path) -> None:
    for construct in ("{{ x | pprint }}", "{% include 'x' %}", "{{ x is lower }}", "{{ x | map('pprint') | list }}"):
        (tmp_path / "chat_template.jinja").write_text("{% if false %}\n" + construct + "{% endif %}")
        with pytest.raises(c_api.Failure, match=r"DGRT_UNSUPPORTED: chat_template.jinja line 2: .* is not supported"):
            c_api.ChatTemplate(tmp_path)


def test_the_date_is_that_of_the_machine(tmp_path: Path) -> None:
    template = "{{ strftime_now('%d %b %Y, %A %j %% %-d %z%Z') }}"
    conversation = {"messages": CONVERSATIONS["one turn"]}
    before, found, after = (
        reference(template, conversation), native(tmp_path, template, conversation), reference(template, conversation),
    )  # fmt: skip
    assert found in (before, after) and str(datetime.now().year) in (found.text or "")


# ---- continue_final_message ----

CONTINUED: list[tuple[str, list[dict[str, Any]], Any]] = [
    ("{% for m in messages %}<{{ m.content }}>{% endfor %}", [{"role": "user", "content": "a"}], True),
    ("{% for m in messages %}<{{ m.content }}>{% endfor %}", [{"role": "assistant", "content": "a b \n"}], True),
    ("{% for m in messages %}<{{ m.content | trim }} >{% endfor %}", [{"role": "assistant", "content": " a b "}], True),
    ("{% for m in messages %}<{{ m.content }}>{% endfor %}", [{"role": "assistant", "content": ""}], True),
    ("{% for m in messages %}<{{ m.content }}>{% endfor %}", [{"role": "assistant", "content": "a"}], "content"),
    ("{% for m in messages %}<{{ m.content }}>{% endfor %}", [{"role": "assistant", "content": "a"}], False),
    ("{% for m in messages %}<{{ m.content }}>{% endfor %}", [{"role": "assistant"}], True),
    ("{% for m in messages %}<{{ m.content }}>{% endfor %}", [{"role": "assistant", "content": None}], True),
    ("{% for m in messages %}<{{ m.text }}>{% endfor %}", [{"role": "assistant", "content": "a"}], True),
    ("{% for m in messages %}content{% endfor %}", [{"role": "assistant", "content": "a"}], True),
    ("{% for m in messages %}<{{ m.thinking }}|{{ m.content }}>{% endfor %}",
     [{"role": "assistant", "reasoning": "r", "content": "a"}], "reasoning"),
    ("{% for m in messages %}<{{ m.reasoning_content }}>{% endfor %}",
     [{"role": "assistant", "thinking": "r", "content": "a"}], "thinking"),
    ("{% for m in messages %}<{% for p in m.content %}{{ p.text }};{% endfor %}>{% endfor %}",
     [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, {"image": 1}]}],
     True),
    ("{% for m in messages %}<{% for p in m.content %}{{ p.text }};{% endfor %}>{% endfor %}",
     [{"role": "assistant", "content": [{"type": "image"}]}], True),
    ("{{ messages[-1].content }}{{ messages[-1].content }}", [{"role": "assistant", "content": "a "}], True),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(CONTINUED)))
@pytest.mark.parametrize("opens_turn", [False, True])
def test_continuing_the_final_message_is_that_of_transformers(case: int, opens_turn: bool, tmp_path: Path) -> None:
    template, messages, field = CONTINUED[case]
    conversation = {"messages": [{"role": "user", "content": "Hi"}, *messages], "continue_final_message": field,
                    "add_generation_prompt": opens_turn}  # fmt: skip
    expected, found = reference(template, conversation), native(tmp_path, template, conversation)
    if "CONTINUE" in (expected.text or ""):  # transformers leaves its mark where a template repeats the message
        assert "leaves out, changes or repeats the end" in found.error, found
    else:
        assert found.text == expected.text, (found, expected)


@pytest.mark.parametrize("family", [*FAMILIES, "mini"])
def test_continuing_works_with_the_templates_of_the_field(family: str, mini_checkpoint: Path, tmp_path: Path) -> None:
    template = source_of(family, mini_checkpoint)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "So it "}]
    conversation = {"messages": messages, **TOKENS, "continue_final_message": True}
    expected, found = reference(template, conversation), native(tmp_path, template, conversation)
    assert found.text == expected.text, (found, expected)


# ---- what a conversation has to be ----


@pytest.mark.parametrize(("conversation", "reason"), [
    (b"", "conversation: expected JSON, found an error at byte"),
    (b'{"messages": [', "conversation: expected JSON"),
    (b'{"messages": "x"} y', "conversation: expected JSON"),
    (b'{"messages": [{"role": "\xff"}]}', "conversation: expected JSON"),
    (b'{"messages": [{"role": "\\ud800"}]}', "conversation: expected JSON"),
    (b"[]", "conversation: expected a JSON object, found a list"),
    (b"{}", 'conversation: expected an array "messages"'),
    (b'{"messages": {}}', 'conversation: expected an array "messages"'),
    (b'{"messages": []}', "expected at least one"),
    (b'{"messages": ["x"]}', '"messages": expected objects, found a str'),
    (b'{"messages": [{}], "tools": {}}', '"tools": expected an array, found a dict'),
    (b'{"messages": [{}], "tools": ["f"]}', '"tools": expected objects, found a str'),
    (b'{"messages": [{}], "documents": [1]}', '"documents": expected objects, found a int'),
    (b'{"messages": [{}], "continue_final_message": 3}', "expected true, false or the name of a field, found a int"),
    (b'{"messages": [{"content": 5}], "continue_final_message": true}', "expected a text, found a int"),
])  # fmt: skip
def test_conversations_that_are_none_are_refused_with_the_reason(
    conversation: bytes, reason: str, tmp_path: Path
) -> None:
    found = native(tmp_path, "{{ messages[0].content }}", conversation)
    assert found.error.startswith("DGRT_INVALID_ARGUMENT: ") and reason in found.error, found


def test_special_tokens_come_from_the_config_and_a_variable_wins(tmp_path: Path) -> None:
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": None,
              "extra_special_tokens": {"image_token": "<i>"}}  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    template = "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ image_token }}"
    turn = {"messages": [{"role": "user", "content": "x"}]}
    assert native(tmp_path, template, turn) == Outcome("<s></s>False<i>")
    assert native(tmp_path, template, {**turn, "bos_token": "B"}) == Outcome("B</s>False<i>")


def test_a_checkpoint_may_have_another_template_for_tools(tmp_path: Path) -> None:
    turn: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
    (tmp_path / "chat_template.tool_use.jinja").write_text("with {{ tools | length }}")
    assert native(tmp_path, "without", turn) == Outcome("without")
    assert native(tmp_path, "without", {**turn, "tools": None}) == Outcome("without")
    assert native(tmp_path, "without", {**turn, "tools": []}) == Outcome("with 0")
    assert native(tmp_path, "without", {**turn, "tools": [WEATHER]}) == Outcome("with 1")
    (tmp_path / "chat_template.tool_use.jinja").write_text("\n{{ x | pprint }}")
    assert "chat_template.tool_use.jinja line 2: " in native(tmp_path, "without", turn).error


def test_big_numbers_and_repeated_keys_of_a_conversation(tmp_path: Path) -> None:
    template = "{{ n }} {{ messages[0] }}"
    assert native(tmp_path, template, b'{"n": 9223372036854775807, "messages": [{"b": 1, "a": 2, "b": 3}]}') == Outcome(
        "9223372036854775807 {'b': 3, 'a': 2}"
    )
    for number in (b"9223372036854775808", b"-9223372036854775809", b"1" * 40):
        found = native(tmp_path, template, b'{"n": ' + number + b', "messages": [{}]}')
        assert found.is_unsupported and "beyond 64 bits" in found.error, found
