"""The native tokenizer against Hugging Face's `tokenizers`: the same ids for every text, the same text for every ids.

Each kind of tokenizer.json that the native code reads has a small one here, made so that the rare rules meet: byte
tokens that are missing, added tokens that overlap, strip white space, or are looked for in normalized text.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from boundary import c_api
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Reference

from dgrt.messages import ChatTemplate
from dgrt.tokenizer import Tokenizer as PythonTokenizer

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>"]
NEARLY_BYTE_TOKENS = ["<0x+9>", "<0xc3>", "<0x9>", "<0xG0>", "<0x-1>"]  # the first two count as bytes
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
ROUNDS = 100  # random texts and id sequences per kind, ten times as many where they are cheap


def training_text(repository: Path) -> list[str]:
    names = ["README.md", "csrc/README.md", "tests/README.md", "CHANGELOG.md"]
    lines = [line for name in names for line in (repository / name).read_text(encoding="utf-8").splitlines()]
    return lines + ["Grüße aus Köln", "日本語のテキスト", "Привет, мир", "😀😀👍🏽", "na\u0308ive café"] * 20


def gemma_like(text: list[str], *, byte_tokens: list[str] = BYTE_TOKENS, fuse_unk: bool = True) -> Reference:
    raw = Reference(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=fuse_unk))
    raw.normalizer = normalizers.Replace(" ", "▁")
    # Trained with pieces of up to four words, so that merges cross spaces as Gemma's runs of white space do.
    lines = [line.split(" ") for line in text]
    pieces = [" ".join(words[i : i + 4]) for words in lines for i in range(0, len(words), 4)]
    raw.train_from_iterator(
        [*pieces, *("x" + " " * n for n in range(2, 20))],
        trainers.BpeTrainer(vocab_size=2000, special_tokens=[*SPECIAL, *byte_tokens], show_progress=False),
    )
    # The trainer keeps byte tokens as added tokens; in released files they are plain tokens of the model.
    content = json.loads(raw.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in SPECIAL]
    raw = Reference.from_str(json.dumps(content))
    raw.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return raw


def with_awkward_tokens(raw: Reference) -> Reference:
    raw.add_special_tokens([
        AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True),
        AddedToken("<both>", lstrip=True, rstrip=True), AddedToken("<normal>", normalized=True),
    ])  # fmt: skip
    raw.add_tokens([
        AddedToken("\n\n", normalized=False), AddedToken("\n\n\n", normalized=False),
        AddedToken("▁▁", normalized=False), AddedToken("<right> <left>", normalized=False),
        AddedToken("<righ", normalized=False), AddedToken("é", normalized=False),
        AddedToken("a b", normalized=True), AddedToken("b▁c", normalized=True),
        AddedToken("  ", lstrip=True, normalized=True),
        *(AddedToken(name, normalized=False) for name in NEARLY_BYTE_TOKENS),
    ])  # fmt: skip
    return raw


def byte_level(text: list[str], *, prefix: bool, ignore_merges: bool) -> Reference:
    raw = Reference(models.BPE(ignore_merges=ignore_merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=True)
    raw.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=1500, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )  # fmt: skip
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    return raw


def rivals() -> Reference:
    """Several ways to the same token: the queue then holds entries whose pair has changed under them."""
    vocab = {name: i for i, name in enumerate(["a", "b", "ab", "ba", "aa", "aba", "bb", "abab", "aab", "abb"])}
    merges = [
        ("b", "b"), ("a", "ba"), ("ab", "a"), ("a", "b"), ("aa", "b"), ("b", "a"), ("ab", "ab"), ("a", "a"),
        ("a", "ab"), ("ab", "b"), ("a", "bb"), ("aba", "b"), ("a", "b"),
    ]  # fmt: skip
    raw = Reference(models.BPE(vocab=vocab, merges=merges))
    raw.decoder = decoders.ByteLevel()
    return raw


KINDS: dict[str, Callable[[list[str]], Reference]] = {
    "gemma": gemma_like,
    "gemma with awkward tokens": lambda text: with_awkward_tokens(gemma_like(text)),
    "gemma without some bytes": lambda text: gemma_like(text, byte_tokens=BYTE_TOKENS[0x90:]),
    "gemma without some bytes, unknowns apart": lambda text: gemma_like(
        text, byte_tokens=BYTE_TOKENS[0x90:], fuse_unk=False
    ),
    "byte level": lambda text: byte_level(text, prefix=False, ignore_merges=False),
    "byte level with prefix space": lambda text: with_awkward_tokens(byte_level(text, prefix=True, ignore_merges=True)),
    "rivals": lambda text: rivals(),
}


@dataclass(frozen=True)
class Pair:
    """A native tokenizer and its oracle."""

    kind: str
    native: c_api.Tokenizer
    reference: Reference

    def expected_ids(self, text: str) -> list[int]:
        ids: list[int] = self.reference.encode(text, add_special_tokens=False).ids
        return ids


@pytest.fixture(scope="module", params=["mini", *KINDS])
def pair(
    request: pytest.FixtureRequest, repository: Path, mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    folder = mini_checkpoint
    if request.param != "mini":
        folder = tmp_path_factory.mktemp("tokenizer")
        KINDS[request.param](training_text(repository)).save(str(folder / "tokenizer.json"))
    native = c_api.Tokenizer(folder)
    yield Pair(request.param, native, Reference.from_file(str(folder / "tokenizer.json")))
    native.destroy()


def check_encoding(pair: Pair, text: str) -> None:
    found, expected = pair.native.encode(text), pair.expected_ids(text)
    assert found == expected, repr(text[:200])


def random_text(rng: random.Random) -> str:
    parts: list[Callable[[], str]] = [
        lambda: rng.choice([*SPECIAL, "<left>", "<right>", "<both>", "<normal>", "<righ", "<0x41>", "<right> <left>"]),
        lambda: rng.choice(" \t\n\u00a0\u2003\u3000\u200b▁") * rng.randint(1, 7),
        lambda: rng.choice(["the", "canvas", "token", "Grüße", "é", "a b", "b c", "abab", "aabba", "日本語", "<|"]),
        lambda: "".join(chr(rng.randrange(0x20, 0x250)) for _ in range(rng.randint(1, 6))),
        lambda: "".join(rng.choice("ab") for _ in range(rng.randint(1, 12))),
        lambda: chr(rng.choice([*range(0x80), *range(0xE000, 0x11000), *range(0x1F000, 0x1FB00)])),
        lambda: "e\u0301\u200d👩\u200d👩\u200d👧\ufeff\x00\r\n",
    ]
    return "".join(rng.choice(parts)() for _ in range(rng.randint(0, 12)))


def test_every_code_point_gets_the_same_ids(pair: Pair) -> None:
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    if pair.kind not in {"mini", "gemma", "byte level"}:  # the others are variants of these three
        points = random.Random(4).sample(points, len(points) // 8)
    for begin in range(0, len(points), 4096):
        check_encoding(pair, "".join(map(chr, points[begin : begin + 4096])))


def test_random_mixtures_get_the_same_ids(pair: Pair) -> None:
    rng = random.Random(1)
    for _ in range(10 * ROUNDS):
        check_encoding(pair, random_text(rng))


def test_white_space_and_special_tokens_side_by_side(pair: Pair) -> None:
    tokens = [*SPECIAL, "<left>", "<right>", "<both>", "<normal>", "\n\n", "  ", "a b"]
    for left in tokens:
        for right in tokens:
            for space in ["", " ", "  ", "\n", " \t ", "\n\n\n", "\u3000 ", "▁▁▁", "x", " é "]:
                check_encoding(pair, space + left + space + right + space)


def test_empty_and_long_texts(pair: Pair, repository: Path) -> None:
    check_encoding(pair, "")
    text = "\n".join(training_text(repository))
    check_encoding(pair, (text * (100_000 // len(text) + 1))[:100_000])
    for unit in ["a", " ", "ab", "\n", "é", "😀"]:
        check_encoding(pair, unit * 20_000)


def random_ids(rng: random.Random, pair: Pair) -> list[int]:
    size: int = pair.reference.get_vocab_size()
    named = [pair.reference.token_to_id(name) for name in [*BYTE_TOKENS, *NEARLY_BYTE_TOKENS]]
    byte_ids = [token for token in named if token is not None] or [0]
    parts: list[Callable[[], list[int]]] = [
        lambda: [rng.randrange(size) for _ in range(rng.randint(1, 5))],
        lambda: [rng.choice(byte_ids) for _ in range(rng.randint(1, 5))],
        lambda: [rng.randrange(min(size, len(SPECIAL)))],
        lambda: [size + rng.randrange(1000)],  # ids of the model that no token has
        lambda: pair.expected_ids(random_text(rng))[rng.randint(0, 2) :],  # may begin inside a character
    ]
    return [token for _ in range(rng.randint(0, 6)) for token in rng.choice(parts)()]


def test_random_ids_get_the_same_text(pair: Pair) -> None:
    rng = random.Random(2)
    for _ in range(10 * ROUNDS):
        tokens = random_ids(rng, pair)
        for keep in (False, True):
            expected = pair.reference.decode(tokens, skip_special_tokens=not keep)
            assert pair.native.decode(tokens, keep_special=keep) == expected, tokens


def test_text_in_portions_is_the_whole_text_wherever_they_end(pair: Pair) -> None:
    rng = random.Random(3)
    detokenizers = {keep: c_api.Detokenizer(pair.native, keep_special=keep) for keep in (False, True)}
    for _ in range(ROUNDS):
        tokens = random_ids(rng, pair)
        for keep, detokenizer in detokenizers.items():
            pieces, begin = [], 0
            while begin < len(tokens):
                end = begin + rng.randint(1, 3)
                pieces.append(detokenizer.push(tokens[begin:end]))
                begin = end
            pieces.append(detokenizer.finish())
            assert "".join(pieces) == pair.native.decode(tokens, keep_special=keep), tokens
    for detokenizer in detokenizers.values():
        detokenizer.destroy()


def test_text_that_can_no_longer_change_is_not_held_back(pair: Pair) -> None:
    detokenizer = c_api.Detokenizer(pair.native)
    for token in pair.expected_ids("aab ba"):
        assert detokenizer.push([token]) == pair.native.decode([token])
    assert detokenizer.finish() == ""
    detokenizer.destroy()


def test_chat_turns_are_those_of_the_jinja_template(mini_checkpoint: Path) -> None:
    listed = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    tokenizer = PythonTokenizer.from_folder(mini_checkpoint, listed)
    assert tokenizer is not None
    jinja = ChatTemplate.from_folder(mini_checkpoint, listed, tokenizer)
    assert jinja is not None
    native = c_api.ChatTemplate(mini_checkpoint)
    turns = [("system", "Be brief."), ("user", " Grüße {{ x }}\n"), ("assistant", ""), ("user", "<turn|>")]
    for count in range(1, len(turns) + 1):
        messages = [{"role": role, "content": content} for role, content in turns[:count]]
        assert native.format(turns[:count]) == jinja.render(messages)
    native.destroy()
