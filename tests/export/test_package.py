"""The package as a whole: manifest, hashes, weight files, and the promise that it appears complete or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import models
import numpy as np
import pytest
from compare import assert_close
from dgrt_export import contract
from dgrt_export.manifest import graph_file
from safetensors.torch import load_file
from tolerances import EXACT

ROOT = Path(__file__).resolve().parents[2]


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def test_the_manifest_states_the_models_facts(engines):
    spec, manifest = models.spec("six_layers_bf16"), manifest_of(engines("six_layers_bf16"))
    assert (manifest["format"], manifest["contract_version"], manifest["profile"]) == (
        "dgrt-engine", contract.CONTRACT_VERSION, "portable",
    )  # fmt: skip
    assert manifest["precision"] == "bf16" and manifest["source"]["vision"] == "skipped"
    assert manifest["model"] == {
        "vocab_size": spec.vocab_size, "hidden_size": spec.hidden_size, "canvas_len": spec.canvas_len,
        "context_len": spec.context_len, "sliding_window": spec.window, "num_heads": spec.num_heads,
        "num_experts": spec.num_experts, "top_k_experts": spec.top_k, "final_logit_softcap": spec.softcap,
        "pad_token_id": 0, "bos_token_id": 2,
        "layers": [{"type": "sliding", "head_dim": 16, "num_kv_heads": 3}] * 5
        + [{"type": "full", "head_dim": 32, "num_kv_heads": 2}],
    }  # fmt: skip
    assert manifest["generation"] == {
        "max_denoising_steps": 12, "entropy_bound": 0.1, "t_min": 0.4, "t_max": 0.8, "stability_threshold": 1,
        "confidence_threshold": 0.005, "stop_ids": models.STOP_IDS,
    }  # fmt: skip
    assert manifest["parity"]["layers"] == list(range(6)) and 0 < manifest["parity"]["max_abs_error"] < 1e-4
    assert manifest_of(engines("only_full"))["source"]["vision"] == "none"


def test_every_file_is_listed_with_its_size_and_hash(engines):
    folder = engines("bf16_sharded")
    manifest = manifest_of(folder)
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    for name, facts in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert (facts["bytes"], facts["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert ("sample" in facts) == ("written" in facts) == (name in manifest["weight_files"])
    assert manifest["weight_files"] == sorted(path.name for path in folder.glob("*.safetensors"))
    assert {graph["file"] for graph in manifest["graphs"].values()} <= set(manifest["files"])


@pytest.mark.parametrize(("name", "dtype"), [("plain", np.float32), ("bf16_sharded", np.uint16)])
def test_the_embedding_is_found_where_the_manifest_says(engines, checkpoints, name, dtype):
    import torch

    folder, table = engines(name), {}
    for path in checkpoints(name).glob("*.safetensors"):
        table.update(load_file(path))
    place = manifest_of(folder)["embedding"]
    content = (folder / place["file"]).read_bytes()[place["offset"] : place["offset"] + place["bytes"]]
    expected = table["model.decoder.embed_tokens.weight"]
    view = expected.numpy() if dtype == np.float32 else expected.view(torch.uint16).numpy()
    assert_close(np.frombuffer(content, dtype).reshape(expected.shape), view, EXACT, "embedding")


def test_tokenizer_files_are_copied_when_present_and_not_missed_when_absent(engines, checkpoints):
    texts = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    for name in ("plain", "few_experts"):
        present = {path.name for path in engines(name).iterdir()}
        assert present & texts == (texts if models.spec(name).tokenizer else set())
        for text in present - {"manifest.json", *(graph_file(name) for name in contract.GRAPHS)}:
            assert (engines(name) / text).read_bytes() == (checkpoints(name) / text).read_bytes()


def test_own_precision_shares_the_checkpoints_files(engines, checkpoints):
    for path in engines("bf16_sharded").glob("*.safetensors"):
        assert path.samefile(checkpoints("bf16_sharded") / path.name)


@pytest.fixture
def small(checkpoints, tmp_path):
    """A private checkpoint and an output path beside it."""
    return models.copy_checkpoint(checkpoints("plain"), tmp_path / "checkpoint"), tmp_path / "out" / "engine"


def export(*args, **options):
    from dgrt_export import export

    return export(*args, **options)


def test_weights_are_copied_where_linking_is_impossible(small, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    source, output = small
    report = export(source, output)
    assert report.weights == "copied"
    copied, original = output / "model.safetensors", source / "model.safetensors"
    assert not copied.samefile(original) and copied.read_bytes() == original.read_bytes()


def test_a_hub_cache_of_symbolic_links_gives_real_files(small):
    source, output = small
    blobs = source.parent / "blobs"
    blobs.mkdir()
    for path in list(source.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(Path("..") / "blobs" / path.name)
    report = export(source, output)
    assert report.weights == "linked" and not (output / "model.safetensors").is_symlink()
    assert (output / "model.safetensors").samefile(blobs / "model.safetensors")


@pytest.mark.parametrize(("name", "precision"), [("plain", "bf16"), ("bf16_sharded", "fp32")])
def test_conversion_rounds_like_torch(engines, checkpoints, name, precision):
    import torch

    folder = engines(name, precision=precision)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert manifest_of(folder)["precision"] == precision
    for path in folder.glob("*.safetensors"):
        converted, original = load_file(path), load_file(checkpoints(name) / path.name)
        assert all("vision" not in tensor for tensor in converted)
        for tensor, value in converted.items():
            assert value.dtype == dtype and torch.equal(value, original[tensor].to(dtype)), tensor


def test_asking_for_the_precision_it_has_converts_nothing(small):
    assert export(*small, precision="fp32").weights == "linked"


def test_half_precision_needs_a_conversion(small):
    import torch
    from dgrt_export import Unsupported
    from safetensors.torch import save_file

    source, output = small
    tensors = load_file(source / "model.safetensors")
    half = {k: v.half() for k, v in tensors.items()}
    save_file(half, source / "model.safetensors")
    with pytest.raises(Unsupported, match="--precision fp32"):
        export(source, output)
    assert not output.exists()
    assert export(source, output, precision="fp32").weights == "converted"
    converted = load_file(output / "model.safetensors")
    assert all(torch.equal(value, half[name].float()) for name, value in converted.items())


def test_a_mix_of_dtypes_is_kept_as_it_is(small):
    from safetensors.torch import save_file

    source, output = small
    tensors = load_file(source / "model.safetensors")
    save_file({k: v.bfloat16() if v.dim() > 1 else v for k, v in tensors.items()}, source / "model.safetensors")
    report = export(source, output)
    assert report.weights == "linked" and report.manifest["precision"] == "bf16"


# Complete or not at all


def leftovers(output: Path) -> list[str]:
    return sorted(path.name for path in output.parent.iterdir()) if output.parent.exists() else []


@pytest.mark.parametrize("stage", ["trace", "lower", "weights", "parity", "hash"])
def test_an_exception_in_any_stage_leaves_nothing(small, stage):
    def fail(name, done, total):
        if name == stage:
            raise RuntimeError("injected")

    with pytest.raises(RuntimeError, match="injected"):
        export(*small, progress=fail)
    assert leftovers(small[1]) == []


def test_a_failure_while_publishing_leaves_nothing(small, monkeypatch):
    from dgrt_export import NoSpace, package

    monkeypatch.setattr(
        package, "_publish", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(NoSpace, match="No space"):
        export(*small)
    assert leftovers(small[1]) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(small, number):
    source, output = small
    code = f"""
