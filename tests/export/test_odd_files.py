"""Names in a checkpoint folder that are no readable files, and paths that are none: refused, never waited for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import models
import pytest
from dgrt_export import InvalidCheckpoint, Unsupported, export
from dgrt_export.errors import ExportError

NEEDED = ["config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "hf_quant_config.json"]
TEXTS = ["tokenizer_config.json", "chat_template.jinja", "chat_template.json", "processor_config.json",
         "special_tokens_map.json", "additional_chat_templates/tool_use.jinja"]  # fmt: skip
TINY = models.ModelSpec(
    "odd", vocab_size=300, hidden_size=16, intermediate_size=24, num_heads=2, num_kv_heads=1, head_dim=8,
    global_head_dim=8, num_experts=4, expert_width=8, dtype="bf16", tokenizer=True, seed=22,
)  # fmt: skip
ODD = {
    "folder": (lambda path: path.mkdir(), "expected a file, found a folder"),
    "fifo": (os.mkfifo, "expected a file, found a FIFO"),
    "dangling": (lambda path: path.symlink_to("../blobs/12"), "a link to ../blobs/12, which is not there"),
    "loop": (lambda path: path.symlink_to(path.name), "expected a file, found .*symbolic links"),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return models.build_checkpoint(TINY, tmp_path_factory.mktemp("odd") / "tiny")


@pytest.fixture
def folder(tiny, tmp_path) -> Path:
    return models.copy_checkpoint(tiny, tmp_path / "c")


@pytest.fixture
def no_hang():
    """Whoever reads a FIFO waits for ever."""

    def late(signum, frame):
        raise TimeoutError("waited for a FIFO")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def judged(folder: Path) -> None:
    """What an export reads before it traces."""
    from dgrt_export.checkpoint import open_checkpoint
    from dgrt_export.config import parse_config, read_json
    from dgrt_export.files import find_checkpoint
    from dgrt_export.generation import read_generation, text_notes
    from dgrt_export.text_files import read_text_files

    source = find_checkpoint(folder)
    config = parse_config(read_json(source / "config.json"))
    generation = read_generation(source, config)
    read_text_files(source)
    open_checkpoint(source, config)
    text_notes(source, config, generation["stop_ids"])


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", [*NEEDED, *TEXTS])
def test_what_has_the_name_of_a_file_and_is_none_is_not_taken_for_absent(folder, no_hang, name, kind):
    path, (make, says) = folder / name, ODD[kind]
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)
    with pytest.raises(InvalidCheckpoint, match=f"{path.name}: .*{says}"):
        judged(folder)


@pytest.mark.parametrize("kind", ODD)
def test_what_an_export_does_not_read_may_be_anything(folder, no_hang, kind):
    ODD[kind][0](folder / "trainer_state.json")
    judged(folder)


def test_a_link_to_an_adapter_that_is_not_there_is_an_adapter(folder):
    (folder / "adapter_config.json").symlink_to("nowhere")
    with pytest.raises(Unsupported, match="an adapter beside it"):
        judged(folder)


@pytest.fixture
def nobody(tiny):
    """A copy that another user may see, and that user."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    folder = models.copy_checkpoint(tiny, root / "c")
    for path in folder.iterdir():
        path.chmod(0o644)
    yield folder, lambda: os.seteuid(65534)
    os.seteuid(0)
    shutil.rmtree(root)


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o311])
def test_a_folder_that_may_not_be_searched_is_told(nobody, mode):
    folder, become = nobody
    folder.chmod(mode)
    become()
    with pytest.raises(InvalidCheckpoint, match=f"{folder}.*found Permission denied"):
        judged(folder)


@pytest.mark.parametrize("name", NEEDED[:4])
def test_a_file_that_may_not_be_read_is_told(nobody, name):
    folder, become = nobody
    (folder / name).chmod(0)
    become()
    with pytest.raises(InvalidCheckpoint, match=f"{name}: .*found Permission denied"):
        judged(folder)


