"""The profile `fused`: our own operators in the graphs, weights as the checkpoint stores them, and its own parity gate.

What the graphs look like is tested on lowered graphs, without the native library; what they compute, with it.
"""

from __future__ import annotations

import importlib.util
import json
from collections import Counter

import models
import onnx
import pytest
from dgrt_export.contract import OPERATORS_VERSION
from tolerances import tolerance

from dgrt.cli import main

GRAPHS = ("prefill", "denoise", "score", "packed", "check")
OPERATORS = {
    "Qkv", "Qk", "LinearNormAdd", "GatedMlp", "FeedForward", "CanvasAttention", "CausalAttention"
}  # fmt: skip


@pytest.fixture(scope="session")
def lowered(checkpoints):
    """The graphs of a checkpoint in the profile `fused`, by name, and the checkpoint's tensors."""
    from dgrt_export.checkpoint import open_checkpoint
    from dgrt_export.config import parse_config, read_json
    from dgrt_export.graphs.target import build_target, reference_config
    from dgrt_export.graphs.trace import trace
    from dgrt_export.to_onnx.lower import lower

    done = {}

    def build(name):
        if name not in done:
            raw = read_json(checkpoints(name) / "config.json")
            config = parse_config(raw)
            target, tensors = build_target(reference_config(raw)), open_checkpoint(checkpoints(name), config).tensors
            graphs = {graph: lower(trace(graph, target, config, "fused"), tensors, "fused", None) for graph in GRAPHS}
            done[name] = graphs, tensors
        return done[name]

    return build


def export(*args, **options):
    from dgrt_export import export

    return export(*args, **options)


# What the graphs look like


@pytest.mark.parametrize(("name", "rounds"), [("plain", False), ("six_layers_bf16", True)])
@pytest.mark.parametrize("graph", GRAPHS)
def test_attention_rounds_to_bf16_where_all_weights_are(lowered, name, rounds, graph):
    nodes = [node for node in lowered(name)[0][graph].graph.node if node.op_type.endswith("Attention")]
    flags = [{a.name: a.i for a in node.attribute}.get("bf16_products", 0) for node in nodes]
    assert flags and set(flags) == {int(rounds)}


@pytest.mark.parametrize("name", ["plain", "six_layers_bf16"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_nothing_but_standard_operators_and_those_of_our_domain(lowered, checkpoints, tmp_path, name, graph):
    from dgrt_export import contract

    model = lowered(name)[0][graph]
    assert {o.domain: o.version for o in model.opset_import} == {"": 23, "dgrt": contract.OPERATORS_VERSION}
    assert {node.domain for node in model.graph.node} == {"", "dgrt"}
    assert {node.op_type for node in model.graph.node if node.domain} <= OPERATORS
    path = models.copy_checkpoint(checkpoints(name), tmp_path / "c") / "graph.onnx"  # beside the weights it names
    onnx.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)


# Layers s f s f: a full layer has no V projection, the last layer of `prefill` stops at its K and V, and the candidate
# in `packed` too. GatedMlp: the self-conditioning.
LAYERS = {"Qkv": 2, "Qk": 2, "LinearNormAdd": 4, "FeedForward": 4}


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ("prefill", {"Qkv": 2, "Qk": 2, "LinearNormAdd": 3, "FeedForward": 3, "CausalAttention": 3}),
        ("score", {**LAYERS, "CausalAttention": 4}),
        ("denoise", {**LAYERS, "GatedMlp": 1, "CanvasAttention": 4}),
        ("packed", {**LAYERS, "GatedMlp": 1, "CanvasAttention": 8, "CausalAttention": 3}),
        ("check", {**LAYERS, "GatedMlp": 1, "CanvasAttention": 4, "CausalAttention": 4}),
    ],
)
def test_a_layer_is_four_operators(lowered, graph, expected):
    nodes = lowered("one_kv_head")[0][graph].graph.node
    assert Counter(node.op_type for node in nodes if node.domain == "dgrt") == expected
    standard = {node.op_type for node in nodes if node.domain == ""}
    heavy = {"Attention", "Gelu", "Gemm", "TopK", "MatMul", "Transpose", "Loop", "LessOrEqual", "ScatterElements"}
    assert not standard & heavy