import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "export")!r}]
import time, torch
from dgrt.cli import main
from dgrt_export import weights
torch.set_num_threads(1)
write = weights.WeightPlan.write
def slow(*args):
    write(*args); print("writing", flush=True); time.sleep(60)
weights.WeightPlan.write = slow
sys.exit(main(["export", {str(source)!r}, "-o", {str(output)!r}]))
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline().strip() == "writing"
    assert any(name.endswith(".partial") for name in leftovers(output))
    child.send_signal(number)
    started = time.monotonic()
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 130 and time.monotonic() - started < 20
    assert errors.strip().splitlines()[-1] == "interrupted, nothing written" and "Traceback" not in errors
    assert leftovers(output) == []


def test_the_gate_stops_a_wrong_export_and_leaves_nothing(small, monkeypatch):
    from dgrt_export import ParityError
    from dgrt_export.to_onnx import attention

    right = attention.causal_mask
    monkeypatch.setattr(
        attention, "causal_mask", lambda build, q, past, window: right(build, q, past, window and window + 1)
    )
    with pytest.raises(ParityError, match=r"(prefill|score|packed|check) .* expected a difference of at most .* \d"):
        export(*small, profile="portable")
    assert leftovers(small[1]) == []


def test_an_output_that_holds_something_needs_force(small):
    from dgrt_export import OutputError

    source, output = small
    output.mkdir(parents=True)
    export(source, output)  # an empty folder is as good as none
    before = manifest_of(output)
    with pytest.raises(OutputError, match="--force"):
        export(source, output)
    assert manifest_of(output) == before
    (output / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"a package and no other files to replace, found also notes\.txt: move them"):
        export(source, output, force=True)
    (output / "notes.txt").rename(output.parent / "notes.txt")
    export(source, output, force=True, moe="loop")
    assert manifest_of(output)["experts"] == "loop"
    (output.parent / "notes.txt").unlink()
    assert leftovers(output) == ["engine"]


