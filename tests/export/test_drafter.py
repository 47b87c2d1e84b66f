"""A drafter in the package: reading its checkpoint, its graph, its weights, its parity gate."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import models
import numpy as np
import onnx
import pytest
from compare import assert_close
from graph_runner import GraphRunner
from safetensors.torch import load_file, save_file
from tolerances import tolerance

from dgrt.cli import main

TARGET = "one_kv_head"  # layers s f s f: the random drafter looks into 3, 1 and 1 again
TABLE = "model.decoder.embed_tokens.weight"


def export(*args, **options):
    from dgrt_export import export

    return export(*args, **options)


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def graph_of(folder: Path) -> onnx.GraphProto:
    return onnx.load(folder / "drafter.onnx", load_external_data=False).graph


# The package


@pytest.mark.parametrize("profile", ["portable", "fused"])
def test_the_graph_has_the_inputs_and_outputs_of_the_contract(engines, profile):
    graph, spec = graph_of(engines(TARGET, drafter="fp32", profile=profile)), models.spec(TARGET)
    width, kv_width = spec.hidden_size, spec.num_global_kv_heads * spec.global_head_dim
    past = {f"past_{kind}.{layer}": [1, "P_full", kv_width] for layer in (1, 3) for kind in "kv"}
    expected = {"tokens": [1, 1], "positions": [1, "B"], "evidence": [1, "B", width], **past}
    found = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    assert list(found.items()) == list(expected.items())
    assert [v.type.tensor_type.elem_type for v in graph.input] == [onnx.TensorProto.INT64] * 2 + [
        onnx.TensorProto.FLOAT
    ] * 5
    (hidden,) = graph.output
    assert hidden.name == "hidden" and hidden.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [d.dim_param or d.dim_value for d in hidden.type.tensor_type.shape.dim] == [1, "B", width]


def test_the_manifest_tells_of_the_drafter(engines):
    manifest = manifest_of(engines(TARGET, drafter="fp32"))
    assert manifest["drafter"] == {"name": f"{TARGET}-fp32", "kv_layers": [1, 3], "block_len": 12, "mean_run": 4.0}
    assert manifest["graphs"]["drafter"] == {"file": "drafter.onnx"}
    assert "drafter.safetensors" in manifest["weight_files"] and manifest["embedding"]["file"] != "drafter.safetensors"
    assert {"drafter.onnx", "drafter.safetensors"} <= set(manifest["files"])
    assert 0 < manifest["parity"]["drafter_max_abs_error"] < tolerance("hidden").absolute


def test_a_package_without_a_drafter_is_the_same_without_it(engines):
    """Every other file, byte for byte, and every other key of the manifest."""
    plain, drafted = engines(TARGET), engines(TARGET, drafter="fp32")
    own = {"drafter.onnx", "drafter.safetensors"}
    assert {path.name for path in drafted.iterdir()} == {path.name for path in plain.iterdir()} | own
    for path in plain.iterdir():
        if path.name != "manifest.json":
            assert path.read_bytes() == (drafted / path.name).read_bytes(), path.name
    without, manifest = manifest_of(plain), manifest_of(drafted)
    assert "drafter" not in without and "drafter" not in without["graphs"]
    del manifest["drafter"], manifest["graphs"]["drafter"]
    manifest["parity"] = {key: value for key, value in manifest["parity"].items() if not key.startswith("drafter_")}
    for name in own:
        del manifest["files"][name]
    manifest["weight_files"].remove("drafter.safetensors")
    assert manifest == without


@pytest.mark.parametrize("profile", ["portable", "fused"])
def test_every_initializer_is_the_drafters_own_or_the_targets_token_table(engines, drafters, checkpoints, profile):
    import torch

    folder = engines(TARGET, drafter="fp32", profile=profile)
    source = load_file(drafters(TARGET, "fp32") / "drafter.safetensors")
    places, bound = {}, {tensor.name: tensor for tensor in graph_of(folder).initializer}
    assert set(bound) == {*source, TABLE}
    for path in checkpoints(TARGET).glob("*.safetensors"):
        tensors = load_file(path)
        if TABLE in tensors:
            source[TABLE], places[TABLE] = tensors[TABLE], path.name
    for name, tensor in bound.items():
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert not tensor.raw_data and place["location"] == places.get(name, "drafter.safetensors")
        with (folder / place["location"]).open("rb") as stream:
            stream.seek(int(place["offset"]))
            content = stream.read(int(place["length"]))
        assert content == source[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes(), name


def test_the_portable_graph_is_small_standard_and_anonymous(engines, tmp_path):
    path = models.copy_checkpoint(engines(TARGET, drafter="fp32"), tmp_path / "copy") / "drafter.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path, load_external_data=False)
    assert [opset.domain for opset in model.opset_import] == [""]
    attention = [node for node in model.graph.node if node.op_type == "Attention"]
    assert len(attention) == 3 and all(len(node.input) == 3 for node in attention)  # no mask
    assert [node.op_type for node in model.graph.node].count("Cos") == 1
    for trace_of_home in (b"/root", b"/home", b"site-packages", b".py", str(Path(__file__).parents[2]).encode()):
        assert trace_of_home not in path.read_bytes()


def test_heavy_nodes_of_the_fused_graph_are_our_operators(engines):
    graph = graph_of(engines(TARGET, drafter="fp32", profile="fused"))
    counts = Counter(node.op_type for node in graph.node if node.domain == "dgrt")
    assert counts == {"Qkv": 3, "Linear": 1 + 3, "GatedMlp": 3, "CanvasAttention": 3}
    assert not {"Gemm", "MatMul", "Attention"} & {node.op_type for node in graph.node}


def test_a_drafter_attends_in_fp32_beside_a_target_of_bf16(engines):
    graph = graph_of(engines("six_layers_bf16", drafter="bf16", profile="fused"))
    names = {a.name for node in graph.node if node.op_type == "CanvasAttention" for a in node.attribute}
    assert names == {"num_heads", "num_kv_heads"}


def test_exports_with_a_drafter_are_reproducible(engines, checkpoints, drafters, tmp_path):
    export(checkpoints(TARGET), tmp_path / "again", drafter=drafters(TARGET, "fp32"))
    for name in ("drafter.onnx", "manifest.json"):
        first = engines(TARGET, drafter="fp32", profile="fused") / name
        assert (tmp_path / "again" / name).read_bytes() == first.read_bytes()


# Precision


@pytest.mark.parametrize(
    ("target", "options", "stored"),
    [
        ("plain", {}, "F32"),
        ("plain", {"precision": "bf16"}, "BF16"),
        ("plain", {"precision": "int8", "profile": "fused"}, "BF16"),
        ("bf16_sharded", {}, "BF16"),
        ("bf16_sharded", {"precision": "fp32", "profile": "fused"}, "F32"),
    ],
)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_its_weights_are_fp32_where_the_targets_are_and_else_bf16(
    checkpoints, drafters, tmp_path, target, options, stored, dtype
):
    import torch

    source = drafters(target, dtype) / "drafter.safetensors"
    report = export(checkpoints(target), tmp_path / "e", drafter=source.parent, **options)
    fits = stored == {"fp32": "F32", "bf16": "BF16"}[dtype]
    written = tmp_path / "e" / "drafter.safetensors"
    assert report.drafter_weights == ("linked" if fits else "converted") and written.samefile(source) == fits
    wanted = {"F32": torch.float32, "BF16": torch.bfloat16}[stored]
    for name, value in load_file(written).items():
        assert value.dtype == wanted and torch.equal(value, load_file(source)[name].to(wanted)), name
    if not options and fits:  # nothing is converted: whole files
        assert report.weight_bytes == sum(path.stat().st_size for path in (tmp_path / "e").glob("*.safetensors"))


def test_a_mix_of_dtypes_becomes_one(checkpoints, drafters, tmp_path):
    import torch

    source = models.copy_checkpoint(drafters("plain", "fp32"), tmp_path / "d")
    tensors = load_file(source / "drafter.safetensors")
    save_file({k: v.bfloat16() if v.dim() > 1 else v for k, v in tensors.items()}, source / "drafter.safetensors")
    report = export(checkpoints("plain"), tmp_path / "e", drafter=source, precision="bf16", profile="fused")
    written = load_file(tmp_path / "e" / "drafter.safetensors")
    assert report.drafter_weights == "converted" and {v.dtype for v in written.values()} == {torch.bfloat16}


# What the graph computes


@pytest.fixture(scope="session")
def runners(engines):
    done = {}

    def load(**options):
        key = tuple(options.items())
        if key not in done:
            done[key] = GraphRunner(engines(TARGET, drafter="fp32", **options))
        return done[key]

    return load


def opened(checkpoint: Path, folder: Path, precision: str | None = None):
    """What an export reads: the target's config, its config.json, its weights, and the drafter."""
    from dgrt_export.checkpoint import open_checkpoint
    from dgrt_export.config import parse_config, read_json
    from dgrt_export.drafter import open_drafter
    from dgrt_export.fingerprint import fingerprint
    from dgrt_export.weights import plan_weights

    raw = read_json(checkpoint / "config.json")
    config = parse_config(raw)
    tensors = open_checkpoint(checkpoint, config)
    plan = plan_weights(tensors, precision)
    return config, raw, plan, open_drafter(folder, config, fingerprint(tensors), plan)


