"""Which folder and which files are the checkpoint: as transformers decides, and what is none is recognised."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import models
import pytest

LAYOUTS = 240
SHARDS = [f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3)]
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 4492624\n"
MERGE = "merge_and_unload"


def lay_out(rng: random.Random, folder: Path) -> None:
    """A random mixture of what lies in such folders."""

    def maybe(chance: float) -> bool:
        return rng.random() < chance

    folder.mkdir()
    if maybe(0.4):
        rng.choice([
            lambda path: path.write_bytes(b"x"), lambda path: path.write_bytes(b"x"), lambda path: path.mkdir(),
            lambda path: path.symlink_to("nowhere"),
        ])(folder / SINGLE)  # fmt: skip
    for name in SHARDS:
        if maybe(0.85):
            (folder / name).write_bytes(b"x")
    if maybe(0.7):
        names = rng.choice([SHARDS, SHARDS, SHARDS[:2], [SHARDS[0], "old.safetensors"]])
        weight_map = {f"tensor.{n}": rng.choice(names) for n in range(8)}
        (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    for name, chance in {
        "pytorch_model.bin": 0.2, "pytorch_model.bin.index.json": 0.1, "model.fp16.safetensors": 0.1,
        "old.safetensors": 0.1, "consolidated.safetensors": 0.1, "optimizer.pt": 0.1, "q4.gguf": 0.1,
        "adapter_config.json": 0.05, "adapter_model.safetensors": 0.05,
        "shard-00000-model-00001-of-00001.safetensors": 0.05,
    }.items():  # fmt: skip
        if maybe(chance):
            index = {"metadata": {}, "weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}
            (folder / name).write_text(json.dumps(index) if name.endswith(".json") else "x")


@pytest.mark.parametrize("seed", range(LAYOUTS))
def test_the_files_are_those_of_transformers_or_the_refusal_names_what_is_there(tmp_path, seed):
    from dgrt_export import ExportError
    from dgrt_export.files import weight_files
    from transformers.distributed.checkpoint import is_sharded_checkpoint
    from transformers.modeling_utils import _get_resolved_checkpoint_files

    folder = tmp_path / "c"
    lay_out(random.Random(seed), folder)
    names = {path.name for path in folder.iterdir()}
    try:
        theirs = {Path(file).name for file in _get_resolved_checkpoint_files(folder, None, None, None, None, False)[0]}
    except OSError:
        theirs = set()
    try:
        ours = weight_files(folder)
    except ExportError as error:
        message = str(error)
        assert " expected " in message and "\n" not in message
        adapters = {name for name in names if name.startswith("adapter_")}
        if adapters:
            assert any(name in message for name in adapters) and MERGE in message
        elif is_sharded_checkpoint(folder):
            assert "shard-00000-model" in message
        elif all(name.endswith(".bin") for name in theirs):  # of nothing, too
            assert any(name in message for name in names) or "neither" in message
        else:
            assert any(name in message for name in theirs - names)
        return
    taken = {path.name for path in ours.paths}
    assert taken == theirs and not is_sharded_checkpoint(folder)
    passed_over = {name for name in names if name.endswith(".safetensors") or name == INDEX} - taken
    passed_over -= {INDEX} if len(taken) > 1 or SINGLE not in taken else set()
    assert bool(passed_over) == bool(ours.notes)
    assert not passed_over or any(name in ours.notes[0] for name in passed_over)


@pytest.fixture
def sharded(checkpoints, tmp_path) -> Path:
    return models.copy_checkpoint(checkpoints("bf16_sharded"), tmp_path / "c")


def opened(folder: Path):
    from dgrt_export.checkpoint import open_checkpoint
    from dgrt_export.config import parse_config, read_json
    from dgrt_export.files import find_checkpoint

    source = find_checkpoint(folder)
    return open_checkpoint(source, parse_config(read_json(source / "config.json")))


def merged(folder: Path) -> models.RawTensors:
    parts = [models.read_raw(path) for path in sorted(folder.glob("model-*.safetensors"))]
    return {name: tensor for part in parts for name, tensor in part.items()}


def test_a_single_file_wins_over_an_old_index_and_the_old_index_is_told(sharded):
    import torch
    from transformers import DiffusionGemmaForBlockDiffusion

    name = "model.decoder.embed_tokens.weight"
    tensors = merged(sharded)
    new = tensors[name][2][2:] + tensors[name][2][:2]
    models.write_raw(sharded / SINGLE, {**tensors, name: (*tensors[name][:2], new)})
    found = opened(sharded)
    entry = found.tensors[name]
    assert [path.name for path in found.files] == [SINGLE]
    assert entry.file.read_bytes()[entry.offset : entry.offset + entry.num_bytes] == new
    assert len(found.notes) == 1 and INDEX in found.notes[0] and "4" not in found.notes[0].split(INDEX)[0]
    theirs = DiffusionGemmaForBlockDiffusion.from_pretrained(sharded, dtype=torch.bfloat16).get_parameter(name)
    assert theirs.detach().view(torch.uint8).numpy().tobytes() == new


@pytest.mark.parametrize("change", ["listed but not there", "there but not listed", "in another shard"])
def test_an_index_that_does_not_fit_its_files_is_named_and_the_files_count(sharded, change):
    index = json.loads((sharded / INDEX).read_text())
    name = "model.decoder.norm.weight"
    if change == "listed but not there":
        name = "lm_head.weight"
        index["weight_map"][name] = SHARDS[0]
    elif change == "there but not listed":
        del index["weight_map"][name]
    else:
        index["weight_map"][name] = next(file for file in SHARDS if file != index["weight_map"][name])
    (sharded / INDEX).write_text(json.dumps(index))
    notes = opened(sharded).notes
    assert len(notes) == 1 and INDEX in notes[0] and "stale" in notes[0] and name in notes[0]


def test_an_index_without_a_shard_that_holds_needed_tensors_names_the_tensor(sharded):
    from dgrt_export import InvalidCheckpoint

    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file != SHARDS[2]}
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(InvalidCheckpoint, match=r"tensor model\.\S+: expected shape .* no such tensor"):
        opened(sharded)


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def hub_cache(folder: Path) -> Path:
    for name in ("0aaa", "9bbb"):
        (folder / "snapshots" / name).mkdir(parents=True)
        (folder / "snapshots" / name / "config.json").write_text("{}")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("9bbb")
    return folder


def adapter_alone(folder: Path) -> Path:
    (empty(folder) / "adapter_config.json").write_text("{}")
    return folder


def trainer_output(folder: Path) -> Path:
    (folder / "checkpoint-500").mkdir(parents=True)
    (folder / "checkpoint-500" / "config.json").write_text("{}")
    return folder


def gguf_folder(folder: Path) -> Path:
    (empty(folder) / "model-Q4_K_M.gguf").write_bytes(b"GGUF\3\0\0\0")
    return folder


def gguf_file(folder: Path) -> Path:
    return gguf_folder(folder) / "model-Q4_K_M.gguf"


def safetensors_file(folder: Path) -> Path:
    (empty(folder) / SINGLE).write_bytes(bytes(16))
    return folder / SINGLE


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (hub_cache, ["config.json", "snapshots/9bbb"]),
        (trainer_output, ["config.json", "checkpoint-500"]),
        (adapter_alone, ["adapter alone", "adapter_config.json", MERGE]),
        (gguf_folder, ["GGUF", "model-Q4_K_M.gguf", "bf16", "--precision int8"]),
        (gguf_file, ["GGUF", "model-Q4_K_M.gguf", "bf16", "--precision int8"]),
        (safetensors_file, ["expected a folder, found a file", "give the folder that holds model.safetensors"]),
        (empty, ["expected a file config.json, found none"]),
        (lambda folder: folder, ["expected a folder, found none"]),
        (lambda folder: folder.parent / ("x" * 300), ["expected a folder", "name too long"]),
        (lambda folder: str(folder) + "\0", ["expected a folder, found none"]),
    ],
)
def test_what_is_no_checkpoint_folder_is_told_with_the_way_out(tmp_path, make, words):
    from dgrt_export import ExportError
    from dgrt_export.files import find_checkpoint

    with pytest.raises(ExportError) as caught:
        find_checkpoint(make(tmp_path / "c"))
    assert all(word.lower() in str(caught.value).lower() for word in words), str(caught.value)


@pytest.mark.parametrize("site", ["", "https://huggingface.co/"])
def test_a_hub_id_is_answered_with_the_command_that_downloads_it(site):
    from dgrt_export import InvalidCheckpoint
    from dgrt_export.files import find_checkpoint

    command = "hf download google/diffusiongemma-26B-A4B-it --local-dir diffusiongemma-26B-A4B-it"
    with pytest.raises(InvalidCheckpoint, match=f"dgrt does not download; run `{command}`"):
        find_checkpoint(f"{site}google/diffusiongemma-26B-A4B-it")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["pytorch_model.bin"], ["pickle", "pytorch_model.bin", "safetensors"]),
        (["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"], ["pickle"]),
        (["model.fp16.safetensors"], ["model.fp16.safetensors", "rename"]),
        (["adapter_model.safetensors", SINGLE], ["adapter beside it", "adapter_model.safetensors", MERGE]),
        (["shard-00000-model-00001-of-00001.safetensors", SINGLE], ["distributed"]),
        ([], ["model.safetensors or model.safetensors.index.json, found neither"]),
    ],
)
def test_weights_in_another_form_are_refused_by_name(tmp_path, names, words):
    from dgrt_export import ExportError
    from dgrt_export.files import weight_files

    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ExportError) as caught:
        weight_files(tmp_path)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("file", [INDEX, SHARDS[1], "config.json"])
def test_a_git_lfs_pointer_of_a_sharded_checkpoint_is_recognised(sharded, file):
    from dgrt_export import InvalidCheckpoint

    (sharded / file).write_text(POINTER)
    with pytest.raises(InvalidCheckpoint, match=f"{file}: .* found a Git LFS pointer to it; run `git lfs pull`"):
        opened(sharded)


def test_a_git_lfs_pointer_that_is_not_read_stops_nothing(sharded):
    (sharded / "tokenizer.model").write_text(POINTER)
    (sharded / "consolidated.safetensors").write_text(POINTER)
    assert "consolidated.safetensors" in opened(sharded).notes[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(200), ["pickle"]),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(200), ["pickle"]),
        (b"GGUF\3\0\0\0" + bytes(200), ["GGUF"]),
        (b"", ["header length", "0 bytes"]),
        (b"Invalid username or password.", ["header length"]),
    ],
)
def test_weights_of_another_format_under_the_name_of_ours_are_recognised(checkpoints, tmp_path, content, words):
    from dgrt_export import ExportError

    folder = models.copy_checkpoint(checkpoints("plain"), tmp_path / "c")
    (folder / SINGLE).write_bytes(content)
    with pytest.raises(ExportError) as caught:
        opened(folder)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_drafter_goes_through_the_same_reader(checkpoints, drafters, tmp_path):
    from dgrt_export import ExportError, export

    for number, (file, content, words) in enumerate([
        ("drafter.safetensors", POINTER.encode(), "drafter.safetensors: .* Git LFS pointer"),
        ("config.json", b"<!doctype html>", "config.json: .* HTML page"),
        ("drafter.safetensors", None, r"tensor mask: .* NaN at \[3\] in drafter.safetensors"),
    ]):  # fmt: skip
        folder = models.copy_checkpoint(drafters("plain", "fp32"), tmp_path / str(number))
        if content is None:
            tensors = models.read_raw(folder / file)
            dtype, shape, data = tensors["mask"]
            tensors["mask"] = (dtype, shape, data[:12] + b"\0\0\xc0\x7f" + data[16:])
            models.write_raw(folder / file, tensors)
        else:
            (folder / file).write_bytes(content)
        with pytest.raises(ExportError, match=words):
            export(checkpoints("plain"), tmp_path / "e", drafter=folder)
    assert not (tmp_path / "e").exists()


def test_the_report_has_the_notes_in_words_and_as_json(sharded, tmp_path, capsys):
    from dgrt.cli import main

    logging.getLogger("transformers").setLevel(logging.ERROR)
    models.write_raw(sharded / SINGLE, merged(sharded))
    generation = json.loads((sharded / "generation_config.json").read_text())
    (sharded / "generation_config.json").write_text(json.dumps({**generation, "eos_token_id": 1}))
    assert main(["export", str(sharded), "-o", str(tmp_path / "e"), "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert len(notes) == 2 and INDEX in notes[0] and "the stop ids [1] lack 3 (<turn|>)" in notes[1]
    assert main(["export", str(sharded), "-o", str(tmp_path / "e"), "--force"]) == 0
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")] == [
        f"note: {note}" for note in notes
    ]
