"""Checkpoints and packages that several export tests share; each is built once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import models
import pytest

try:
    import dgrt_export  # noqa: F401
except ImportError:  # a source tree that was not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "export"))

Checkpoints = Callable[[str], Path]
Engines = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two busy torch processes with a thread per core slow each other down a hundredfold."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Folder of the checkpoint of a named spec. Read only."""
    root = tmp_path_factory.mktemp("checkpoints")

    def build(name: str) -> Path:
        folder = root / name
        return folder if folder.exists() else models.build_checkpoint(models.spec(name), folder)

    return build


@pytest.fixture(scope="session")
def engines(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    """Package of a named spec, exported with the given options. Read only."""
    from dgrt_export import export

    root, done = tmp_path_factory.mktemp("engines"), {}

    def build(name: str, **options: str) -> Path:
        key = (name, *sorted(options.items()))
        if key not in done:
            done[key] = root / "-".join([name, *options.values()])
            export(checkpoints(name), done[key], **options)
        return done[key]

    return build
