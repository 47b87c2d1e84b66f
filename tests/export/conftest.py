"""What holds for all export tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

try:
    import dgrt_export  # noqa: F401

    import dgrt  # noqa: F401
except ImportError:  # a source tree that was not installed
    root = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(root), str(root / "export")]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two busy torch processes with a thread per core slow each other down a hundredfold."""
    import torch

    torch.set_num_threads(1)
