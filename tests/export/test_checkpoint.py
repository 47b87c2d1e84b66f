"""Reading safetensors headers that somebody else wrote: damaged, hostile, incomplete, quantised."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import models
import pytest
from safetensors.torch import load_file, save_file


def write_raw(path: Path, header: object, payload: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + payload)
    return path


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "payload", "length"),
    [
        ({"a": tensor()}, b"x" * 8, 1 << 62),  # header longer than any file
        ({"a": tensor()}, b"x" * 8, 10_000),  # header longer than this file
        ({"a": tensor()}, b"x" * 8, 0),
        (b"{not json", b"", None),
        (b"[1, 2]", b"", None),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": 1}', b"x" * 4, None),  # twice
        ({"a": tensor()}, b"x" * 4, None),  # data shorter than promised
        ({"a": tensor()}, b"x" * 12, None),  # and longer
        ({"a": tensor(offsets=(0, 80))}, b"x" * 8, None),  # offsets do not match the shape
        ({"a": tensor(offsets=(8, 0))}, b"x" * 8, None),
        ({"a": tensor(shape=(-2,))}, b"x" * 8, None),
        ({"a": tensor(shape=("2",))}, b"x" * 8, None),
        ({"a": tensor(shape=(1 << 40, 1 << 40))}, b"x" * 8, None),
        ({"a": tensor(), "b": tensor()}, b"x" * 8, None),  # overlapping
        ({"a": tensor(), "b": tensor(offsets=(12, 20))}, b"x" * 20, None),  # a hole
        ({"a": {"dtype": "F32"}}, b"", None),
        ({"a": 7}, b"", None),
        (b"[" * 100_000, b"", None),  # nesting
    ],
)
def test_a_broken_header_is_refused_with_its_file_name(tmp_path, header, payload, length):
    from dgrt_export import InvalidCheckpoint
    from dgrt_export.checkpoint import read_header

    with pytest.raises(InvalidCheckpoint, match=r"bad\.safetensors.*expected .* found "):
        read_header(write_raw(tmp_path / "bad.safetensors", header, payload, length))


def test_a_file_without_room_for_a_length_is_refused(tmp_path):
    from dgrt_export import InvalidCheckpoint
    from dgrt_export.checkpoint import read_header

    (tmp_path / "bad.safetensors").write_bytes(b"abc")
    with pytest.raises(InvalidCheckpoint, match="header length"):
        read_header(tmp_path / "bad.safetensors")


def test_a_dtype_that_nobody_knows_here_has_the_length_that_its_offsets_say(tmp_path):
    from dgrt_export import InvalidCheckpoint
    from dgrt_export.checkpoint import read_header

    path = write_raw(tmp_path / "x.safetensors", {"a": tensor(dtype="F4", offsets=(0, 1))}, b"x")
    assert read_header(path)["a"].num_bytes == 1
    with pytest.raises(InvalidCheckpoint, match="F4.*expected 0 bytes, found -1"):
        read_header(write_raw(path, {"a": tensor(dtype="F4", offsets=(1, 0))}, b"x"))


def test_headers_agree_with_the_safetensors_library(checkpoints):
    from dgrt_export.checkpoint import read_header

    path = checkpoints("six_layers_bf16") / "model.safetensors"
    content, theirs = path.read_bytes(), load_file(path)
    entries = read_header(path)
    assert set(entries) == set(theirs)
    for name, entry in entries.items():
        expected = theirs[name].contiguous().view(-1).view(dtype=__import__("torch").uint8).numpy().tobytes()
        assert content[entry.offset : entry.offset + entry.num_bytes] == expected and entry.shape == tuple(
            theirs[name].shape
        )


def open_copy(source: Path, folder: Path, change):
    """Opens a copy of a single-file checkpoint whose tensors `change` has edited."""
    from dgrt_export.checkpoint import open_checkpoint
    from dgrt_export.config import parse_config, read_json

    copy = models.copy_checkpoint(source, folder)
    tensors = load_file(copy / "model.safetensors")
    change(tensors)
    save_file(tensors, copy / "model.safetensors")
    return open_checkpoint(copy, parse_config(read_json(copy / "config.json")))


@pytest.mark.parametrize("name", [
    "model.decoder.layers.1.self_attn.k_proj.weight", "model.encoder.language_model.layers.0.layer_scalar",
    "model.decoder.self_conditioning.pre_norm.weight", "model.decoder.embed_tokens.weight",
])  # fmt: skip
def test_a_missing_tensor_is_named(checkpoints, tmp_path, name):
    from dgrt_export import InvalidCheckpoint

    with pytest.raises(InvalidCheckpoint, match=f"{name}: expected shape .* found no such tensor"):
        open_copy(checkpoints("plain"), tmp_path / "c", lambda tensors: tensors.pop(name))


def test_a_wrong_shape_is_named(checkpoints, tmp_path):
    from dgrt_export import InvalidCheckpoint

    name = "model.decoder.layers.0.router.scale"
    with pytest.raises(InvalidCheckpoint, match=rf"{name} in model.safetensors: expected \[64\], found \[32\]"):
        open_copy(checkpoints("plain"), tmp_path / "c", lambda t: t.update({name: t[name][:32].clone()}))


def test_a_quantised_checkpoint_fails_loudly(checkpoints, tmp_path):
    import torch
    from dgrt_export import Unsupported

    scale = "model.decoder.layers.0.mlp.gate_proj.weight_scale"
    with pytest.raises(Unsupported, match=scale):
        open_copy(checkpoints("plain"), tmp_path / "c", lambda t: t.update({scale: torch.ones(1)}))
    name = "model.decoder.layers.0.mlp.gate_proj.weight"
    with pytest.raises(Unsupported, match="F8_E4M3"):
        open_copy(checkpoints("plain"), tmp_path / "d", lambda t: t.update({name: t[name].to(torch.float8_e4m3fn)}))


def test_vision_tensors_and_tied_copies_are_passed_over(checkpoints, tmp_path):
    def change(tensors):
        tensors["lm_head.weight"] = tensors["model.decoder.embed_tokens.weight"].clone()

    found = open_copy(checkpoints("plain"), tmp_path / "c", change)
    assert found.has_vision and "lm_head.weight" not in found.tensors
    assert not any("vision" in name for name in found.tensors)


def open_sharded(folder: Path):
    from dgrt_export.checkpoint import open_checkpoint
    from dgrt_export.config import parse_config, read_json

    return open_checkpoint(folder, parse_config(read_json(folder / "config.json")))


def test_shards_are_found_through_the_index(checkpoints):
    found = open_sharded(checkpoints("bf16_sharded"))
    assert [path.name for path in found.files] == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    assert found.precision() == "bf16"


def test_a_missing_shard_is_named(checkpoints, tmp_path):
    from dgrt_export import InvalidCheckpoint

    copy = models.copy_checkpoint(checkpoints("bf16_sharded"), tmp_path / "c")
    (copy / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InvalidCheckpoint, match=r"expected model-00002-of-00003\.safetensors"):
        open_sharded(copy)


def test_a_tensor_in_two_shards_is_refused(checkpoints, tmp_path):
    from dgrt_export import InvalidCheckpoint

    copy = models.copy_checkpoint(checkpoints("bf16_sharded"), tmp_path / "c")
    first, second = (copy / f"model-0000{n}-of-00003.safetensors" for n in (1, 2))
    name, value = next(iter(load_file(first).items()))
    save_file({**load_file(second), name: value}, second)
    with pytest.raises(InvalidCheckpoint, match=name):
        open_sharded(copy)


@pytest.mark.parametrize(
    "file", ["../model.safetensors", "/etc/passwd", "sub/x.safetensors", "model.bin", "a\\b.safetensors"]
)
def test_an_index_cannot_point_outside_the_folder(checkpoints, tmp_path, file):
    from dgrt_export import InvalidCheckpoint

    copy = models.copy_checkpoint(checkpoints("bf16_sharded"), tmp_path / "c")
    index = json.loads((copy / "model.safetensors.index.json").read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = file
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidCheckpoint, match="plain"):
        open_sharded(copy)


def test_a_folder_without_weights_says_what_it_looked_for(checkpoints, tmp_path):
    from dgrt_export import InvalidCheckpoint

    (tmp_path / "config.json").write_text((checkpoints("plain") / "config.json").read_text())
    with pytest.raises(
        InvalidCheckpoint, match=r"model\.safetensors or model\.safetensors\.index\.json, found neither"
    ):
        open_sharded(tmp_path)
