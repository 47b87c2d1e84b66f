"""Text to ids and back, and text that arrives in portions."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import models
import pytest
from cases import TEXTS

from dgrt import ContractMismatch, InvalidArgument
from dgrt.tokenizer import Detokenizer, Tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_encoding_and_decoding(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_written_in_text_become_their_ids(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<bos>a<turn|>")
    assert (ids[0], ids[-1]) == (models.SPECIAL["<bos>"], models.SPECIAL["<turn|>"])


def test_encoding_adds_no_token_that_the_text_does_not_say(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("abc")) == 3


def test_decoding_drops_special_tokens_unless_asked(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<bos>a<turn|>")
    assert tokenizer.decode(ids) == "a"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<bos>a<turn|>"


def test_files_that_the_manifest_does_not_list_are_not_opened(tokenizer_folder: Path) -> None:
    assert Tokenizer.from_folder(tokenizer_folder, ()) is None
    bare = Tokenizer.from_folder(tokenizer_folder, ["tokenizer.json"])
    assert bare is not None and bare.config == {}


@pytest.mark.parametrize(("name", "text"), [("tokenizer.json", "{"), ("tokenizer_config.json", "[]")])
def test_a_damaged_tokenizer_is_reported_with_its_folder(
    tokenizer_folder: Path, tmp_path: Path, name: str, text: str
) -> None:
    shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ContractMismatch, match=tmp_path.name):
        Tokenizer.from_folder(tmp_path, ["tokenizer.json", name])


def test_named_tokens_are_read_in_both_spellings(tokenizer: Tokenizer) -> None:
    plain = Tokenizer(tokenizer._raw, {"bos_token": "<bos>", "eos_token": {"content": "<eos>"}, "x": 1})
    assert plain.named_tokens() == {"bos_token": "<bos>", "eos_token": "<eos>"}


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_whole_text_wherever_the_portions_end(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    for seed in range(20):
        rng, detokenizer, pieces, begin = random.Random(seed), Detokenizer(tokenizer, ()), [], 0
        while begin < len(ids):
            end = begin + rng.randint(1, 3)
            pieces.append(detokenizer.push(ids[begin:end]))
            begin = end
        assert not any("\ufffd" in piece for piece in pieces)
        pieces.append(detokenizer.finish())
        assert "".join(pieces) == detokenizer.text == text


@pytest.mark.parametrize("content", [{}, {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}])
def test_a_tokenizer_that_the_package_refuses_or_panics_on_is_an_error_of_ours(tmp_path, content) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ContractMismatch, match="cannot read the tokenizer in "):
        Tokenizer.from_folder(tmp_path, ["tokenizer.json"])


def test_a_text_that_the_package_cannot_encode_is_an_error_of_ours(tmp_path) -> None:
    model = {"type": "BPE", "unk_token": "<gone>", "vocab": {"a": 0}, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
    tokenizer = Tokenizer.from_folder(tmp_path, ["tokenizer.json"])
    assert tokenizer is not None and tokenizer.encode("a") == [0]
    with pytest.raises(ContractMismatch, match="cannot encode the text: .*<gone>"):
        tokenizer.encode("b")


def test_half_a_character_is_held_back_until_it_is_whole(tokenizer: Tokenizer) -> None:
    ids, detokenizer = tokenizer.encode("a€"), Detokenizer(tokenizer, ())
    assert [detokenizer.push([i]) for i in ids] == ["a", "", "", "€"]


def test_bytes_that_never_become_a_character_appear_at_the_end(tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(tokenizer, ())
    assert detokenizer.push(tokenizer.encode("a€")[:-1]) == "a"
    assert detokenizer.finish() == "\ufffd"
    assert detokenizer.text == "a\ufffd"


def test_invalid_bytes_inside_the_text_do_not_stop_the_stream(tokenizer: Tokenizer) -> None:
    broken, detokenizer = [*tokenizer.encode("a€")[:-1], *tokenizer.encode("b")], Detokenizer(tokenizer, ())
    pieces = [detokenizer.push([i]) for i in broken] + [detokenizer.finish()]
    assert "".join(pieces) == "a\ufffdb" == tokenizer.decode(broken)


def test_stop_ids_are_not_text_even_where_the_tokenizer_knows_them_as_ordinary(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ab")
    detokenizer = Detokenizer(tokenizer, [ids[1]])
    assert detokenizer.push(ids) + detokenizer.finish() == "a"


def test_byte_fallback_tokens_are_held_until_their_run_ends() -> None:
    from tokenizers import Tokenizer as RawTokenizer
    from tokenizers import decoders, models

    names = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁word"]
    raw = RawTokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], byte_fallback=True))
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    detokenizer = Detokenizer(Tokenizer(raw, {}), ())
    euro, word = [0xE2, 0x82, 0xAC], names.index("▁word")
    # A run that turns out broken decodes differently as a whole; nothing of it may have been emitted before.
    portions = [[word], euro, [euro[0]], [word], euro, [word]]
    pieces = [detokenizer.push(portion) for portion in portions] + [detokenizer.finish()]
    assert pieces[1] == ""
    assert "".join(pieces) == Tokenizer(raw, {}).decode([i for portion in portions for i in portion])


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenized(tokenizer: Tokenizer) -> None:
    class Untouched:
        """The tokenizer without a way to tokenize."""

        def __getattr__(self, name: str) -> Any:
            assert not name.startswith("encode"), "it was tokenized"
            return getattr(tokenizer._raw, name)

    untouched = Tokenizer(Untouched(), {})  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="prompt of at least [0-9]+ tokens leaves no room .* context of 512"):
        untouched.encode("x" * 10**6, most=512)
    assert len(tokenizer.encode("x" * 512, most=512)) == 512


@pytest.mark.parametrize("ids", [[-1], [2**40], ["1"], [1.0], "12", None, [True]])
def test_what_is_no_token_id_is_not_decoded(tokenizer: Tokenizer, ids: Any) -> None:
    with pytest.raises(InvalidArgument, match="ids"):
        tokenizer.decode(ids)
