"""The trainer's model is the reference's, and its checkpoints and published folders continue where they stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dgrt_train.config import ModelConfig
from dgrt_train.hf_format import load_text_tensors, text_tensors
from dgrt_train.model import DiffusionGemmaMini
from dgrt_train.parity import check_parity
from safetensors.torch import load_file

TRAIN = [sys.executable, "-m", "dgrt_train.train", "--no-compile", "--threads", "1", "--minutes", "5"]


def test_forward_passes_equal_the_reference() -> None:
    torch.set_num_threads(1)
    check_parity()  # raises with the worst difference


def test_published_weights_load_back_into_the_trainer(mini_checkpoint: Path) -> None:
    published = load_file(mini_checkpoint / "model.safetensors")
    model = DiffusionGemmaMini(ModelConfig())
    load_text_tensors(model, published)
    for name, tensor in text_tensors(model).items():
        assert torch.equal(tensor, published[name].float()), name


@pytest.fixture(scope="module")
def small_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of one puzzle per size, so that a smoke run does not search for thousands."""
    from dgrt_train.pool import SIZES, _one

    path = tmp_path_factory.mktemp("pool") / "sudoku_pool.json"
    path.write_text(json.dumps({size: [_one((size, 0))] for size in SIZES}))
    return path


def test_a_resumed_run_gives_the_weights_of_an_undisturbed_one(small_pool: Path, tmp_path: Path) -> None:
    """Two steps at once equal one step, checkpoint, one step: data, noise and optimiser continue exactly."""
    weights = []
    one_step = ["--max-steps", "1"]
    for name, parts in (("whole", [["--max-steps", "2"]]), ("parts", [one_step, [*one_step, "--resume"]])):
        out = tmp_path / name
        out.mkdir()
        (out / "sudoku_pool.json").write_bytes(small_pool.read_bytes())
        for part in parts:
            subprocess.run([*TRAIN, "--out", str(out), *part], check=True, timeout=300)
        weights.append(torch.load(out / "checkpoint.pt")["model"])
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=0, atol=0, msg=name)