def test_a_package_that_appeared_meanwhile_is_not_replaced(small):
    from dgrt_export import OutputError

    source, output = small

    def another(name, done, total):
        if name == "hash" and not output.exists():
            output.mkdir(parents=True)
            (output / "manifest.json").write_text("theirs")

    with pytest.raises(OutputError, match="a newer package"):
        export(source, output, progress=another)
    assert (output / "manifest.json").read_text() == "theirs" and leftovers(output) == ["engine"]


def test_a_failed_replacement_keeps_the_old_package(small):
    source, output = small
    export(source, output)
    before = sorted((path.name, path.read_bytes()) for path in output.iterdir())

    def fail(name, done, total):
        if name == "hash":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(source, output, force=True, progress=fail)
    assert sorted((path.name, path.read_bytes()) for path in output.iterdir()) == before
    assert leftovers(output) == ["engine"]


def test_replacing_works_without_an_exchanging_rename(small, monkeypatch):
    import ctypes

    source, output = small
    export(source, output)
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **kwargs: object())
    export(source, output, force=True, moe="loop")
    assert manifest_of(output)["experts"] == "loop" and leftovers(output) == ["engine"]


@pytest.mark.parametrize("place", ["checkpoint", "", "checkpoint/engine"])
def test_force_never_replaces_the_checkpoint_or_its_surroundings(small, place):
    from dgrt_export import OutputError

    source, _ = small
    with pytest.raises(OutputError, match="apart from its sources"):
        export(source, source.parent / place, force=True)
    assert (source / "model.safetensors").exists()


@pytest.fixture
def occupied(checkpoints, tmp_path):
    """An output folder that holds another checkpoint and, given its text, a manifest."""

    def make(manifest: str | None = None) -> Path:
        output = models.copy_checkpoint(checkpoints("only_full"), tmp_path / "out" / "engine")
        if manifest is not None:
            (output / "manifest.json").write_text(manifest)
        return output

    return make


@pytest.mark.parametrize(
    ("manifest", "found"),
    [
        (None, "no manifest.json"), ("{", "Expecting property name"), ("[]", "'list'"), ("{}", "None"),
        ('{"format": "web-app"}', "'web-app'"), ("[" * 100_000, "recursion"),
    ],
)  # fmt: skip
def test_force_never_replaces_a_folder_that_is_no_package(checkpoints, occupied, manifest, found):
    from dgrt_export import OutputError

    output = occupied(manifest)
    before = sorted(path.name for path in output.iterdir())
    with pytest.raises(OutputError, match=f"expected a package to replace .*'dgrt-engine'.* found .*{found}"):
        export(checkpoints("plain"), output, force=True)
    assert sorted(path.name for path in output.iterdir()) == before and leftovers(output) == ["engine"]


