"""The examples of docstrings and READMEs run as they are written, with the bundled model as `engine`."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import dgrt

MODULES = [
    "dgrt",
    "dgrt.chat",
    "dgrt.cli.bench",
    "dgrt.cli.trace_file",
    "dgrt.info",
    "dgrt.messages",
    "dgrt.prompt",
    "dgrt.result",
    "dgrt.runtime",
    "dgrt.serving",
    "dgrt.stream",
    "dgrt.tokenizer",
    "dgrt.translate",
]


@pytest.fixture
def engine_here(mini_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "engine").symlink_to(mini_engine, target_is_directory=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run_on_an_engine(engine_here: None, mini: dgrt.Runtime, name: str) -> None:
    names = {"dgrt": dgrt, "rt": mini, "tokenizer": mini.tokenizer}
    outcome = doctest.testmod(importlib.import_module(name), extraglobs=names)
    assert outcome.attempted > 0 and outcome.failed == 0


def test_the_example_of_the_package_readme_runs(engine_here: None, repository: Path, capsys: Any) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (repository / "dgrt" / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out
