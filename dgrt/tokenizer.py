"""Text to token ids and back: the checkpoint's `tokenizer.json` and chat template, through the `tokenizers` package.

`Runtime` owns one `Tokenizer` per engine that has the files; engines without them serve token ids only. Special tokens
written in a text become their ids, as Hugging Face does; nothing is added that the text does not say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgrt.errors import ContractMismatch, Unsupported

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RawTokenizer

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Tokenizer:
    """Encodes and decodes for one engine. Any thread.

    Args:
        raw: The tokenizer of the `tokenizers` package.
        config: Content of `tokenizer_config.json`.

    Example:
        >>> tokenizer = Tokenizer.from_folder(rt.path, rt.info.files)
        >>> tokenizer.decode(tokenizer.encode("Grüße"))
        'Grüße'
    """

    def __init__(self, raw: RawTokenizer, config: dict[str, Any]) -> None:
        self._raw = raw
        self.config = config

    @classmethod
    def from_folder(cls, folder: Path, files: Container[str]) -> Tokenizer | None:
        """Reads the tokenizer of an engine package; None if the package has none.

        Args:
            folder: The package.
            files: The names that its manifest lists; no other file is opened.

        Raises:
            Unsupported: If the `tokenizers` package is not installed.
            ContractMismatch: If a file cannot be read.
        """
        if TOKENIZER_FILE not in files:
            return None
        try:
            from tokenizers import Tokenizer as RawTokenizer
        except ImportError:
            raise Unsupported("text needs the package 'tokenizers': pip install tokenizers") from None
        try:
            raw = RawTokenizer.from_file(str(folder / TOKENIZER_FILE))
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")) if CONFIG_FILE in files else {}
        except Exception as error:  # the tokenizers package raises plain Exception
            raise ContractMismatch(f"cannot read the tokenizer in {folder}: {error}") from None
        if not isinstance(config, dict):
            raise ContractMismatch(f"{folder / CONFIG_FILE}: expected a JSON object, found {type(config).__name__}")
        raw.no_padding()
        raw.no_truncation()
        return cls(raw, config)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`; special tokens written in it become their ids, none are added."""
        ids: list[int] = self._raw.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Returns the text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        text: str = self._raw.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)
        return text

    def token(self, name: str) -> str | None:
        """Returns the text of a named token of the config, such as "bos_token"; None if there is none."""
        value = self.config.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        return value if isinstance(value, str) else None

    def ends_inside_bytes(self, ids: Sequence[int]) -> int:
        """Returns how many of the last `ids` are byte tokens ("<0xE2>"), which only decode as a whole run."""
        count = 0
        for token_id in reversed(ids):
            if not _BYTE_TOKEN.fullmatch(self._raw.id_to_token(int(token_id)) or ""):
                break
            count += 1
        return count


class Detokenizer:
    """Turns tokens that arrive in portions into text pieces; holds back what a later token may still change.

    The pieces, joined, equal `Tokenizer.decode` of all tokens without stop ids. Each push decodes from the start: a
    canvas costs far more than that.

    Args:
        tokenizer: Who decodes.
        stop_ids: Ids that are not text even where the tokenizer does not call them special.

    Example:
        >>> first, *rest = tokenizer.encode("€")  # three byte tokens
        >>> pieces = Detokenizer(tokenizer, ())
        >>> pieces.push([first]), pieces.push(rest)
        ('', '€')
    """

    def __init__(self, tokenizer: Tokenizer, stop_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = frozenset(stop_ids)
        self._ids: list[int] = []
        self._emitted = ""

    def push(self, ids: Iterable[int]) -> str:
        """Takes the next tokens and returns the text that has become final."""
        self._ids.extend(int(i) for i in ids if int(i) not in self._stop_ids)
        settled = len(self._ids) - self._tokenizer.ends_inside_bytes(self._ids)
        text = self._tokenizer.decode(self._ids[:settled]).rstrip("\ufffd")
        return self._advance(text)

    def finish(self) -> str:
        """Returns the text that was held back; bytes that never completed become U+FFFD."""
        text = self._tokenizer.decode(self._ids)
        piece = self._advance(text)
        self._emitted = text
        return piece

    @property
    def text(self) -> str:
        """All text so far."""
        return self._emitted

    def _advance(self, text: str) -> str:
        if not text.startswith(self._emitted):
            return ""
        piece = text[len(self._emitted) :]
        self._emitted = text
        return piece