def test_force_never_replaces_a_package_with_sub_folders(checkpoints, occupied):
    from dgrt_export import OutputError

    output = occupied('{"format": "dgrt-engine"}')
    (output / "project").mkdir()
    with pytest.raises(OutputError, match="without sub-folders"):
        export(checkpoints("plain"), output, force=True)
    assert (output / "project").exists()


def test_what_appears_in_the_output_meanwhile_is_not_replaced_by_force(tmp_path):
    from dgrt_export import OutputError
    from dgrt_export.package import check_output, staged

    output = tmp_path / "out" / "engine"
    check_output(output, [tmp_path / "checkpoint"], force=True)
    with pytest.raises(OutputError, match="no manifest.json"), staged(output, force=True):
        output.mkdir()
        (output / "thesis.txt").write_text("theirs")
    assert (output / "thesis.txt").exists() and leftovers(output) == ["engine"]


def test_an_interrupt_while_the_replaced_package_is_removed_leaves_nothing_of_it(tmp_path, monkeypatch):
    import shutil

    from dgrt_export.package import staged, write_manifest

    def interrupted_once(*args, **options):
        monkeypatch.undo()
        raise KeyboardInterrupt

    output = tmp_path / "out" / "engine"
    for number in (1, 2):
        with staged(output, force=True) as folder:
            write_manifest(folder, {"format": "dgrt-engine", "number": number})
    monkeypatch.setattr(shutil, "rmtree", interrupted_once)
    with pytest.raises(KeyboardInterrupt), staged(output, force=True) as folder:
        write_manifest(folder, {"format": "dgrt-engine", "number": 3})
    assert manifest_of(output)["number"] == 3 and leftovers(output) == ["engine"]


def test_the_parity_gate_reports_every_pass(small):
    seen = []
    export(*small, progress=lambda stage, done, total: seen.append((done, total)) if stage == "parity" else None)
    total = seen[0][1]
    assert total > 10 and [done for done, _ in seen] == [*range(total + 1), total]


def test_large_models_are_checked_on_a_prefix_of_the_same_bytes(checkpoints, tmp_path, monkeypatch):
    """The cut that a 50 GB model gets, forced on a small one: fewer layers, rows and experts, same offsets."""
    from dgrt_export import ParityError, check

    for name, value in (("_WHOLE_MODEL_PARAMETERS", 0), ("_MAX_VOCAB", 100), ("_EXPERT_PARAMETERS", 1)):
        monkeypatch.setattr(check, name, value)
    seen = []
    cut = check.plan_cut
    monkeypatch.setattr(check, "plan_cut", lambda *args: seen.append(cut(*args)) or seen[-1])
    for index, name in enumerate(("six_layers_bf16", "one_kv_head", "only_full")):
        report = export(checkpoints(name), tmp_path / name, moe="unrolled")
        assert report.manifest["parity"]["layers"] == {0: [0, 5], 1: [0, 1], 2: [0]}[index]
        assert seen[-1].config.vocab_size == 100 and seen[-1].config.num_experts == 4
        assert not list((tmp_path / name).glob("check_*"))

    source = models.copy_checkpoint(checkpoints("six_layers_bf16"), tmp_path / "c")
    entries = check.cut_entries
    shift = {"model.decoder.layers.0.mlp.up_proj.weight": "model.decoder.layers.0.mlp.gate_proj.weight"}

    def damaged(*args):  # the reference reads one tensor from another place than the graph
        found = entries(*args)
        return {k: found[shift.get(k, k)] for k in found}

    monkeypatch.setattr(
        check, "Reference", lambda raw, tensors: Real(raw, {k: tensors[shift.get(k, k)] for k in tensors})
    )
    Real = __import__("dgrt_export.reference", fromlist=["Reference"]).Reference
    with pytest.raises(ParityError, match="found"):
        export(source, tmp_path / "damaged")