@pytest.mark.parametrize("name", ["plain", "bf16_sharded"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_weight_is_used_once_in_the_layout_of_the_checkpoint(lowered, name, graph):
    graphs, tensors = lowered(name)
    model, dtypes = graphs[graph], {"F32": onnx.TensorProto.FLOAT, "BF16": onnx.TensorProto.BFLOAT16}
    users = Counter(value for node in model.graph.node for value in node.input)
    for tensor in model.graph.initializer:
        entry = tensors[tensor.name]
        assert (tuple(tensor.dims), tensor.data_type) == (entry.shape, dtypes[entry.dtype])
        assert users[tensor.name] == 1, tensor.name


@pytest.mark.parametrize("graph", GRAPHS)
def test_matrices_go_into_an_operator_as_they_are(lowered, graph):
    """No Cast and no Transpose between. The table is gathered from, and the router's projection is standard ONNX."""
    graphs, tensors = lowered("bf16_sharded")
    for node in graphs[graph].graph.node:
        for value in node.input:
            if value not in tensors or len(tensors[value].shape) == 1:
                continue
            expected = {"embed_tokens": "Gather", "router": "Cast"}
            kind = next((op for part, op in expected.items() if part in value), None)
            assert (node.op_type == kind) if kind else (node.domain == "dgrt"), (value, node.op_type)


def test_attention_knows_heads_and_window(lowered):
    spec = models.spec("one_kv_head")
    for graph, operator in (("score", "CausalAttention"), ("denoise", "CanvasAttention")):
        nodes = [node for node in lowered(spec.name)[0][graph].graph.node if node.op_type == operator]
        for kind, node in zip(spec.layers, nodes, strict=True):
            found = {attribute.name: attribute.i for attribute in node.attribute}
            assert found.pop("num_heads") == spec.num_heads
            assert found.pop("num_kv_heads") == {"s": spec.num_kv_heads, "f": spec.num_global_kv_heads}[kind]
            assert found == ({"window": spec.window if kind == "s" else 0} if graph == "score" else {})


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "fuzed"}, "profile: expected 'portable' or 'fused', found 'fuzed'"),
        ({"profile": "fused", "moe": "loop"}, "moe of profile 'fused': expected 'auto' .* found 'loop'"),
    ],
)
def test_a_wrong_choice_says_what_would_do(checkpoints, tmp_path, options, message):
    from dgrt_export import Unsupported

    with pytest.raises(Unsupported, match=message):
        export(checkpoints("plain"), tmp_path / "e", **options)
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("missing", ["extension", "package"])
def test_without_the_native_library_nothing_is_begun(checkpoints, tmp_path, monkeypatch, missing):
    from dgrt_export import Unsupported

    real = importlib.util.find_spec

    def find_spec(name):
        if name != "dgrt._native":
            return real(name)
        if missing == "package":
            raise ModuleNotFoundError("No module named 'dgrt'")
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    stages = []
    with pytest.raises(Unsupported, match=r"profile 'fused': expected the extension module dgrt\._native.* found none"):
        export(checkpoints("plain"), tmp_path / "e", profile="fused", progress=lambda stage, *_: stages.append(stage))
    assert stages == []


def test_a_library_without_the_operators_is_named(checkpoints, tmp_path, monkeypatch, ort_library):
    from pathlib import Path

    from dgrt_export import Unsupported, check

    monkeypatch.setattr(check, "find_library", lambda: Path(ort_library))
    with pytest.raises(Unsupported, match=rf"expected the operators .* in {Path(ort_library).name}, found .*Register"):
        export(checkpoints("plain"), tmp_path / "e", profile="fused")
    assert list(tmp_path.iterdir()) == []


