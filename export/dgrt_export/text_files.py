"""The text files of a package: configs, tokenizer, chat template; which one is meant is decided as transformers does.

A package has one chat template, and another one for tools if the checkpoint has, each in a file of its own, whatever
place it was found in; and the named tokens are all in tokenizer_config.json. So a runtime reads one place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import read_file, read_json
from .errors import InvalidCheckpoint, mismatch
from .foreign import has_file

TEMPLATE_FILE = "chat_template.jinja"
TOOL_TEMPLATE_FILE = "chat_template.tool_use.jinja"
_COPIED_FILES = ("config.json", "generation_config.json", "tokenizer.json")
_TOKENIZER_FILE, _TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
_TOKENS_FILE = "special_tokens_map.json"  # of older checkpoints
_MORE_TEMPLATES = "additional_chat_templates"
_PROCESSOR_FILES = ("chat_template.json", "processor_config.json")  # what only AutoProcessor reads
# Names of tokens that the tokenizer class of this model family has by itself.
_GEMMA_CLASSES = (None, "GemmaTokenizer", "GemmaTokenizerFast")
_GEMMA_TOKENS = {
    "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>",
}  # fmt: skip


@dataclass(frozen=True)
class TextFiles:
    """Content of the text files of a package.

    Attributes:
        contents: Bytes by the name that the file has in the package.
        template: The file of the checkpoint that the chat template comes from; None if there is none.
        notes: What whoever exports should know; nothing of it stops an export.
    """

    contents: Mapping[str, bytes]
    template: str | None
    notes: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Writes the files into a package."""
        for name, content in self.contents.items():
            (folder / name).write_bytes(content)

    def template_problems(self) -> tuple[str, ...]:
        """A note for each template that cannot be compiled. Imports transformers."""
        from transformers.utils.chat_template_utils import render_jinja_template

        notes = []
        for name in (TEMPLATE_FILE, TOOL_TEMPLATE_FILE):
            if name in self.contents:
                try:
                    render_jinja_template([], chat_template=self.contents[name].decode("utf-8"))  # compiles, no more
                except Exception as error:  # of Jinja, or of the Python code that it makes
                    reason = " ".join(str(error).split())
                    notes.append(f"the chat template cannot be compiled: {reason}; token ids and raw text work")
        return tuple(notes)


def read_text_files(checkpoint: Path) -> TextFiles:
    """Reads the text files of a checkpoint and decides which chat template is meant.

    The order is that of AutoTokenizer (chat_template.jinja with additional_chat_templates, then tokenizer_config.json),
    then what only AutoProcessor reads (chat_template.json, processor_config.json).

    Raises:
        InvalidCheckpoint: A file is no JSON, no UTF-8, or holds something else than a template where one belongs.

    Example:
        >>> read_text_files(Path("checkpoints/mini")).template  # doctest: +SKIP
        'chat_template.jinja'
    """
    contents = {name: read_file(checkpoint / name) for name in _COPIED_FILES if has_file(checkpoint / name)}
    if _TOKENIZER_FILE not in contents:
        note = f"no {_TOKENIZER_FILE}: the engine takes and gives token ids only"
        return TextFiles(contents, None, (note,))
    _require_tokenizer(contents[_TOKENIZER_FILE])
    contents[_TOKENIZER_CONFIG_FILE] = _tokenizer_config(checkpoint)
    candidates = _templates(checkpoint)
    for where, named in candidates:
        if "default" in named:
            contents[TEMPLATE_FILE] = named["default"].encode()
            if "tool_use" in named:
                contents[TOOL_TEMPLATE_FILE] = named["tool_use"].encode()
            chosen = named["default"]
            others = [place for place, texts in candidates if texts.get("default", chosen) != chosen]
            notes = [f"{place} holds another chat template; that of {where} is taken" for place in others]
            if not chosen.strip():
                notes.append(f"the chat template of {where} is empty: every text prompt becomes nothing")
            return TextFiles(contents, where, tuple(notes))
    found = f"only the templates {', '.join(sorted(candidates[0][1]))} in {candidates[0][0]}" if candidates else "none"
    note = f"chat template: expected one, found {found}: text prompts go to the model as they are"
    return TextFiles(contents, None, (note,))


def _templates(checkpoint: Path) -> list[tuple[str, dict[str, str]]]:
    """The places that hold chat templates, in order, each with its templates by name."""
    jinja = {}
    if has_file(checkpoint / TEMPLATE_FILE):
        jinja["default"] = _read_text(checkpoint / TEMPLATE_FILE)
    for path in sorted((checkpoint / _MORE_TEMPLATES).glob("*.jinja")):
        jinja[path.stem] = _read_text(path)
    places = [(TEMPLATE_FILE, jinja)]
    for name in (_TOKENIZER_CONFIG_FILE, *_PROCESSOR_FILES):
        value = read_json(checkpoint / name).get("chat_template") if has_file(checkpoint / name) else None
        places.append((name, _named(name, value)))
    return [(where, named) for where, named in places if named]


def _named(where: str, value: Any) -> dict[str, str]:
    """Templates by name from the value of a config: one text, a list of named ones, or an object."""
    if value is None:
        return {}
    if isinstance(value, str):
        value = {"default": value}
    if isinstance(value, list) and all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in value):
        value = {one["name"]: one.get("template") for one in value}
    if not isinstance(value, dict) or not all(_is_text(part) for pair in value.items() for part in pair):
        expected = "a text, or texts by name"
        raise InvalidCheckpoint(mismatch(f"{where} chat_template", expected, json.dumps(value)[:80]))
    return value


def _is_text(value: Any) -> bool:
    """JSON can also spell half a surrogate pair, which is no text: no file can hold it."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _require_tokenizer(content: bytes) -> None:
    """An engine whose tokenizer cannot be read cannot be opened, so it is not made."""
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_buffer(content)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the package raises plain Exception, and a panic of Rust is not even that
        remedy = "save the tokenizer again, or remove the file: then the engine takes and gives token ids"
        raise InvalidCheckpoint(mismatch(_TOKENIZER_FILE, "what the tokenizers package reads", error, remedy)) from None


def _read_text(path: Path) -> str:
    has_file(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidCheckpoint(mismatch(f"{path}", "UTF-8 text", error)) from None


def _tokenizer_config(checkpoint: Path) -> bytes:
    """The file with the named tokens that transformers would add from elsewhere; as it is where there are none."""
    path, legacy = checkpoint / _TOKENIZER_CONFIG_FILE, checkpoint / _TOKENS_FILE
    config = read_json(path) if has_file(path) else {}
    merged = {**_GEMMA_TOKENS, **config} if config.get("tokenizer_class") in _GEMMA_CLASSES else dict(config)
    if has_file(legacy) and "added_tokens_decoder" not in config:
        merged |= read_json(legacy)
    return path.read_bytes() if merged == config else json.dumps(merged, indent=2).encode()
