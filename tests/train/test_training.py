"""The trainer's model is the reference's, and its checkpoints and published folders continue where they stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from compare import assert_close
from dgrt_train.config import ModelConfig
from dgrt_train.hf_format import load_text_tensors, text_tensors
from dgrt_train.model import DiffusionGemmaMini
from dgrt_train.parity import check_parity
from dgrt_train.schedule import RESTART
from safetensors.torch import load_file
from tolerances import tolerance

TRAIN = [sys.executable, "-m", "dgrt_train.train", "--no-compile", "--max-rows", "2"]


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


@pytest.fixture(scope="module")
def train(small_pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict]:
    """Runs the trainer once for each list of arguments, in one folder; returns the last checkpoint."""

    def run(*parts: list[str], checkpoint: dict | None = None) -> dict:
        out = tmp_path_factory.mktemp("run")
        (out / "sudoku_pool.json").write_bytes(small_pool.read_bytes())
        if checkpoint is not None:
            torch.save(checkpoint, out / "checkpoint.pt")
        for part in parts:
            subprocess.run([*TRAIN, "--out", str(out), *part], check=True, timeout=300)
        return torch.load(out / "checkpoint.pt")

    return run


@pytest.fixture(scope="module")
def two_steps(train: Callable[..., dict]) -> dict:
    return train(["--max-steps", "2"])


def test_a_resumed_run_gives_the_weights_of_an_undisturbed_one(train: Callable[..., dict], two_steps: dict) -> None:
    """Two steps at once equal one step, checkpoint, one step: data, noise and optimiser continue exactly."""
    parts = train(["--max-steps", "1"], ["--max-steps", "1", "--resume"])
    assert parts["step"] == two_steps["step"] == 2
    for name, tensor in two_steps["model"].items():
        torch.testing.assert_close(tensor, parts["model"][name], rtol=0, atol=0, msg=name)


def test_the_last_cycle_goes_on_from_what_would_be_published(
    train: Callable[..., dict], two_steps: dict, mini_checkpoint: Path
) -> None:
    """Whatever else the checkpoint of a whole run holds here, it goes on as one that starts with the folder."""
    model = DiffusionGemmaMini(ModelConfig())
    load_text_tensors(model, load_file(mini_checkpoint / "model.safetensors"))
    average = [p.detach() * (1 + 2**-12) for p in model.parameters()]  # bf16 does not tell it from the published weight
    arrived = two_steps | {"step": RESTART, "average": average}
    whole = train(["--max-steps", "1", "--resume"], checkpoint=arrived)
    part = train(["--max-steps", "1", "--start", str(mini_checkpoint)])
    assert whole["step"] == part["step"] == RESTART + 1 and whole["optimiser"]["count"] == 1
    for name, tensor in part["model"].items():
        torch.testing.assert_close(tensor, whole["model"][name], rtol=0, atol=0, msg=name)


def test_the_number_of_workers_changes_rounding_only(train: Callable[..., dict]) -> None:
    """The momentum after one step is the summed gradient of all batches, whoever computed them."""
    momentum = [train(["--max-steps", "1", "--workers", n])["optimiser"]["momentum"] for n in ("1", "2")]
    for one, two in zip(*momentum, strict=True):
        scale = one.abs().max()
        assert scale > 0
        assert_close(two / scale, one / scale, tolerance("gradient_sum"))