def with_dtypes(source, folder, is_bf16):
    """A copy of a single-file checkpoint whose tensors are bf16 where `is_bf16(name, tensor)`, else fp32."""
    from safetensors.torch import load_file, save_file

    copy = models.copy_checkpoint(source, folder)
    tensors = load_file(copy / "model.safetensors")
    mixed = {k: v.bfloat16() if is_bf16(k, v) else v.float() for k, v in tensors.items()}
    save_file(mixed, copy / "model.safetensors")
    return copy


def test_weights_of_one_operator_in_two_dtypes_are_refused(checkpoints, tmp_path):
    from dgrt_export import Unsupported

    source = with_dtypes(checkpoints("plain"), tmp_path / "c", lambda name, _: name.endswith("mlp.up_proj.weight"))
    with pytest.raises(Unsupported, match=r"mlp\.up_proj\.weight.*: expected one .*--precision.*, found .*BFLOAT16"):
        export(source, tmp_path / "e", profile="fused")
    assert export(source, tmp_path / "e", profile="fused", precision="bf16").manifest["precision"] == "bf16"


# What the graphs compute


@pytest.mark.parametrize("name", [spec.name for spec in models.RANDOM_SPECS])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_gate_passes(engines, name, precision):
    from dgrt_export import check

    manifest = json.loads((engines(name, profile="fused", precision=precision) / "manifest.json").read_text())
    assert (manifest["profile"], manifest["operators"], manifest["experts"]) == ("fused", OPERATORS_VERSION, "fused")
    assert manifest["parity"]["layers"] == list(range(len(models.spec(name).layers)))
    error = manifest["parity"]["max_abs_error"]
    # In bf16 an exact result would mean that nothing was rounded; values of the compared tensors reach about 5.
    bounds = (0, tolerance("kv").absolute) if precision == "fp32" else (1e-4, 5 * check.ROUNDED_TOLERANCE)
    assert bounds[0] < error < bounds[1]


def test_the_bundled_model_passes_the_gate(mini_checkpoint, tmp_path):
    manifest = export(mini_checkpoint, tmp_path / "e", profile="fused").manifest
    assert manifest["precision"] == "bf16" and manifest["parity"]["max_abs_error"] > 1e-4


def test_vectors_in_another_dtype_than_matrices_are_kept(checkpoints, tmp_path):
    source = with_dtypes(checkpoints("plain"), tmp_path / "c", lambda _, tensor: tensor.dim() > 1)
    report = export(source, tmp_path / "e", profile="fused")
    assert report.weights == "linked" and report.manifest["operators"] == OPERATORS_VERSION


def test_a_portable_package_needs_no_operators(engines):
    manifest = json.loads((engines("plain") / "manifest.json").read_text())
    assert manifest["profile"] == "portable" and "operators" not in manifest


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_large_model_is_checked_on_a_prefix(checkpoints, tmp_path, monkeypatch, precision):
    from dgrt_export import check

    for name, value in (("_WHOLE_MODEL_PARAMETERS", 0), ("_MAX_VOCAB", 100), ("_EXPERT_PARAMETERS", 1)):
        monkeypatch.setattr(check, name, value)
    report = export(checkpoints("six_layers_bf16"), tmp_path / "e", profile="fused", precision=precision)
    assert report.manifest["parity"]["layers"] == [0, 5] and not list((tmp_path / "e").glob("check_*"))


def wrong_weights(monkeypatch):
    """Gate and up of every dense MLP change places."""
    from dgrt_export.to_onnx import fused

    right = fused._operator

    def operator(low, op, node, inputs, weights, **attributes):
        if op == fused.FEED_FORWARD:
            weights = [weights[1], weights[0], *weights[2:]]
        return right(low, op, node, inputs, weights, **attributes)

    monkeypatch.setattr(fused, "_operator", operator)


def wrong_window(monkeypatch):
    """Sliding layers see one token too many."""
    from dgrt_export.to_onnx.builder import GraphBuilder

    right = GraphBuilder.operator

    def operator(self, op, inputs, hint, **attributes):
        if attributes.get("window"):
            attributes["window"] += 1
        return right(self, op, inputs, hint, **attributes)

    monkeypatch.setattr(GraphBuilder, "operator", operator)


