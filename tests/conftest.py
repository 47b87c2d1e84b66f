"""Fixtures that several test folders share: the bundled checkpoint, engines exported from it once per run.

An engine is exported with `dgrt_export.export`, the call behind `dgrt export`, and never changed afterwards: tests that
damage a package work on a copy.
"""

from __future__ import annotations

from pathlib import Path

import models
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def _export(checkpoint: Path, folder: Path) -> Path:
    import dgrt_export

    dgrt_export.export(checkpoint, folder)
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def mini_checkpoint() -> Path:
    """The trained checkpoint that the package ships."""
    return REPOSITORY / "dgrt" / "models" / "mini"


@pytest.fixture(scope="session")
def mini_engine(mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mini`, exported in the checkpoint's own precision."""
    return _export(mini_checkpoint, tmp_path_factory.mktemp("engines") / "mini")


@pytest.fixture(scope="session")
def plain_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, small enough for tests about handles, threads and files (canvas 32, vocabulary 301)."""
    folder = tmp_path_factory.mktemp("plain")
    return _export(models.build_checkpoint(models.spec("plain"), folder / "checkpoint"), folder / "engine")


@pytest.fixture(scope="session")
def ort_library() -> str:
    """Path of the ONNX Runtime library of the installed wheel."""
    from dgrt.ort import wheel_library

    library = wheel_library()
    assert library is not None, "the onnxruntime wheel is a dependency of the package"
    return str(library)
