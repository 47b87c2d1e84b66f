"""Files of prompts: JSON lines or plain text, told apart by what they hold; a line that does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgrt import InvalidArgument
from dgrt.prompts_file import PromptLine, read_prompts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prompts"


def test_json_lines_have_prompts_messages_or_tokens(path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    path.write_text(
        '{"prompt": "json\\nname=Ana", "task": "json"}\n\n'
        '{"messages": [{"role": "user", "content": "Hi"}]}\r\n{"tokens": [2, 5]}'
    )
    expected = [PromptLine("json\nname=Ana", "json"), PromptLine(messages), PromptLine([2, 5])]
    assert read_prompts(path) == read_prompts(path, plain=True) == expected


def test_plain_text_has_a_prompt_per_line(path: Path) -> None:
    path.write_text('one\n\nFix this: {"a": 1\r\n{"a": 1}\n["prompt"]\n7\n')
    found = [line.content for line in read_prompts(path, plain=True)]
    assert found == ["one", 'Fix this: {"a": 1', '{"a": 1}', '["prompt"]', "7"]


def test_a_line_separator_inside_a_json_text_ends_no_line(path: Path) -> None:
    path.write_text('{"prompt": "a\u2028b"}\n')
    assert read_prompts(path)[0].content == "a\u2028b"


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("{", "a JSON object, as in other lines"), ("Why?", "a JSON object"), ("{}", "one of prompt, messages"),
        ("[]", "one of prompt, messages, tokens"), ('{"prompt": "a", "tokens": [1]}', "one of prompt, messages"),
        ('{"prompt": ""}', "prompt with content"), ('{"tokens": "abc"}', "tokens with content"),
        ('{"prompt": "a", "task": 1}', "a name as task"), ("[" * 100_000, "a JSON object"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", ['{"prompt": "fine"}\n\n{}\n', '{}\n\n{"prompt": "fine"}\n'], ids=["last", "first"])
def test_among_json_lines_a_line_of_another_kind_is_named(
    path: Path, before: str, line: str, error: str, plain: bool
) -> None:
    path.write_text(before.replace("{}", line))
    number = 3 if before.endswith("{}\n") else 1
    with pytest.raises(InvalidArgument, match=f"line {number}: expected .*{error}.*found"):
        read_prompts(path, plain=plain)


@pytest.mark.parametrize(("content", "error"), [(b"\n \n", "at least one prompt"), (b"\xff\xfe", "expected a file of")])
def test_a_file_without_prompts_is_refused(path: Path, content: bytes, error: str) -> None:
    path.write_bytes(content)
    for plain in (True, False):
        with pytest.raises(InvalidArgument, match=error):
            read_prompts(path, plain=plain)


def test_a_missing_file_is_refused(path: Path) -> None:
    with pytest.raises(InvalidArgument, match="expected a file of JSON lines, found .*No such file"):
        read_prompts(path)


@pytest.mark.parametrize(
    "content",
    ['{"custom_id": "1", "body": {}}\n{"custom_id": "2"}', '["a", "b"]', '[{"prompt": "a"},\n{"prompt": "b"}]',
     '{\n  "prompt": "a"\n}\n', '{"text": "a"}'],
)  # fmt: skip
def test_json_of_another_form_is_not_measured_as_text(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(InvalidArgument, match="line 1: expected .*JSON object|line 1: expected an object with one of"):
        read_prompts(path, plain=True)


def test_a_byte_order_mark_is_no_part_of_a_prompt(path: Path) -> None:
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\n')
    assert [line.content for line in read_prompts(path, plain=True)] == ["a"]
    path.write_bytes(b"\xef\xbb\xbfa\n")
    (line,) = read_prompts(path, plain=True)
    assert (line.content, line.where) == ("a", f"{path} line 1")