def test_a_link_into_a_folder_that_may_not_be_searched_is_told(nobody):
    folder, become = nobody
    (folder / "blobs").mkdir()
    (folder / "tokenizer.json").rename(folder / "blobs" / "1")
    (folder / "tokenizer.json").symlink_to("blobs/1")
    (folder / "blobs").chmod(0)
    become()
    with pytest.raises(InvalidCheckpoint, match="tokenizer.json: expected a file, found Permission denied"):
        judged(folder)


def test_a_file_that_is_not_needed_may_be_unreadable(nobody):
    folder, become = nobody
    (folder / "trainer_state.json").write_text("{}")
    (folder / "trainer_state.json").chmod(0)
    become()
    judged(folder)


@pytest.mark.parametrize("given", [None, 5, b"x", "", [], object, "a\0b"], ids=repr)
@pytest.mark.parametrize("which", ["checkpoint", "output", "drafter"])
def test_what_is_no_path_is_refused_by_its_name(folder, tmp_path, which, given):
    paths = {"checkpoint": folder, "output": tmp_path / "e", which: given}
    if (which, given) == ("drafter", None):
        return
    with pytest.raises(Unsupported, match=f"{which}: expected the path of a folder, found "):
        export(paths.pop("checkpoint"), paths.pop("output"), **paths)


@pytest.mark.parametrize("which", ["checkpoint", "output", "drafter"])
def test_a_path_that_is_no_utf_8_is_refused_before_any_work(folder, tmp_path, which):
    odd = Path(shutil.copytree(folder, tmp_path / os.fsdecode(b"caf\xe9")))
    paths = {"checkpoint": folder, "output": tmp_path / "e", which: odd}
    with pytest.raises(Unsupported, match=f"{which}: expected a path in UTF-8, found .*; rename it"):
        export(paths.pop("checkpoint"), paths.pop("output"), **paths)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("two\nlines", r"checkpoint two\\nlines: expected a folder, found none$"),
        ("~/model", "a shell replaces ~, dgrt does not"),
        ("hf://org/model", "hf download org/model --local-dir model`"),
        ("org/model@main", "hf download org/model "),
        ("hf.co/org/model", "hf download org/model "),
        ("https://huggingface.co/org/model/tree/main", "hf download org/model "),
        ("https://huggingface.co/org/model?library=transformers", "hf download org/model "),
    ],
)
def test_a_path_that_is_none_is_told_in_one_line_with_the_way_out(given, says):
    with pytest.raises(InvalidCheckpoint, match=says) as caught:
        export(given, "nowhere")
    assert "\n" not in str(caught.value)


def test_a_file_that_vanishes_is_an_error_of_ours(folder, monkeypatch):
    from dgrt_export import checkpoint, config, fingerprint, text_files

    opened = checkpoint.open_checkpoint(folder, config.parse_config(config.read_json(folder / "config.json")))
    (folder / "model.safetensors").unlink()
    with pytest.raises(InvalidCheckpoint, match="model.safetensors: expected a readable"):
        fingerprint.fingerprint(opened)
    (folder / "tokenizer.json").unlink()
    monkeypatch.setattr(text_files, "has_file", lambda path: path.name == "tokenizer.json")  # a moment ago
    with pytest.raises(InvalidCheckpoint, match="expected a file tokenizer.json, found none"):
        text_files.read_text_files(folder)


@pytest.mark.parametrize("name", ["global_step5", "pytorch_model_fsdp_0", "__0_0.distcp", "mp_rank_00_model_states.pt"])
def test_shards_of_a_training_run_are_told_how_to_gather(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_text("x")
    with pytest.raises(Unsupported, match=f"shards of a training run .{name}.; gather them first"):
        judged(folder)


def test_a_config_nested_beyond_what_python_can_copy_is_an_error_of_ours():
    from dgrt_export.graphs.target import reference_config

    deep: object = 0
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(ExportError, match="config.json: expected a config transformers accepts, found .*recursion"):
        reference_config({**models.config_json(TINY), "more": deep})


def test_a_header_in_another_encoding_than_utf_8_is_refused_as_by_the_safetensors_library(tmp_path):
    from dgrt_export.checkpoint import read_header

    text = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode("utf-16")
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(InvalidCheckpoint, match="x.safetensors header: expected a JSON object"):
        read_header(tmp_path / "x.safetensors")