@pytest.mark.parametrize(
    ("precision", "damage"), [(p, damage) for p in ("fp32", "bf16", "int8") for damage in (wrong_window, wrong_weights)]
)
def test_the_gate_stops_a_wrong_export(checkpoints, tmp_path, monkeypatch, precision, damage):
    from dgrt_export import ParityError

    damage(monkeypatch)
    with pytest.raises(ParityError, match=r"expected a difference of at most .* found \d"):
        export(checkpoints("plain"), tmp_path / "e", profile="fused", precision=precision)
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_no_numbers_never_pass(checkpoints, tmp_path, monkeypatch):
    """Neither the look at the weights, which names the tensor, nor the gate behind it."""
    import torch
    from dgrt_export import InvalidCheckpoint, ParityError, exporter
    from safetensors.torch import load_file, save_file

    source = with_dtypes(checkpoints("plain"), tmp_path / "c", lambda *_: True)
    tensors = load_file(source / "model.safetensors")
    tensors["model.decoder.layers.0.mlp.down_proj.weight"][0, 0] = torch.nan
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(InvalidCheckpoint, match=r"down_proj.weight: expected finite values, found NaN at \[0, 0\]"):
        export(source, tmp_path / "e", profile="fused")
    monkeypatch.setattr(exporter, "require_finite", lambda *_: None)
    with pytest.raises(ParityError, match="found inf"):
        export(source, tmp_path / "e", profile="fused")


# The routers' choices


def test_the_experts_of_the_check_are_the_references(lowered):
    """A copy for the check takes them as inputs, one per layer that has a router."""
    from dgrt_export.check_session import take_choices

    for graph, layers in (("prefill", 2), ("denoise", 3)):
        model = onnx.ModelProto()
        model.CopyFrom(lowered("bf16_sharded")[0][graph])
        names = [f"choice.{layer}" for layer in range(layers)]
        assert [i.name for i in take_choices(model).graph.input][-layers:] == names
        assert [node.input[19] for node in model.graph.node if node.op_type == "FeedForward"] == names


def test_rounding_moves_a_result_by_no_more_than_the_comment_says(checkpoints, tmp_path, monkeypatch):
    """The tolerance is a few times what six layers show, so it finds what is not rounding."""
    from dgrt_export import check

    seen, compare = [], check._compare
    monkeypatch.setattr(check, "_compare", lambda *args: seen.append(compare(*args)) or seen[-1])
    export(checkpoints("six_layers_bf16"), tmp_path / "e", profile="fused")
    assert len(seen) == 1 and check.ROUNDED_TOLERANCE / 10 < seen[0].relative < check.ROUNDED_TOLERANCE / 3


# The command line


def test_the_command_line_exports_the_profile(checkpoints, tmp_path, capsys):
    assert main(["export", str(checkpoints("plain")), "-o", str(tmp_path / "e"), "--profile", "fused"]) == 0
    out = capsys.readouterr().out
    assert "  profile   fused\n" in out and "  experts   fused\n" in out
    again = ["export", str(checkpoints("plain")), "-o", str(tmp_path / "e"), "--profile", "fused", "--force", "--json"]
    assert main(again) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["operators"] == OPERATORS_VERSION


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--profile", "fused", "--moe", "dense"], "expected 'auto' (its experts are one operator), found 'dense'"),
        (["--profile", "fuzed"], "invalid choice: 'fuzed'"),
    ],
)
def test_the_command_line_refuses_what_does_not_go_together(checkpoints, tmp_path, capsys, words, message):
    try:
        status = main(["export", str(checkpoints("plain")), "-o", str(tmp_path / "e"), *words])
    except SystemExit as error:  # argparse
        status = error.code
    assert status == 2 and message in capsys.readouterr().err and not (tmp_path / "e").exists()
