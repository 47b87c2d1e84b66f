"""The fingerprint of a checkpoint, which a drafter names its target by."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import models
from safetensors.torch import load_file, save_file


def fingerprint_of(folder: Path) -> str:
    from dgrt_export.checkpoint import open_checkpoint
    from dgrt_export.config import parse_config, read_json
    from dgrt_export.fingerprint import fingerprint

    return fingerprint(open_checkpoint(folder, parse_config(read_json(folder / "config.json"))))


def by_hand(folder: Path) -> str:
    """As export/README.md tells it, with the library's own reader."""
    import torch

    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors.update(load_file(path))
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if "vision" in name:
            continue
        dtype = {torch.float32: "F32", torch.bfloat16: "BF16"}[tensor.dtype]
        digest.update((json.dumps([name, list(tensor.shape), dtype], separators=(",", ":")) + "\n").encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()[:4096])
    return digest.hexdigest()


def test_it_is_what_the_readme_says_and_stands_in_the_manifest(engines, checkpoints):
    for name in ("plain", "bf16_sharded", "mini"):
        expected = by_hand(checkpoints(name))
        assert json.loads((engines(name) / "manifest.json").read_text())["source"]["fingerprint"] == expected
    converted = json.loads((engines("plain", precision="bf16") / "manifest.json").read_text())
    assert converted["source"]["fingerprint"] == by_hand(checkpoints("plain"))  # of the source, not of the package


def test_it_depends_on_every_tensor_and_not_on_what_is_left_out(checkpoints, tmp_path):
    folder = models.copy_checkpoint(checkpoints("plain"), tmp_path / "c")
    before, tensors = fingerprint_of(folder), load_file(folder / "model.safetensors")
    norm = tensors["model.decoder.norm.weight"]
    for name, differs in (("model.decoder.norm.weight", True), ("model.encoder.vision_tower.extra", False)):
        save_file({**tensors, name: norm + 1}, folder / "model.safetensors")
        assert (fingerprint_of(folder) != before) == differs, name


def test_it_does_not_depend_on_how_tensors_are_divided_into_files(checkpoints, tmp_path):
    source = checkpoints("bf16_sharded")
    folder = models.copy_checkpoint(source, tmp_path / "c")
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors.update(load_file(path))
        path.unlink()
    (folder / "model.safetensors.index.json").unlink()
    save_file(tensors, folder / "model.safetensors")
    assert fingerprint_of(folder) == fingerprint_of(source)
