"""A tokenizer folder and facts of an imaginary engine, for tests that need no native code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import models
import pytest

from dgrt.messages import ChatTemplate
from dgrt.tokenizer import Tokenizer

LISTED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")  # by the manifest of the imaginary engine


@dataclass(frozen=True)
class Facts:
    """The part of EngineInfo that prompts look at."""

    vocab_size: int = 301
    context_len: int = 512
    bos_token_id: int | None = models.SPECIAL["<bos>"]


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    found = Tokenizer.from_folder(tokenizer_folder, LISTED)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def chat(tokenizer_folder: Path, tokenizer: Tokenizer) -> ChatTemplate:
    found = ChatTemplate.from_folder(tokenizer_folder, LISTED, tokenizer)
    assert found is not None
    return found


@pytest.fixture
def facts() -> Facts:
    return Facts()