@pytest.mark.parametrize("profile", ["portable", "fused"])
@pytest.mark.parametrize("rows", [1, 2, 12, 33])
def test_hidden_states_on_the_targets_own_rows_match_plain_torch(checkpoints, drafters, runners, profile, rows):
    """With any number of rows, also more than it was trained for, and any past, none included."""
    from dgrt_export.drafter_reference import DrafterReference

    runner, spec = runners(profile=profile), models.spec(TARGET)
    _, raw, plan, drafter = opened(checkpoints(TARGET), drafters(TARGET, "fp32"))
    reference = DrafterReference(drafter.config, raw, {**plan.entries, **drafter.weights.entries})
    rng = np.random.default_rng(rows)
    tokens = rng.integers(0, spec.vocab_size, 61)
    kv = runner.prefill(tokens, [])
    for past in (0, 1, 7, 60):
        evidence = rng.standard_normal((rows, spec.hidden_size), dtype=np.float32)
        evidence[rows // 2 + 1 :] = 0
        seen = {layer: (kv[2 * layer][:past], kv[2 * layer + 1][:past]) for layer in (1, 3)}
        expected = reference.propose(int(tokens[past]), past, evidence, seen)
        hidden = runner.draft(int(tokens[past]), evidence, kv, past)
        assert_close(hidden, expected, tolerance("hidden"), f"{rows} rows behind {past} tokens")


def test_the_wrapper_in_torch_computes_what_its_onnx_form_computes(checkpoints, drafters, runners):
    import torch
    from dgrt_export.graphs.drafter import BlockDrafter
    from dgrt_export.graphs.target import build_target, reference_config
    from dgrt_export.reference import read_tensors

    runner, spec = runners(), models.spec(TARGET)
    config, raw, plan, drafter = opened(checkpoints(TARGET), drafters(TARGET, "fp32"))
    wrapper = BlockDrafter(build_target(reference_config(raw)), config, drafter.config)
    entries = {TABLE: plan.entries[TABLE], **drafter.weights.entries}
    _, unknown = wrapper.load_state_dict(read_tensors(entries), strict=False, assign=True)
    assert unknown == []
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, spec.vocab_size, 20)
    evidence, kv = rng.standard_normal((9, spec.hidden_size), dtype=np.float32), runner.prefill(tokens, [])
    past = [torch.from_numpy(kv[2 * layer + kind][None, :19].copy()) for layer in (1, 3) for kind in (0, 1)]
    with torch.no_grad():
        hidden = wrapper(
            torch.tensor([[int(tokens[19])]]), torch.arange(20, 29)[None], torch.from_numpy(evidence)[None], past
        )
    assert_close(runner.draft(int(tokens[19]), evidence, kv, 19), hidden[0], tolerance("wrapper"), "hidden")


