"""`Runtime.chat` on the bundled model: what a turn prefills, what it leaves behind, and what happens when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import dgrt
from dgrt.chat import Chat
from dgrt.messages import ChatTemplate
from dgrt.native_options import native_options

FIRST, SECOND = "json\nname=Ana Silva; age=34; active=yes", "json\ncity=Oslo; zip=0150"
# Tells what the model said in other words.
_FORGETFUL = (
    "{{ bos_token }}{% for message in messages %}<|turn>{{ message['role'] }}\n"
    "{{ message['content'] if message['role'] == 'user' else '...' }}<turn|>\n{% endfor %}<|turn>model\n"
)


@pytest.fixture
def chat(mini: dgrt.Runtime) -> Iterator[Chat]:
    with mini.chat(seed=3, max_new_tokens=96) as chat:  # a second turn is nothing that mini has learned
        yield chat


def tokens_of(mini: dgrt.Runtime, messages: list[Any], reply: dgrt.GenerateResult) -> list[int]:
    return [*mini.encode(messages).tolist(), *reply.tokens.tolist()]


def test_a_turn_prefills_only_what_is_new(mini: dgrt.Runtime, chat: Chat) -> None:
    first = chat.send(FIRST)
    assert first.text == mini.generate(FIRST, seed=3).text and first.stats.prefix_tokens == 0
    conversation = chat.messages
    assert conversation == [{"role": "user", "content": FIRST}, {"role": "assistant", "content": first.text}]
    second = chat.send(SECOND)
    assert second.prompt_tokens.tolist() == mini.encode([*conversation, {"role": "user", "content": SECOND}]).tolist()
    told = first.prompt_tokens.size + first.tokens.size
    assert second.stats.prompt_tokens == second.prompt_tokens.size > told
    assert 0 < told - second.stats.prefix_tokens <= mini.info.canvas_len  # the reply's last canvas is not in KV
    passes = second.stats.denoise_passes + second.stats.commit_passes
    new_rows = second.stats.prompt_tokens - second.stats.prefix_tokens
    assert second.stats.row_tokens == new_rows + passes * mini.info.canvas_len
    # The same passes, step by step, with the native session.
    from dgrt import _native

    session = _native.Session(mini._handle(), native_options(mini._handle(), chat._options, mini._encoder))
    session.prefill(first.prompt_tokens)
    while not session.finish_reason:
        session.next_canvas()
    session.extend(second.prompt_tokens[told:])
    while not session.finish_reason:
        session.next_canvas()
    assert session.tokens.tolist() == second.tokens.tolist()


def test_it_begins_with_the_messages_it_is_given(mini: dgrt.Runtime) -> None:
    history = [{"role": "user", "content": FIRST}, {"role": "assistant", "content": "{}"}]
    with mini.chat(system="Be brief.", messages=history, max_new_tokens=96) as chat:
        reply = chat.send({"role": "user", "content": SECOND})
    turns = [{"role": "system", "content": "Be brief."}, *history, {"role": "user", "content": SECOND}]
    assert reply.prompt_tokens.tolist() == mini.encode(turns).tolist()
    assert chat.messages == [*turns, {"role": "assistant", "content": reply.text}]
    assert chat.send(FIRST).stats.prefix_tokens == 0  # close() freed the rows, and nothing else was lost


def test_a_reply_that_was_cut_off_is_gone_on_from(mini: dgrt.Runtime) -> None:
    with mini.chat(max_new_tokens=5) as chat:
        first = chat.send(FIRST)
        assert first.finish_reason == "length"
        second = chat.send(SECOND)
        assert second.prompt_tokens.tolist() == mini.encode(
            [*chat.messages[:2], {"role": "user", "content": SECOND}]
        ).tolist()
        assert second.stats.prefix_tokens > 0


def test_a_stream_that_is_left_early_is_not_part_of_the_chat(chat: Chat) -> None:
    chat.send(FIRST)
    before = chat.messages
    events = chat.stream(SECOND)
    assert next(events).kind == "draft"
    again = chat.send(SECOND)  # closes the stream
    assert list(events) == [] and again.stats.prefix_tokens == 0
    assert chat.messages[:2] == before and len(chat.messages) == 4


def test_a_cancelled_turn_is_not_part_of_the_chat(mini: dgrt.Runtime) -> None:
    with mini.chat(max_denoising_steps=40_000, confidence_threshold=1e-30, stop_ids=()) as chat:
        events = chat.stream(FIRST)
        assert next(events).kind == "draft"
        events.cancel()
        *_, done = events
        assert done.result is not None and done.result.finish_reason == "cancelled" and chat.messages == []


def test_a_turn_that_fails_leaves_the_chat_as_it_was(mini: dgrt.Runtime, chat: Chat) -> None:
    reply = chat.send(FIRST)
    with pytest.raises(dgrt.InvalidArgument, match="leaves no room"):
        chat.send("x" * 5000)
    with pytest.raises(dgrt.InvalidArgument, match="must be a string or a list"):
        chat.send({"role": "user", "content": 7})
    assert len(chat.messages) == 2
    second = chat.send(SECOND)
    assert second.prompt_tokens[: reply.prompt_tokens.size].tolist() == reply.prompt_tokens.tolist()
    with pytest.raises(dgrt.DeadlineExceeded), mini.chat(deadline_s=1e-6) as late:
        late.send(FIRST)


def test_a_deadline_is_per_turn(mini: dgrt.Runtime) -> None:
    with mini.chat(deadline_s=30, max_new_tokens=8) as chat:
        chat.send(FIRST)
        session = chat._session
        assert chat.send(SECOND).stats.prefix_tokens > 0 and chat._session is session


def test_a_template_that_changes_the_history_is_followed(mini: dgrt.Runtime) -> None:
    assert mini.tokenizer is not None
    template = ChatTemplate(_FORGETFUL, mini.tokenizer)
    with mini.chat(max_new_tokens=96) as plain:
        chat = Chat(plain._open_session, mini._run, mini._encoder, mini.tokenizer, template, plain._options, [])
        first, second = chat.send(FIRST), chat.send(SECOND)
    assert first.text and second.stats.prefix_tokens == 0
    expected = mini.tokenizer.encode(template.render(chat.messages[:3]))
    assert second.prompt_tokens.tolist() == expected


def test_what_cannot_be_a_chat_is_refused(mini: dgrt.Runtime, token_engine: Any, ort_library: str) -> None:
    with pytest.raises(dgrt.InvalidArgument, match="raw=True is for plain text"):
        mini.chat(raw=True)
    with pytest.raises(dgrt.InvalidArgument, match="a draft is of one answer"):
        mini.chat(guarantee="verified", draft="{}")
    with pytest.raises(dgrt.InvalidArgument, match="max_new_tokens"):
        mini.chat(max_new_tokens=-3)
    with (
        dgrt.Runtime(token_engine, threads=1, ort_library=ort_library) as tokens_only,
        pytest.raises(dgrt.InvalidArgument, match="a chat needs a tokenizer"),
    ):
        tokens_only.chat()


def test_the_messages_it_returns_are_copies(chat: Chat) -> None:
    chat.send(FIRST)
    chat.messages.clear()
    chat.messages[0]["content"] = "other"
    assert chat.messages[0]["content"] == FIRST
