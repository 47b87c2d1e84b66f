"""Fixtures that several test folders share: checkpoints and the engines exported from them, each made once per run.

An engine is exported with `dgrt_export.export`, the call behind `dgrt export`, and never changed afterwards: tests that
damage a package work on a copy.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import models
import pytest

# Tests interrupt themselves and the processes they start. A run in the background of a script begins with Ctrl-C
# ignored, and its children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that import `onnxruntime` themselves report nothing to its maker either (dgrt/ort.py).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

REPOSITORY = Path(__file__).resolve().parents[1]

Checkpoints = Callable[[str], Path]
Drafters = Callable[[str, str], Path]
Engines = Callable[..., Path]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tokenizer and chat template of `models.py`, without a model."""
    folder = tmp_path_factory.mktemp("tokenizer")
    models.write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def mini_checkpoint() -> Path:
    """The trained checkpoint that the package ships."""
    return REPOSITORY / "dgrt" / "models" / "mini"


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, mini_checkpoint: Path) -> Checkpoints:
    """Folder of the checkpoint of a name: "mini", or one of `models.RANDOM_SPECS`. Read only."""
    root = tmp_path_factory.mktemp("checkpoints")

    def build(name: str) -> Path:
        if name == "mini":
            return mini_checkpoint
        folder = root / name
        return folder if folder.exists() else models.build_checkpoint(models.spec(name), folder)

    return build


@pytest.fixture(scope="session")
def drafters(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Drafters:
    """Folder of a random drafter for the checkpoint of a name, its weights in "fp32" or "bf16". Read only."""
    root = tmp_path_factory.mktemp("drafters")

    def build(name: str, dtype: str) -> Path:
        folder = root / f"{name}-{dtype}"
        spec = models.DrafterSpec(dtype=dtype)
        return folder if folder.exists() else models.build_drafter(spec, checkpoints(name), folder)

    return build


@pytest.fixture(scope="session")
def engines(checkpoints: Checkpoints, drafters: Drafters, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    """Package of a name, exported with the given options. Read only.

    `drafter` is the dtype of a random drafter: `engines("plain", drafter="fp32")`.
    """
    import torch
    from dgrt_export import export

    torch.set_num_threads(1)  # the manifest states the parity error: an export is reproducible for a number of threads
    root, done = tmp_path_factory.mktemp("engines"), {}

    def build(name: str, **options: str) -> Path:
        key = (name, *sorted(options.items()))
        if key not in done:
            done[key] = root / "-".join([name, *(f"{option}-{value}" for option, value in options.items())])
            drafter = drafters(name, options.pop("drafter")) if "drafter" in options else None
            export(checkpoints(name), done[key], drafter=drafter, **{"profile": "portable", **options})
        return done[key]

    return build


@pytest.fixture(scope="session")
def mini_engine(engines: Engines) -> Path:
    """`mini`, exported in the checkpoint's own precision."""
    return engines("mini")


@pytest.fixture(scope="session")
def plain_engine(engines: Engines) -> Path:
    """A random model, small enough for tests about handles, threads and files (canvas 32, vocabulary 301)."""
    return engines("plain")


@pytest.fixture(scope="session")
def ort_library() -> str:
    """Path of the ONNX Runtime library of the installed wheel."""
    from dgrt.ort import wheel_library

    library = wheel_library()
    assert library is not None, "the onnxruntime wheel is a dependency of the package"
    return str(library)
