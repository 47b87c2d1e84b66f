"""The bound that refuses a long text before it is tokenized: never above the tokens that the text really has."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from dgrt.tokenizer import TokenSizes

from .test_tokenizer import KINDS, gemma_like, random_text, training_text

LONG = [
    "a" * 5000, " " * 5000, "\n" * 5000, "é" * 3000, "😀" * 2000, "ab " * 2000, " " * 900 + "<left>",
    "\t" * 999 + "<both>",
]  # fmt: skip
BOUNDED = {  # kinds that lose no text; in the others a token may be of any amount of it, or there may be none
    "gemma": True, "gemma with awkward tokens": True, "gemma without some bytes": False,
    "gemma without some bytes, unknowns apart": True, "byte level": True, "byte level with prefix space": True,
    "rivals": False,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_is_never_above_the_tokens_of_a_text(repository: Path, kind: str) -> None:
    raw = KINDS[kind](training_text(repository))
    sizes, rng = TokenSizes.of(raw), random.Random(5)
    assert (sizes.most is not None) == BOUNDED[kind]
    for text in [*LONG, *(random_text(rng) for _ in range(400))]:
        assert sizes.least_tokens(text) <= len(raw.encode(text, add_special_tokens=False).ids), repr(text[:100])
    if sizes.most is not None:
        assert sizes.least_tokens("word " * 10_000) > 100


def test_what_may_lose_text_has_no_bound(repository: Path) -> None:
    text = training_text(repository)
    for normalizer in (normalizers.NFC(), normalizers.Strip(), normalizers.Replace("ab", "c")):
        raw = gemma_like(text)
        raw.normalizer = normalizers.Sequence([normalizer])
        assert TokenSizes.of(raw).least_tokens("x" * 10_000) == 0
    for splitter in (pre_tokenizers.Whitespace(), pre_tokenizers.Split(" ", "removed")):
        raw = gemma_like(text)
        raw.pre_tokenizer = splitter
        assert TokenSizes.of(raw).least_tokens("x" * 10_000) == 0
    assert TokenSizes.of(Tokenizer(models.Unigram([("<unk>", 0.0)], 0))).least_tokens("x" * 10_000) == 0


def test_an_added_token_counts_as_it_is_looked_for(repository: Path) -> None:
    raw = gemma_like(training_text(repository))
    raw.normalizer = normalizers.Replace("q", "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq")
    raw.add_tokens([AddedToken("qq", normalized=True)])
    for text in ("qq" * 500, "q" * 333):
        assert TokenSizes.of(raw).least_tokens(text) <= len(raw.encode(text, add_special_tokens=False).ids)