@pytest.mark.parametrize("target", ["only_full", "many_experts", "six_layers_bf16"])
@pytest.mark.parametrize(("profile", "precision"), [("portable", "bf16"), ("fused", "fp32"), ("fused", "bf16")])
def test_the_gate_passes(gate, target, profile, precision):
    from dgrt_export import check

    error = gate(target, profile, precision)
    rounded = (profile, precision) == ("fused", "bf16")  # hidden states reach about 4
    assert 0 < error < (2 * check.ROUNDED_TOLERANCE if rounded else tolerance("hidden").absolute)


@pytest.fixture
def gate(checkpoints, drafters, tmp_path):
    """Makes the drafter's part of a package and nothing else, and runs its gate."""
    from dgrt_export import check_drafter
    from dgrt_export.graphs.target import build_target, reference_config
    from dgrt_export.graphs.trace import trace_drafter
    from dgrt_export.to_onnx.lower import lower

    def run(target: str, profile: str, precision: str) -> float:
        config, raw, plan, drafter = opened(checkpoints(target), drafters(target, "fp32"), precision)
        entries = {**plan.entries, **drafter.weights.entries}
        traced = trace_drafter(build_target(reference_config(raw)), config, drafter.config, profile)
        onnx.save(lower(traced, entries, profile, None), tmp_path / "drafter.onnx")
        for part in (plan, drafter.weights):
            part.write(tmp_path, lambda count: None)
        passes = []
        found = check_drafter.check_drafter(tmp_path, drafter.config, config, raw, entries, profile, passes.append)
        assert sum(passes) == check_drafter.num_drafter_passes(drafter.config)
        return found["drafter_max_abs_error"]

    return run


def raw_values(monkeypatch):
    """Values go without a norm."""
    from dgrt_export.graphs.drafter import BlockDrafter

    right = BlockDrafter.qkv

    def qkv(self, layer, facts, x, input_norm, table):
        q, k, _ = right(self, layer, facts, x, input_norm, table)
        return q, k, layer.v_proj(self.rms_norm(x, input_norm)).view(1, -1, facts.kv_width)

    monkeypatch.setattr(BlockDrafter, "qkv", qkv)


def swapped_mlp(monkeypatch):
    """Gate and up change places."""
    from dgrt_export.graphs import ops
    from dgrt_export.graphs.drafter import BlockDrafter

    def gated_mlp(self, module, x):
        return ops.gated_mlp(x, module.up_proj.weight, module.gate_proj.weight, module.down_proj.weight)

    monkeypatch.setattr(BlockDrafter, "gated_mlp", gated_mlp)


def other_layer(monkeypatch):
    """Each layer looks into the other layer of the target."""
    from dgrt_export.graphs import drafter

    class Reversed(drafter.BlockDrafter):
        def __init__(self, *args):
            super().__init__(*args)
            self.past_layers = self.past_layers[::-1]

    monkeypatch.setattr("dgrt_export.graphs.trace.BlockDrafter", Reversed)


def late_positions(monkeypatch):
    """Rows take the positions of the rows behind them."""
    from dgrt_export.graphs.drafter import BlockDrafter

    right = BlockDrafter.rotary_tables
    monkeypatch.setattr(BlockDrafter, "rotary_tables", lambda self, positions: right(self, positions + 1))


@pytest.mark.parametrize("damage", [raw_values, swapped_mlp, other_layer, late_positions])
@pytest.mark.parametrize(("profile", "precision"), [("portable", "fp32"), ("fused", "bf16")])
def test_the_gate_notices_a_wrong_graph(gate, monkeypatch, damage, profile, precision):
    from dgrt_export import ParityError

    damage(monkeypatch)
    with pytest.raises(ParityError, match=r"parity of drafter hidden states .* plain torch: expected .* found \d"):
        gate(TARGET, profile, precision)


def test_a_failed_gate_leaves_nothing(checkpoints, drafters, tmp_path, monkeypatch):
    from dgrt_export import ParityError, check_drafter

    monkeypatch.setattr(check_drafter, "TOLERANCE", 1e-12)
    with pytest.raises(ParityError, match="drafter"):
        export(checkpoints(TARGET), tmp_path / "e", drafter=drafters(TARGET, "fp32"))
    assert list(tmp_path.iterdir()) == []


# Checkpoints that will not do


@pytest.fixture
def open_changed(checkpoints, drafters, tmp_path):
    """Opens a copy of the drafter of TARGET after a change of its config and its tensors."""

    def open_changed(change_config=lambda config: None, change_tensors=lambda tensors: None):
        folder = models.copy_checkpoint(drafters(TARGET, "fp32"), tmp_path / "d")
        config, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "drafter.safetensors")
        change_config(config)
        change_tensors(tensors)
        (folder / "config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "drafter.safetensors")
        return opened(checkpoints(TARGET), folder)[3]

    return open_changed


def test_a_sound_checkpoint_is_read_as_it_is(open_changed):
    drafter = open_changed().config
    assert (drafter.name, drafter.kv_layers, drafter.past_layers) == ("d", (3, 1, 1), (1, 3))
    assert (drafter.num_heads, drafter.intermediate_size, drafter.block_len) == (4, 72, 12)
    assert drafter.rms_norm_eps == 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "eagle"}, "model_type: expected 'dgrt_block_drafter', found 'eagle'"),
        ({"model_type": None}, "model_type: expected 'dgrt_block_drafter', found None"),
        ({"version": 2}, "version: expected 1, found 2"),
        ({"hidden_size": 128}, r"config.json hidden_size: expected 64 \(the target's\), found 128"),
        ({"hidden_size": "64"}, "hidden_size: expected an integer >= 1, found '64'"),
        ({"num_heads": 6}, "num_heads: expected a multiple of the target's 4 KV heads, found 6"),
        ({"num_heads": 0}, "num_heads: expected an integer >= 1, found 0"),
        ({"intermediate_size": True}, "intermediate_size: expected an integer >= 1, found True"),
        ({"intermediate_size": 71}, r"layers.0.gate_proj.weight in .*: expected \[71, 64\], found \[72, 64\]"),
        ({"rms_norm_eps": 0}, "rms_norm_eps: expected a number > 0, found 0"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps: expected a number > 0, found 10000"),
        ({"mean_run": 0}, "mean_run: expected a number > 0, found 0"),
        ({"block_len": 33}, "block_len: expected at most 32, the target's canvas, found 33"),
        ({"kv_layers": []}, r"kv_layers: expected a list of layer numbers, found \[\]"),
        ({"kv_layers": 3}, "kv_layers: expected a list of layer numbers, found 3"),
        ({"kv_layers": [3, True]}, r"kv_layers: expected a list of layer numbers, found \[3, True\]"),
        ({"kv_layers": [3, 1, 2]}, r"kv_layers: expected full layers of the target, of \[1, 3\], found 2"),
        ({"kv_layers": [3, 1, 4]}, r"kv_layers: expected full layers of the target, of \[1, 3\], found 4"),
        ({"kv_layers": [3, 1, -1]}, r"kv_layers: expected full layers of the target, of \[1, 3\], found -1"),
        ({"kv_layers": [3, 1, 1, 1]}, r"tensor layers.3.input_norm.weight: expected shape \[64\], found no such"),
        ({"kv_layers": [3, 1]}, "tensors of .*: expected only those of a block drafter, found layers.2."),
        ({"target": None}, "target: expected an object, found None"),
        ({"target": {"vocab_size": 778}}, r"target vocab_size: expected 777 \(the target's\), found 778"),
        ({"target": {"hidden_size": 63}}, r"target hidden_size: expected 64 \(the target's\), found 63"),
        ({"target": {"canvas_len": 96}}, r"target canvas_len: expected 32 \(the target's\), found 96"),
        ({"target": {"canvas_len": None}}, "target canvas_len: expected an integer >= 1, found None"),
        ({"target": {"fingerprint": 7}}, "target fingerprint: expected 64 hexadecimal digits, found 7"),
        ({"target": {"fingerprint": "0" * 63}}, "target fingerprint: expected 64 hexadecimal digits"),
        ({"target": {"fingerprint": "0" * 64}}, f"fingerprint: expected [0-9a-f]+, of .* found 0+, of '{TARGET}'"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_config_that_will_not_do_says_what_would(open_changed, change, message):
    from dgrt_export import ExportError

    def apply(config):
        for key, value in change.items():
            config[key] = {**config["target"], **value} if isinstance(value, dict) else value

    with pytest.raises(ExportError, match=message):
        open_changed(apply)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mask", lambda t: None, r"tensor mask: expected shape \[64\], found no such tensor"),
        ("mask", lambda t: t.half(), "tensor mask dtype: expected F32 or BF16, found F16"),
        ("mask", lambda t: t[None].clone(), r"tensor mask in .*: expected \[64\], found \[1, 64\]"),
        ("layers.1.k_proj.weight", lambda t: t[:-1].clone(), r"expected \[64, 64\], found \[63, 64\]"),
        ("layers.2.q_norm.weight", lambda t: t[:8].clone(), r"expected \[16\], found \[8\]"),
        ("norm.bias", lambda t: t, "expected only those of a block drafter, found norm.bias"),
    ],
)
def test_a_tensor_that_will_not_do_is_named(open_changed, name, change, message):
    import torch
    from dgrt_export import ExportError

    def apply(tensors):
        changed = change(tensors.pop(name, torch.zeros(64)))
        if changed is not None:
            tensors[name] = changed

    with pytest.raises(ExportError, match=message):
        open_changed(change_tensors=apply)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "expected a file config.json, found none"),
        (lambda folder: (folder / "config.json").write_text("["), "expected readable JSON"),
        (lambda folder: (folder / "drafter.safetensors").unlink(), "expected a file drafter.safetensors, found none"),
        (lambda folder: (folder / "drafter.safetensors").write_bytes(b"\xff" * 64), "header length: expected"),
    ],
)
def test_a_damaged_folder_says_what_is_missing(checkpoints, drafters, tmp_path, damage, message):
    from dgrt_export import InvalidCheckpoint

    folder = models.copy_checkpoint(drafters(TARGET, "fp32"), tmp_path / "d")
    damage(folder)
    with pytest.raises(InvalidCheckpoint, match=message):
        opened(checkpoints(TARGET), folder)


