"""The examples of docstrings, READMEs and --help run as they are written, with the bundled model: what they print."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dgrt
from dgrt.cli import build_parser

MODULES = [
    "dgrt",
    "dgrt.chat",
    "dgrt.cli.bench",
    "dgrt.cli.demo",
    "dgrt.cli.trace_file",
    "dgrt.hints",
    "dgrt.info",
    "dgrt.messages",
    "dgrt.prompt",
    "dgrt.prompts_file",
    "dgrt.result",
    "dgrt.runtime",
    "dgrt.serving",
    "dgrt.stream",
    "dgrt.tokenizer",
    "dgrt.translate",
]
# What each example of a verb's --help has to print, in their order; examples that are for other models are left out.
HELP = {
    "demo": ["solved: ", '"solved": true', '{"name":"Ana"}\n'],
    "generate": [
        "", "", '{"name":"Ana","age":34}\n', '{"name":"Ana","age":34}\n', '"finish_reason": "stop"',
        '{"name":"Ana","age":34}\n', '{"name":"Ana","age":34}\n', '{"name":"Ana","age":34}\n',
    ],
    "inspect": ["mini", "all match, hashed whole", "mini", '"memory"'],
    "bench": ["tokens per second", "10 runs", ""],
    "doctor": ["generation can run", '"ok": true'],
}  # fmt: skip


@pytest.fixture
def engine_here(mini_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines under the names that examples use."""
    (tmp_path / "engines").mkdir()
    for name in ("engine", "engines/mini"):
        (tmp_path / name).symlink_to(mini_engine, target_is_directory=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run_on_an_engine(engine_here: None, mini: dgrt.Runtime, name: str) -> None:
    names = {"dgrt": dgrt, "rt": mini, "tokenizer": mini.tokenizer}
    outcome = doctest.testmod(importlib.import_module(name), extraglobs=names)
    assert outcome.attempted > 0 and outcome.failed == 0


@pytest.mark.parametrize("name", ["README.md", "dgrt/README.md"])
def test_the_examples_of_a_readme_print_what_it_says(
    engine_here: None, repository: Path, capsys: Any, name: str
) -> None:
    text = (repository / name).read_text()
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == text.count("```python") > 0  # each says what it prints
    for code, printed in blocks:
        exec(compile(code, name, "exec"), {})
        assert capsys.readouterr().out == printed


def test_the_first_commands_of_the_readme_print_what_it_says(repository: Path, tmp_path: Path) -> None:
    first = re.search(r"```sh\n(.*?)```\n\n```text\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)
    assert first is not None
    install, *commands = first[1].splitlines()
    assert install.startswith("pip install .") and len(commands) == 2
    shown, _, answer = first[2].partition("\n\n")
    solved, generated = (shell(command, tmp_path) for command in commands)
    assert generated == answer
    rows = re.findall(r"\S{9}", shown.partition("\nsolved")[0])
    assert sorted(rows) == sorted(re.findall(r"^\S{9}$", solved, re.MULTILINE)) and len(rows) == 18
    assert "\nsolved: 90 tokens in " in solved and "\nsolved: 90 tokens in 3 denoise steps, 1 canvas: " in shown


@pytest.mark.parametrize("verb", HELP)
def test_the_examples_of_help_run(verb: str, tmp_path: Path, mini_engine: Path) -> None:
    epilog = (build_parser()[1][verb].epilog or "").partition("and for a chat model:")[0]
    commands = re.findall(r"^  (\S.*?)(?:   .*)?$", epilog, re.MULTILINE)
    assert len(commands) == len(HELP[verb])
    if verb != "generate":  # whose examples make it themselves
        (tmp_path / "engine").symlink_to(mini_engine, target_is_directory=True)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "json\\nn=2"}\n')
    for command, expected in zip(commands, HELP[verb], strict=True):
        assert expected in shell(command, tmp_path), command


def shell(command: str, folder: Path) -> str:
    """What a command prints, with this Python's dgrt; `jq` shows everything, whether it is installed or not."""
    script = f'dgrt() {{ "{sys.executable}" -m dgrt "$@"; }}\njq() {{ cat; }}\n{command}\n'
    environment = {**os.environ, "PYTHONPATH": str(Path(dgrt.__file__).parents[1])}
    options: dict[str, Any] = {"cwd": folder, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run(["sh", "-ec", script], check=False, **options)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout
