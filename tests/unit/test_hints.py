"""How dgrt is installed: hints that work, and no text that sends a reader to a package that is not published."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from dgrt import hints

UNPUBLISHED = re.compile(r"pip3? (?:install|download)\b[^\n`|]*?(?<![\w./@-])dgrt(?:\[\w+\])?(?![\[\w./-])(?! @)")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The module as it lies in site-packages: no project beside the package."""
    monkeypatch.setattr(hints, "__file__", str(tmp_path / "site-packages" / "dgrt" / "hints.py"))
    return tmp_path


def record(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    monkeypatch.setattr(hints, "distribution", lambda name: SimpleNamespace(read_text=lambda file: text))


def test_sources_are_installed_where_they_are(repository: Path) -> None:
    assert hints.install_hint() == f"pip install -e '{repository}'"
    assert hints.install_hint("export") == f"pip install -e '{repository}[export]'"


def test_an_installed_package_names_the_folder_or_wheel_it_came_from(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, wheel = installed / "my clone", installed / "dgrt-1-py3-none-any.whl"
    clone.mkdir()
    for path in (clone / "pyproject.toml", wheel):
        path.touch()
    for path in (clone, wheel):
        record(monkeypatch, json.dumps({"url": path.as_uri()}))
        assert hints.install_hint("export") == f"pip install '{path}[export]'"


@pytest.mark.parametrize("text", [None, "", "{", "{}", '{"url": "file:///no/such/clone"}', '{"url": "https://x/y.whl"}'])
def test_without_a_usable_record_a_clone_is_named(
    installed: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    record(monkeypatch, text)
    assert hints.install_hint("export") == "pip install '.[export]' in a clone of dgrt"


def test_without_any_distribution_a_clone_is_named(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(hints, "distribution", missing)
    assert hints.install_hint() == "pip install '.' in a clone of dgrt"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pip install dgrt", True),
        ("pip install 'dgrt[export]'", True),
        ("pip install -U dgrt", True),
        ("pip install '.[export]' in a clone of dgrt", True),  # the one exception, in hints.py
        ("pip install .", False),
        ("pip install 'dgrt[export] @ file:///clone'", False),
        ("pip install build/wheelhouse/dgrt-0.1.0.whl", False),
        ("pip install onnxruntime", False),
    ],
)
def test_the_search_finds_what_it_should(text: str, found: bool) -> None:
    assert bool(UNPUBLISHED.search(text)) == found


def test_no_code_and_no_document_names_an_unpublished_package(repository: Path) -> None:
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.split("\0")
    named = []
    for name in filter(None, listed):
        path = repository / name
        if path.suffix in (".safetensors", ".onnx") or name.startswith("tests/") or not path.is_file():
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if UNPUBLISHED.search(line) and "in a clone of dgrt" not in line:
                named.append(f"{name}: {line.strip()}")
    assert not named
