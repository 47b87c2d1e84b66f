"""Text to token ids and back: the checkpoint's `tokenizer.json` and chat template, through the `tokenizers` package.

`Runtime` owns one `Tokenizer` per engine that has the files; engines without them serve token ids only. Special tokens
written in a text become their ids, as Hugging Face does; nothing is added that the text does not say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgrt.errors import ContractMismatch, InvalidArgument, Unsupported
from dgrt.plain import MAX_INT32, MAX_INT64, checked_ids, checked_integer, plain_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RawTokenizer

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@contextmanager
def _own_errors(what: str) -> Iterator[None]:
    """The tokenizers package raises plain Exception; a panic of Rust is not even that. Both become ContractMismatch."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise ContractMismatch(f"{what}: {error}") from None


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
    def from_folder(
        cls, folder: Path, files: Container[str], read: Callable[[str], bytes] | None = None
    ) -> Tokenizer | None:
        """Reads the tokenizer of an engine package; None if the package has none.

        Args:
            folder: The package.
            files: The names that its manifest lists; no other file is opened.
            read: Returns the content of a file. None: from the folder.

        Raises:
            Unsupported: If the `tokenizers` package is not installed.
            ContractMismatch: If a file cannot be read.
        """
        if TOKENIZER_FILE not in files:
            return None
        try:
            from tokenizers import Tokenizer as RawTokenizer
        except ImportError as error:
            raise Unsupported(f"text needs the package 'tokenizers' ({error}): pip install tokenizers") from None
        read = read or (lambda name: (folder / name).read_bytes())
        with _own_errors(f"cannot read the tokenizer in {folder}"):
            raw = RawTokenizer.from_buffer(read(TOKENIZER_FILE))
            config = json.loads(read(CONFIG_FILE).decode()) if CONFIG_FILE in files else {}
        if not isinstance(config, dict):
            raise ContractMismatch(f"{folder / CONFIG_FILE}: expected a JSON object, found {type(config).__name__}")
        raw.no_padding()
        raw.no_truncation()
        return cls(raw, config)

    def encode(self, text: str, *, most: int | None = None, what: str = "prompt") -> list[int]:
        """Returns the ids of `text`; special tokens written in it become their ids, none are added.

        Args:
            text: Any text; surrogate pairs are joined.
            most: Refuse a text that is certain to have more tokens than this, before it is tokenized.
            what: What to call the text in that error.

        Raises:
            InvalidArgument: If it is no text, or has more tokens than `most`.
        """
        text = plain_text("the text", text)
        most = most if most is None else checked_integer("most", most, 0, MAX_INT64)
        if most is not None and len(text) > most and (least := self._sizes.least_tokens(text)) > most:
            raise InvalidArgument(
                f"{what} of at least {least} tokens leaves no room for one canvas in the context of {most}"
            )
        # Of one text, but the only form that lets other threads run meanwhile.
        with _own_errors("the tokenizer of this engine cannot encode the text"):
            ids: list[int] = self._raw.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Returns the text of `ids`; bytes that are not UTF-8 become U+FFFD.

        Raises:
            InvalidArgument: If they are no token ids.
        """
        return self.decode_checked(list(checked_ids("ids", ids)), skip_special_tokens=skip_special_tokens)

    def decode_checked(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Returns the same of ids that are known to be plain integers."""
        with _own_errors("the tokenizer of this engine cannot decode the tokens"):
            text: str = self._raw.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def text_of(self, token: int) -> str | None:
        """Returns what the vocabulary calls a token; None if it has none of this id.

        Raises:
            InvalidArgument: If it is no integer.
        """
        token = checked_integer("token", token, -MAX_INT64, MAX_INT64)
        name: str | None = self._raw.id_to_token(token) if 0 <= token <= MAX_INT32 else None
        return name

    def named_tokens(self) -> dict[str, str]:
        """Returns the named tokens of the config, such as "bos_token", as chat templates see them."""
        values = {name: self.config[name] for name in self.config if name.endswith("_token")}
        for key in ("extra_special_tokens", "model_specific_special_tokens"):
            more = self.config.get(key)
            values |= more if isinstance(more, dict) else {}
        texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in values.items()}
        return {name: text for name, text in texts.items() if isinstance(text, str)}

    @cached_property
    def _sizes(self) -> TokenSizes:
        return TokenSizes.of(self._raw)

    def ends_inside_bytes(self, ids: Sequence[int]) -> int:
        """Returns how many of the last `ids` are byte tokens ("<0xE2>"), which only decode as a whole run."""
        count = 0
        for token_id in reversed(ids):
            if not _BYTE_TOKEN.fullmatch(self.text_of(int(token_id)) or ""):
                break
            count += 1
        return count


@dataclass(frozen=True)
class TokenSizes:
    """How much text one token can stand for: what bounds the tokens of a text from below without tokenizing it.

    Attributes:
        most: Most characters (bytes if `in_bytes`) of a text that become one token. None: there is no such bound.
        in_bytes: Whether texts are measured in bytes of UTF-8.
        eats_space: Whether a token can also take any amount of white space beside it.

    Example:
        >>> TokenSizes(most=4, in_bytes=True, eats_space=False).least_tokens("Grüße")
        2
    """

    most: int | None
    in_bytes: bool = False
    eats_space: bool = False

    @classmethod
    def of(cls, raw: RawTokenizer) -> TokenSizes:
        """Returns the bound of a tokenizer whose parts are all known to lose no text; else no bound."""
        from tokenizers import pre_tokenizers
        from tokenizers.models import BPE

        splits, replacements = _parts(raw.pre_tokenizer), _parts(raw.normalizer)
        in_bytes = any(part["type"] == "ByteLevel" for part in splits)
        vocab, model = raw.get_vocab(with_added_tokens=False), raw.model
        if not isinstance(model, BPE) or not all(_loses_nothing(part, in_bytes) for part in [*splits, *replacements]):
            return cls(None)
        if in_bytes:
            has_all = all(letter in vocab for letter in pre_tokenizers.ByteLevel.alphabet())
        else:
            has_all = model.byte_fallback and all(f"<0x{byte:02X}>" in vocab for byte in range(256))
            has_all = has_all or (model.unk_token in vocab and not model.fuse_unk)
        if not has_all:  # a text of unknown characters can be no token at all, or one
            return cls(None)
        added = raw.get_added_tokens_decoder().values()
        texts = [raw.normalizer.normalize_str(one.content) if replacements else one.content for one in added]
        texts += [one.content for one in added]
        sizes = [len(text.encode()) if in_bytes else len(text) for text in texts]
        eats_space = any(one.lstrip or one.rstrip for one in added)
        return cls(max([*map(len, vocab), *sizes, 1]), in_bytes, eats_space)

    def least_tokens(self, text: str) -> int:
        """Returns a number of tokens that `text` has at least."""
        if self.most is None:
            return 0
        if self.eats_space:
            text = "".join(text.split())
        return -(-len(text.encode() if self.in_bytes else text) // self.most)


def _parts(step: Any) -> list[dict[str, Any]]:
    """Returns the parts of a normalizer or pre-tokenizer as its file has them; of none, an empty list."""
    if step is None:
        return []
    state = json.loads(step.__getstate__())
    inner = state.get("normalizers", state.get("pretokenizers")) if state["type"] == "Sequence" else None
    return [state] if inner is None else list(inner)


def _loses_nothing(part: dict[str, Any], in_bytes: bool) -> bool:
    """Returns whether what a part makes of a text is never shorter."""
    if part["type"] == "Replace":
        old, new = part["pattern"].get("String"), part["content"]
        return old is not None and (len(new.encode()) >= len(old.encode()) if in_bytes else len(new) >= len(old))
    if part["type"] == "Split":
        return bool(part["behavior"] != "Removed")
    return part["type"] in ("ByteLevel", "Metaspace", "Prepend", "Digits")


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
        text = self._tokenizer.decode_checked(self._ids[:settled]).rstrip("\ufffd")
        return self._advance(text)

    def finish(self) -> str:
        """Returns the text that was held back; bytes that never completed become U+FFFD."""
        text = self._tokenizer.decode_checked(self._ids)
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
