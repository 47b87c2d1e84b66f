"""Chat templates: the same prompt as Hugging Face makes, in a sandbox, with clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import models
import pytest

from dgrt import ContractMismatch, InvalidArgument, Unsupported
from dgrt.messages import ChatTemplate
from dgrt.tokenizer import Tokenizer

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Grüße €"},
]


def template(source: str, tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate(source, tokenizer)


def test_a_conversation_is_rendered_as_transformers_renders_it(tokenizer_folder: Path, chat: ChatTemplate) -> None:
    from transformers import AutoTokenizer

    oracle = AutoTokenizer.from_pretrained(tokenizer_folder)
    for turns in (TURNS[1:2], TURNS[1:], TURNS):
        assert chat.render(turns) == oracle.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def test_the_ids_of_a_conversation_are_those_of_transformers(
    tokenizer_folder: Path, chat: ChatTemplate, tokenizer: Tokenizer
) -> None:
    from transformers import AutoTokenizer

    oracle = AutoTokenizer.from_pretrained(tokenizer_folder)
    wanted = oracle.apply_chat_template(TURNS, add_generation_prompt=True, return_dict=False)
    assert tokenizer.encode(chat.render(TURNS)) == list(wanted)


def test_bos_appears_exactly_once(chat: ChatTemplate, tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(chat.render(TURNS)).count(models.SPECIAL["<bos>"]) == 1


def test_a_template_may_use_loop_controls_and_refuse(tokenizer: Tokenizer) -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
        "{% if loop.index > 2 %}{% break %}{% endif %}{{ m.content | tojson }}{% endfor %}"
    )
    chat = template(source, tokenizer)
    assert chat.render(TURNS) == '"Be brief.""Hi"'
    with pytest.raises(InvalidArgument, match="no tools here"):
        chat.render([{"role": "tool", "content": "x"}])


def test_a_template_cannot_reach_out_of_the_sandbox(tokenizer: Tokenizer) -> None:
    chat = template("{{ messages.__class__.__mro__[1].__subclasses__() }}", tokenizer)
    with pytest.raises(InvalidArgument, match="unsafe"):
        chat.render(TURNS)


@pytest.mark.parametrize("source", ["{{ 1 / 0 }}", "{{ messages[0].content | int // 0 }}", "{{ range(10**9) }}"])
def test_a_template_that_fails_is_an_error_of_ours(tokenizer: Tokenizer, source: str) -> None:
    with pytest.raises(InvalidArgument, match="the chat template failed: [A-Za-z]+Error: "):
        template(source, tokenizer).render(TURNS)


def test_a_template_that_does_not_parse_is_reported(tokenizer: Tokenizer) -> None:
    broken = template("{% for %}", tokenizer)  # does not stop an engine from opening
    with pytest.raises(Unsupported, match="the chat template of this engine cannot be compiled: .*; give token ids"):
        broken.render(TURNS)


def test_a_template_that_is_no_text_is_reported(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(ContractMismatch, match="chat_template"):
        ChatTemplate.from_folder(tmp_path, ["chat_template.jinja"], tokenizer)


def test_a_template_that_the_manifest_does_not_list_is_not_opened(tokenizer_folder: Path, tokenizer: Tokenizer) -> None:
    assert ChatTemplate.from_folder(tokenizer_folder, (), tokenizer) is None


@pytest.mark.parametrize("form", ["plain", "named", "named among others"])
def test_a_template_inside_the_tokenizer_config_is_found(tokenizer: Tokenizer, tmp_path: Path, form: str) -> None:
    source = "{{ messages[0].content }}"
    named = [{"name": "rag", "template": "x"}, {"name": "default", "template": source}]
    value = {"plain": source, "named": named, "named among others": ["x", {}, *named]}[form]
    found = ChatTemplate.from_folder(tmp_path, (), Tokenizer(tokenizer._raw, {"chat_template": value}))
    assert found is not None and found.render(TURNS[1:]) == "Hi"


def test_an_engine_without_a_template_gives_none(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for config in ({}, {"chat_template": 1}, {"chat_template": [{"name": "default"}]}):
        assert ChatTemplate.from_folder(tmp_path, (), Tokenizer(tokenizer._raw, config)) is None


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "at least one"),
        (["Hi"], r"messages\[0\] must be a dict.*, got 'Hi'"),
        ("Hi", "messages must be a list of messages, got 'Hi'"),
        ({"messages": TURNS}, "messages must be a list of messages, got dict"),
        ([SimpleNamespace(role="user", content="x")], "pydantic model .*, got SimpleNamespace"),
        ([{"role": "user", "content": "a\ud83d"}], r"messages\[0\]\['content'\] has half .* at position 1"),
        ([{"role": "user"}], r"messages\[0\] has no 'content'"),
        ([TURNS[1], {"content": "x"}], r"messages\[1\] has no 'role'"),
        ([{"role": 1, "content": "x"}], "'role'.* must be a string"),
        ([{"role": "user", "content": None}], "has no 'content'"),
        ([{"role": "user", "content": 7}], "'content'.* must be a string or a list of parts, got 7"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "expected a part of type 'text', got 'input_text'"),
        ([{"role": "user", "content": [{"type": "text"}]}], "'text' is not a string"),
    ],
)
def test_malformed_messages_are_refused_with_their_place(chat: ChatTemplate, messages: list, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        chat.render(messages)


def test_a_part_that_is_not_text_is_unsupported(chat: ChatTemplate) -> None:
    for kind in ("image", "image_url", "input_image"):
        with pytest.raises(Unsupported, match=f"images are not supported by this engine, found .* '{kind}'"):
            chat.render([{"role": "user", "content": [{"type": kind, "url": "x"}]}])


def test_messages_are_not_changed_by_rendering(chat: ChatTemplate) -> None:
    before = json.dumps(TURNS)
    chat.render(TURNS)
    assert json.dumps(TURNS) == before
