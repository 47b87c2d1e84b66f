"""Tokenizer, streaming decoder and chat template as C handles: NULL pointers, threads, lifetimes, errors."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from ctypes import byref, c_char_p, c_size_t, c_void_p
from pathlib import Path

import pytest
from boundary import c_api
from boundary.c_api import LIB, Failure


@pytest.fixture
def tokenizer(mini_checkpoint: Path) -> Iterator[c_api.Tokenizer]:
    before = LIB.dgrt_live_handles()
    tokenizer = c_api.Tokenizer(mini_checkpoint)
    yield tokenizer
    tokenizer.destroy()
    assert LIB.dgrt_live_handles() == before


def test_text_goes_in_and_comes_out_without_an_engine(tokenizer: c_api.Tokenizer) -> None:
    ids = tokenizer.encode("<bos>Grüße\n")
    assert tokenizer.decode(ids) == "Grüße\n"
    assert tokenizer.decode(ids, keep_special=True) == "<bos>Grüße\n"
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


def test_a_zero_inside_a_text_is_a_character(tokenizer: c_api.Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\0b")) == "a\0b"


def test_text_that_is_not_utf8_is_refused_with_its_place(tokenizer: c_api.Tokenizer) -> None:
    with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT: text: expected UTF-8, found .* at byte 2"):
        tokenizer.encode(b"ab\xff")


def test_ids_below_zero_and_other_values_for_special_tokens_are_refused(tokenizer: c_api.Tokenizer) -> None:
    with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT.*found -1 at position 0"):
        tokenizer.decode([-1])
    with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT: special_tokens.*found 2"):
        c_api.check(LIB.dgrt_detokenizer_create(tokenizer.handle, 2, byref(c_void_p())))


def test_null_pointers_are_errors_not_crashes(tokenizer: c_api.Tokenizer, mini_checkpoint: Path) -> None:
    handle, text, size, tokens = c_void_p(), c_void_p(), c_size_t(), c_api.Ids()
    detokenizer = c_api.Detokenizer(tokenizer)
    chat = c_api.ChatTemplate(mini_checkpoint)
    strings = (c_char_p * 1)(None)
    calls = [
        LIB.dgrt_tokenizer_create(None, byref(handle)),
        LIB.dgrt_tokenizer_create(b"x", None),
        LIB.dgrt_tokenizer_encode(None, b"x", 1, byref(tokens), byref(size)),
        LIB.dgrt_tokenizer_encode(tokenizer.handle, None, 1, byref(tokens), byref(size)),
        LIB.dgrt_tokenizer_encode(tokenizer.handle, b"x", 1, None, byref(size)),
        LIB.dgrt_tokenizer_encode(tokenizer.handle, b"x", 1, byref(tokens), None),
        LIB.dgrt_tokenizer_decode(None, None, 0, 0, byref(text), byref(size)),
        LIB.dgrt_tokenizer_decode(tokenizer.handle, None, 1, 0, byref(text), byref(size)),
        LIB.dgrt_tokenizer_decode(tokenizer.handle, None, 0, 0, None, byref(size)),
        LIB.dgrt_tokenizer_decode(tokenizer.handle, None, 0, 0, byref(text), None),
        LIB.dgrt_detokenizer_create(None, 0, byref(handle)),
        LIB.dgrt_detokenizer_create(tokenizer.handle, 0, None),
        LIB.dgrt_detokenizer_push(None, None, 0, byref(text), byref(size)),
        LIB.dgrt_detokenizer_push(detokenizer.handle, None, 1, byref(text), byref(size)),
        LIB.dgrt_detokenizer_push(detokenizer.handle, None, 0, None, byref(size)),
        LIB.dgrt_detokenizer_finish(None, byref(text), byref(size)),
        LIB.dgrt_detokenizer_finish(detokenizer.handle, byref(text), None),
        LIB.dgrt_chat_template_create(None, byref(handle)),
        LIB.dgrt_chat_template_create(b"x", None),
        LIB.dgrt_chat_template_format(None, strings, strings, 1, byref(text), byref(size)),
        LIB.dgrt_chat_template_format(chat.handle, None, strings, 1, byref(text), byref(size)),
        LIB.dgrt_chat_template_format(chat.handle, strings, None, 1, byref(text), byref(size)),
        LIB.dgrt_chat_template_format(chat.handle, strings, strings, 1, byref(text), byref(size)),
        LIB.dgrt_chat_template_format(chat.handle, None, None, 0, byref(text), byref(size)),
        LIB.dgrt_chat_template_render(None, b"{}", 2, byref(text), byref(size)),
        LIB.dgrt_chat_template_render(chat.handle, None, 2, byref(text), byref(size)),
        LIB.dgrt_chat_template_render(chat.handle, None, 0, byref(text), byref(size)),
        LIB.dgrt_chat_template_render(chat.handle, b"{}", 2, None, byref(size)),
        LIB.dgrt_chat_template_render(chat.handle, b"{}", 2, byref(text), None),
    ]
    assert [LIB.dgrt_status_name(status) for status in calls] == [b"DGRT_INVALID_ARGUMENT"] * len(calls)
    for destroy in (LIB.dgrt_tokenizer_destroy, LIB.dgrt_detokenizer_destroy, LIB.dgrt_chat_template_destroy):
        destroy(None)
    chat.destroy()
    detokenizer.destroy()


def test_a_detokenizer_outlives_the_handle_of_its_tokenizer(mini_checkpoint: Path) -> None:
    before = LIB.dgrt_live_handles()
    tokenizer = c_api.Tokenizer(mini_checkpoint)
    ids = tokenizer.encode("a€")
    detokenizer = c_api.Detokenizer(tokenizer)
    assert LIB.dgrt_live_handles() == before + 2
    tokenizer.destroy()
    assert detokenizer.push(ids[:2]) == "a"
    assert detokenizer.push(ids[2:]) == "€"
    assert detokenizer.finish() == ""
    detokenizer.destroy()
    assert LIB.dgrt_live_handles() == before


def test_results_are_borrowed_per_thread(tokenizer: c_api.Tokenizer) -> None:
    tokens, count = c_api.Ids(), c_size_t()
    c_api.check(LIB.dgrt_tokenizer_encode(tokenizer.handle, b"abc", 3, byref(tokens), byref(count)))
    here = tokens[: count.value]
    thread = threading.Thread(target=lambda: tokenizer.encode("x" * 1000))
    thread.start()
    thread.join()
    assert tokens[: count.value] == here


def test_any_thread_may_use_a_tokenizer(tokenizer: c_api.Tokenizer) -> None:
    texts = [chr(0x61 + i) * 500 + "é" for i in range(8)]
    expected = [tokenizer.encode(text) for text in texts]
    wrong: list[str] = []

    def work(i: int) -> None:
        for _ in range(20):
            if tokenizer.encode(texts[i]) != expected[i] or tokenizer.decode(expected[i]) != texts[i]:
                wrong.append(texts[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_folders_and_files_that_cannot_be_used_are_named(mini_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT.*expected a folder with tokenizer.json"):
        c_api.Tokenizer(tmp_path)
    with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT.*expected a chat template, found none"):
        c_api.ChatTemplate(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    with pytest.raises(Failure, match='DGRT_UNSUPPORTED: tokenizer.json: model.type: expected "BPE", found "Unigram"'):
        c_api.Tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(Failure, match="DGRT_CONTRACT_MISMATCH: tokenizer.json: expected JSON"):
        c_api.Tokenizer(tmp_path)
    template = shutil.copy(mini_checkpoint / "chat_template.jinja", tmp_path)
    without_bos = c_api.ChatTemplate(tmp_path)
    assert without_bos.format([("user", "x")]) == "<|turn>user\nx<turn|>\n<|turn>model\n"
    without_bos.destroy()
    Path(template).write_text("\n{{ messages | pprint }}")
    with pytest.raises(Failure, match='DGRT_UNSUPPORTED: chat_template.jinja line 2: filter "pprint" is not supported'):
        c_api.ChatTemplate(tmp_path)
    Path(template).write_text("\n\n{% if messages %}")
    with pytest.raises(Failure, match='DGRT_CONTRACT_MISMATCH: chat_template.jinja line 3: expected "{% endif %}"'):
        c_api.ChatTemplate(tmp_path)
    Path(template).write_bytes(b"ab\xff")
    with pytest.raises(Failure, match="DGRT_CONTRACT_MISMATCH: chat_template.jinja: expected UTF-8.*at byte 2"):
        c_api.ChatTemplate(tmp_path)


def test_what_a_template_refuses_is_told_with_its_words(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages if m.role == 'robot' %}\n{{ raise_exception('no ' ~ m.role) }}{% endfor %}ok"
    )
    chat = c_api.ChatTemplate(tmp_path)
    with pytest.raises(Failure, match="INVALID_ARGUMENT: chat_template.jinja line 2: .* refuses .*: no robot"):
        chat.format([("robot", "x")])
    assert chat.format([("user", "x")]) == "ok"
    chat.destroy()


def test_any_thread_may_render(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(
        "{% macro m(t) %}{% for c in t %}{{ c | upper }}{% endfor %}{% endmacro %}{{ m(messages[0].content) }}"
    )
    chat = c_api.ChatTemplate(tmp_path)
    wrong: list[str] = []

    def work(letter: str) -> None:
        for _ in range(50):
            text = chat.render({"messages": [{"role": "user", "content": letter * 200}]})
            if text != letter.upper() * 200:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    chat.destroy()


def test_a_template_in_the_tokenizer_config_counts_as_well(mini_checkpoint: Path, tmp_path: Path) -> None:
    template = (mini_checkpoint / "chat_template.jinja").read_text(encoding="utf-8")
    config = {"bos_token": {"content": "<s>"}, "chat_template": template}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    chat = c_api.ChatTemplate(tmp_path)
    assert chat.format([("assistant", "x")]) == "<s><|turn>model\nx<turn|>\n<|turn>model\n"
    chat.destroy()