def test_a_drafter_of_another_target_of_the_same_shape_is_refused_before_any_work(checkpoints, drafters, tmp_path):
    from dgrt_export import Unsupported

    other = models.build_checkpoint(replace(models.spec(TARGET), seed=99), tmp_path / "other")
    stages = []
    with pytest.raises(Unsupported, match="target fingerprint: expected"):
        export(other, tmp_path / "e", drafter=drafters(TARGET, "fp32"), progress=lambda stage, *_: stages.append(stage))
    assert set(stages) == {"read config"} and not (tmp_path / "e").exists()


def test_a_weight_file_of_the_target_with_the_drafters_name_is_refused(checkpoints, drafters, tmp_path):
    from dgrt_export import Unsupported

    source = models.copy_checkpoint(checkpoints(TARGET), tmp_path / "c")
    index = json.loads((source / "model.safetensors.index.json").read_text())
    name = next(iter(index["weight_map"].values()))
    (source / name).rename(source / "drafter.safetensors")
    index["weight_map"] = {k: "drafter.safetensors" if v == name else v for k, v in index["weight_map"].items()}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(Unsupported, match=r"weight file drafter\.safetensors: expected the drafter's alone"):
        export(source, tmp_path / "e", drafter=drafters(TARGET, "fp32"))


def test_the_output_never_lies_in_the_drafters_folder(checkpoints, drafters, tmp_path):
    from dgrt_export import OutputError

    folder = models.copy_checkpoint(drafters(TARGET, "fp32"), tmp_path / "d")
    for output in (folder, folder / "engine"):
        with pytest.raises(OutputError, match="apart from its sources"):
            export(checkpoints(TARGET), output, drafter=folder, force=True)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "drafter.safetensors"]


# The command line


def test_the_command_line_exports_and_shows_a_drafter(checkpoints, drafters, tmp_path, capsys):
    words = [str(checkpoints(TARGET)), "-o", str(tmp_path / "e"), "--drafter", str(drafters(TARGET, "bf16"))]
    assert main(["export", *words]) == 0
    out = capsys.readouterr().out
    assert f"  drafter   {TARGET}-bf16, converted\n" in out and "\n  parity of the drafter with plain torch: " in out
    assert main(["export", *words, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["drafter_weights"] == "converted"
    assert main(["inspect", str(tmp_path / "e")]) == 0
    assert f"{TARGET}-bf16: up to 12 tokens at once, from the KV of layers 1, 3\n" in capsys.readouterr().out


def test_a_wrong_drafter_is_one_line_and_status_two(checkpoints, tmp_path, capsys):
    words = [str(checkpoints(TARGET)), "-o", str(tmp_path / "e"), "--drafter", str(tmp_path / "none")]
    assert main(["export", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == f"error: drafter {tmp_path / 'none'}: expected a folder, found none\n"
    assert not (tmp_path / "e").exists()
