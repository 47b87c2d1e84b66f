"""What may be given as a prompt, and the ids it becomes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import models
import numpy as np
import pytest

from dgrt import GenerateOptions, InvalidArgument, Unsupported
from dgrt.errors import DgrtWarning
from dgrt.messages import ChatTemplate, TemplateInput
from dgrt.prompt import PromptEncoder
from dgrt.tokenizer import Tokenizer

BOS = models.SPECIAL["<bos>"]


@pytest.fixture
def encoder(facts: Any, tokenizer: Tokenizer, chat: ChatTemplate) -> PromptEncoder:
    return PromptEncoder(facts, tokenizer, chat)


def test_plain_text_is_a_user_turn_of_the_chat_template(
    encoder: PromptEncoder, tokenizer: Tokenizer, chat: ChatTemplate
) -> None:
    turn = [{"role": "user", "content": "Hi"}]
    assert encoder.encode("Hi").tolist() == tokenizer.encode(chat.render(turn)) == encoder.encode(turn).tolist()


def test_raw_text_gets_bos_and_nothing_else(encoder: PromptEncoder, tokenizer: Tokenizer) -> None:
    assert encoder.encode("Hi", raw=True).tolist() == [BOS, *tokenizer.encode("Hi")]


def test_raw_text_that_starts_with_bos_gets_no_second_one(encoder: PromptEncoder) -> None:
    assert encoder.encode("<bos>Hi", raw=True).tolist() == encoder.encode("Hi", raw=True).tolist()


def test_a_model_without_bos_gets_none(facts: Any, tokenizer: Tokenizer) -> None:
    encoder = PromptEncoder(replace(facts, bos_token_id=None), tokenizer, None)
    assert encoder.encode("Hi", raw=True).tolist() == tokenizer.encode("Hi")


def test_without_a_chat_template_plain_text_is_raw(facts: Any, tokenizer: Tokenizer) -> None:
    encoder = PromptEncoder(facts, tokenizer, None)
    with pytest.warns(DgrtWarning):
        assert encoder.encode("Hi").tolist() == encoder.encode("Hi", raw=True).tolist()
    with pytest.raises(InvalidArgument, match="no chat template"):
        encoder.encode([{"role": "user", "content": "Hi"}])


def test_an_engine_without_a_tokenizer_takes_ids_and_refuses_text(facts: Any) -> None:
    encoder = PromptEncoder(facts, None, None)
    assert encoder.encode([2, 5]).tolist() == [2, 5]
    for prompt in ("Hi", [{"role": "user", "content": "Hi"}]):
        with pytest.raises(InvalidArgument, match="no tokenizer; give token ids"):
            encoder.encode(prompt)


@pytest.mark.parametrize(
    "ids", [[2, 5], (2, 5), range(2, 6, 3), np.array([2, 5]), np.array([2, 5], np.uint8), [np.int64(2), np.int32(5)]]
)
def test_ids_may_be_any_sequence_of_integers(encoder: PromptEncoder, ids: Any) -> None:
    out = encoder.encode(ids)
    assert out.tolist() == [2, 5] and out.dtype == np.int32


def test_a_strided_array_becomes_contiguous(encoder: PromptEncoder) -> None:
    assert encoder.encode(np.arange(10)[::2]).flags.c_contiguous


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        ([], "empty"),
        (np.array([], np.int32), "empty"),
        ([1, 301], "301 at position 1 is outside the vocabulary"),
        ([-1], "-1 at position 0"),
        (np.array([0, 2**40]), "position 1"),
        ([True, 1], "True at position 0"),
        ([1, 2.0], "2.0 at position 1"),
        ([1, "2"], "'2' at position 1"),
        ([1, None], "None at position 1"),
        (np.array([1.0]), "float64"),
        (np.array([True]), "bool"),
        (np.zeros((1, 2), np.int64), r"shape \[1, 2\]"),
        (b"bytes", "got bytes"),
        (7, "got int"),
        (None, "got NoneType"),
        ({"role": "user", "content": "x"}, "got dict"),
        ([{"role": "user", "content": "x"}, "y"], r"messages\[1\]"),
    ],
)
def test_a_prompt_that_cannot_be_right_is_refused(encoder: PromptEncoder, prompt: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        encoder.encode(prompt)


@pytest.mark.parametrize("prompt", [[{"role": "user", "content": "x"}], [2, 5], np.array([2, 5])], ids=str)
def test_raw_is_for_text_only(encoder: PromptEncoder, prompt: Any) -> None:
    with pytest.raises(InvalidArgument, match="raw=True is for plain text"):
        encoder.encode(prompt, raw=True)


def test_text_without_a_template_goes_raw_with_one_warning(facts: Any, tokenizer: Tokenizer) -> None:
    encoder = PromptEncoder(facts, tokenizer, None)
    with pytest.warns(DgrtWarning, match="this engine has no chat template: the text goes to the model as it is"):
        encoder.encode("Hi")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode("Hi")
        PromptEncoder(facts, tokenizer, None).encode("Hi", raw=True)


def test_a_template_that_cannot_be_compiled_stops_nothing_but_chat_prompts(facts: Any, tokenizer: Tokenizer) -> None:
    encoder = PromptEncoder(facts, tokenizer, ChatTemplate("{% unknown %}", tokenizer))
    assert encoder.encode([2, 5]).tolist() == [2, 5]
    assert encoder.encode("Hi", raw=True).tolist() == [BOS, *tokenizer.encode("Hi")]
    assert encoder.encode_draft("Hi", [1]) == [*tokenizer.encode("Hi"), 1]
    for prompt in ("Hi", [{"role": "user", "content": "Hi"}]):
        with pytest.raises(Unsupported, match="cannot be compiled: Encountered unknown tag 'unknown'"):
            encoder.encode(prompt)


def test_options_of_the_template_reach_it(facts: Any, tokenizer: Tokenizer) -> None:
    turns_of = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    source = "{{ tools | tojson }}{{ enable_thinking }}{{ documents | length }}" + turns_of
    encoder = PromptEncoder(facts, tokenizer, ChatTemplate(source, tokenizer))
    given: Any = {"tools": [{"name": "f"}], "thinking": True, "template_arguments": {"documents": [{}, {}]}}
    options = GenerateOptions(**given)
    ids = encoder.encode("Hi", given=options.template_input)
    assert tokenizer.decode(ids) == '[{"name": "f"}]True2Hi\n'
    options = replace(options, continue_final_message=True)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "He said"}]
    assert tokenizer.decode(encoder.encode(turns, given=options.template_input)) == '[{"name": "f"}]True2Hi\nHe said'


@pytest.mark.parametrize(
    ("prompt", "options", "says"),
    [
        ([2, 5], {"tools": []}, "token ids do not go through the chat template"),
        ("Hi", {"continue_final_message": True}, "continue_final_message is for a list of messages, got a text"),
        ([{"role": "user", "content": "x"}], {"continue_final_message": "thinking"}, "has no 'thinking' to continue"),
        ([{"role": "tool", "content": {"a": 1}}], {"continue_final_message": True}, "has no text to continue"),
        ([{"role": "user", "content": "x"}], {"continue_final_message": "role"}, None),
        (["a", "b"], {}, r"got a list of 2 texts; for several: \[runtime.submit\(prompt\) for prompt in prompts\]"),
        ([[1], [2]], {}, "got a list of 2 lists"),
        ([1] * 513, {}, "prompt of 513 tokens leaves no room for one canvas in the context of 512"),
        ("x" * 50_000, {}, "prompt of at least [0-9]+ tokens leaves no room for one canvas in the context of 512"),
    ],
)
def test_what_a_template_cannot_do_is_refused(encoder: PromptEncoder, prompt: Any, options: Any, says: str) -> None:
    given = GenerateOptions(**options).template_input
    if says is None:
        assert encoder.encode(prompt, given=given).size
    else:
        with pytest.raises(InvalidArgument, match=says):
            encoder.encode(prompt, given=given)


def test_a_template_that_changes_or_repeats_a_message_cannot_continue_it(tokenizer: Tokenizer) -> None:
    turns = [{"role": "assistant", "content": "Hello there"}]
    for expression in ("m.content[:3]", "m.content | upper", "m.content ~ m.content", "m.content | truncate(9, true)"):
        source = "{% for m in messages %}{{ " + expression + " }}{% endfor %}"
        with pytest.raises(InvalidArgument, match="leaves out, changes or repeats the end of the last message"):
            ChatTemplate(source, tokenizer).render(turns, TemplateInput(continued="content"))


def test_a_token_that_the_model_does_not_have_is_named(facts: Any, tokenizer: Tokenizer) -> None:
    encoder = PromptEncoder(replace(facts, vocab_size=10), tokenizer, None)
    with pytest.raises(InvalidArgument, match=r"the tokenizer makes token [0-9]+ of 'z', .* without resizing"):
        encoder.encode("z", raw=True)
