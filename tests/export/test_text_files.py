"""Text files of a package: the chat template and the named tokens are those that transformers would take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import models
import pytest
from dgrt_export.errors import InvalidCheckpoint
from dgrt_export.text_files import TOOL_TEMPLATE_FILE, TextFiles, read_text_files
from transformers import AutoTokenizer
from transformers.processing_utils import ProcessorMixin

from dgrt.messages import ChatTemplate, TemplateInput
from dgrt.tokenizer import Tokenizer

TURNS = [{"role": "user", "content": "Hi"}]
LIST = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
BOS = {"__type": "AddedToken", "content": "<bos>", "lstrip": False, "rstrip": False, "normalized": False,
       "single_word": False}  # fmt: skip


def checkpoint(folder: Path, files: dict[str, Any]) -> Path:
    """A tokenizer's folder without a template, and more files: texts, bytes, or objects merged into what is there."""
    folder.mkdir(exist_ok=True)
    models.write_tokenizer(folder)
    (folder / "chat_template.jinja").unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": "diffusion_gemma"}))
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **content})
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def template(texts: TextFiles, name: str = "chat_template.jinja") -> str | None:
    return texts.contents[name].decode() if name in texts.contents else None


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({"chat_template.jinja": "J"}, "chat_template.jinja"),
        ({"chat_template.jinja": "A\r\nB {{ '\u00e9' }}\r\n"}, "chat_template.jinja"),
        ({"chat_template.jinja": "J", "tokenizer_config.json": {"chat_template": "C"}}, "chat_template.jinja"),
        ({"tokenizer_config.json": {"chat_template": "C"}}, "tokenizer_config.json"),
        ({"tokenizer_config.json": {"chat_template": LIST}}, "tokenizer_config.json"),
        ({"tokenizer_config.json": {"chat_template": {"default": "D", "rag": "R"}}}, "tokenizer_config.json"),
        ({"chat_template.jinja": "J", "additional_chat_templates/tool_use.jinja": "T"}, "chat_template.jinja"),
        ({"chat_template.jinja": "J", "additional_chat_templates/default.jinja": "D"}, "chat_template.jinja"),
        ({"tokenizer_config.json": {"chat_template": [{"name": "rag", "template": "R"}]}}, None),
        ({}, None),
    ],
)
def test_the_template_is_that_of_auto_tokenizer(tmp_path: Path, files: dict[str, Any], where: str | None) -> None:
    folder = checkpoint(tmp_path, files)
    texts, oracle = read_text_files(folder), AutoTokenizer.from_pretrained(folder)
    assert texts.template == where
    if where is None:
        assert template(texts) is None and "text prompts go to the model as they are" in texts.notes[0]
        with pytest.raises(ValueError, match="chat template"):
            oracle.get_chat_template()
    else:
        assert template(texts) == oracle.get_chat_template()
        tools = oracle.get_chat_template(tools=[])
        assert (template(texts, TOOL_TEMPLATE_FILE) or template(texts)) == tools


@pytest.mark.parametrize("file", ["chat_template.json", "processor_config.json"])
def test_a_template_that_only_the_processor_reads_is_taken(tmp_path: Path, file: str) -> None:
    folder = checkpoint(tmp_path, {file: {"chat_template": "P"}})
    texts = read_text_files(folder)
    assert (texts.template, texts.notes) == (file, ())
    assert template(texts) == ProcessorMixin.get_processor_dict(folder)[0]["chat_template"] == "P"


def test_places_that_disagree_are_told(tmp_path: Path) -> None:
    files = {"chat_template.jinja": "J", "chat_template.json": {"chat_template": "P"}}
    texts = read_text_files(checkpoint(tmp_path, files))
    assert template(texts) == "J"
    assert texts.notes == ("chat_template.json holds another chat template; that of chat_template.jinja is taken",)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer_config.json": {"bos_token": BOS, "sep_token": None, "boi_token": "<boi>"}},
        {"tokenizer_config.json": {"extra_special_tokens": {"image_token": "<img>"}}},
        {"tokenizer_config.json": {"model_specific_special_tokens": {"image": "<img>"}}},
        {"tokenizer_config.json": b"{}"},
        {"tokenizer_config.json": b'{"tokenizer_class": "GemmaTokenizer", "eos_token": "<end>"}'},
        {"special_tokens_map.json": {"sep_token": "<sep>", "bos_token": "<b>", "cls_token": {"content": "<cls>"}}},
        {"special_tokens_map.json": {"sep_token": "<sep>"}, "tokenizer_config.json": {"added_tokens_decoder": {}}},
    ],
)
def test_the_named_tokens_are_those_of_auto_tokenizer(tmp_path: Path, files: dict[str, Any]) -> None:
    folder = checkpoint(tmp_path / "checkpoint", files)
    (package := tmp_path / "package").mkdir()
    texts = read_text_files(folder)
    texts.write(package)
    tokenizer = Tokenizer.from_folder(package, texts.contents)
    assert tokenizer is not None
    assert tokenizer.named_tokens() == AutoTokenizer.from_pretrained(folder).special_tokens_map


def test_a_file_that_says_all_is_copied_as_it_is(tmp_path: Path, mini_checkpoint: Path) -> None:
    texts = read_text_files(mini_checkpoint)
    assert all(content == (mini_checkpoint / name).read_bytes() for name, content in texts.contents.items())
    assert len(texts.contents) == 5 and texts.notes == texts.template_problems() == ()


def test_the_template_for_tools_renders_conversations_with_tools(tmp_path: Path) -> None:
    sources = {"chat_template.jinja": "plain", "additional_chat_templates/tool_use.jinja": "{{ tools | tojson }}"}
    texts = read_text_files(checkpoint(tmp_path / "checkpoint", sources))
    (package := tmp_path / "package").mkdir()
    texts.write(package)
    tokenizer = Tokenizer.from_folder(package, texts.contents)
    assert tokenizer is not None
    chat = ChatTemplate.from_folder(package, texts.contents, tokenizer)
    assert chat is not None and chat.render(TURNS) == "plain"
    assert chat.render(TURNS, TemplateInput(tools=[{"name": "f"}])) == '[{"name": "f"}]'


def test_a_template_that_cannot_be_compiled_is_told_and_kept(tmp_path: Path) -> None:
    texts = read_text_files(checkpoint(tmp_path, {"chat_template.jinja": "{% for %}"}))
    assert template(texts) == "{% for %}"
    (note,) = texts.template_problems()
    assert note.startswith("the chat template cannot be compiled: ") and note.endswith("token ids and raw text work")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"chat_template.jinja": b"\xff\xfe"}, "chat_template.jinja: expected UTF-8 text"),
        ({"additional_chat_templates/x.jinja": b"\xff\xfe"}, "x.jinja: expected UTF-8 text"),
        ({"tokenizer_config.json": {"chat_template": 7}}, "tokenizer_config.json chat_template: expected a text"),
        ({"tokenizer_config.json": {"chat_template": [{"name": "default"}]}}, "expected a text, or texts by name"),
        ({"chat_template.json": b"[]"}, "chat_template.json: expected a JSON object"),
        ({"processor_config.json": b"{"}, "processor_config.json: expected readable JSON"),
        ({"tokenizer_config.json": {"chat_template": [{"name": ["x"], "template": "T"}]}}, "expected a text, or"),
        ({"tokenizer_config.json": {"chat_template": "\ud800"}}, "expected a text, or texts by name"),
        ({"tokenizer.json": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}}, "Precompiled"),
        ({"tokenizer.json": b"{}"}, "tokenizer.json: expected what the tokenizers package reads, found .*Model"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, files: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=says):
        read_text_files(checkpoint(tmp_path, files))


def test_an_empty_template_is_told(tmp_path: Path) -> None:
    texts = read_text_files(checkpoint(tmp_path, {"chat_template.jinja": "\n"}))
    assert texts.notes == ("the chat template of chat_template.jinja is empty: every text prompt becomes nothing",)


def test_half_a_surrogate_pair_in_a_config_does_not_stop_the_named_tokens(tmp_path: Path) -> None:
    odd = b'{"tokenizer_class": "GemmaTokenizer", "eos_token": "<end>", "name": "\\ud800"}'
    texts = read_text_files(checkpoint(tmp_path, {"tokenizer_config.json": odd}))
    assert json.loads(texts.contents["tokenizer_config.json"])["bos_token"] == "<bos>"


def test_without_a_tokenizer_there_are_no_texts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    texts = read_text_files(tmp_path)
    assert set(texts.contents) == {"config.json"} and texts.template is None and "token ids only" in texts.notes[0]
