"""What the ONNX files look like: names, bytes, nothing but standard operators, nothing of this machine."""

from __future__ import annotations

from pathlib import Path

import models
import onnx
import onnxruntime
import pytest
from safetensors.torch import load_file

GRAPHS = ("prefill", "denoise", "score", "packed", "check")
FORMS = ("dense", "unrolled", "loop")


def load(folder: Path, name: str) -> onnx.ModelProto:
    return onnx.load(folder / f"{name}.onnx", load_external_data=False)


def nodes(graph: onnx.GraphProto):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


def placement(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["plain", "bf16_sharded"])
def test_every_initializer_is_the_checkpoints_own_bytes(engines, checkpoints, name, form):
    import torch

    folder, source = engines(name, moe=form), {}
    for path in checkpoints(name).glob("*.safetensors"):
        source.update(load_file(path))
    for graph in GRAPHS:
        for tensor in load(folder, graph).graph.initializer:
            assert tensor.data_location == onnx.TensorProto.EXTERNAL and not tensor.raw_data
            base, _, expert = tensor.name.partition("#")
            expected = source[base][int(expert)] if expert else source[base]
            place = placement(tensor)
            assert "/" not in place["location"]
            with (folder / place["location"]).open("rb") as stream:
                stream.seek(int(place["offset"]))
                content = stream.read(int(place["length"]))
            assert content == expected.contiguous().view(-1).view(torch.uint8).numpy().tobytes(), tensor.name
            assert torch.Size(tensor.dims).numel() == expected.numel() and tensor.dims[-1] == expected.shape[-1]


@pytest.mark.parametrize("form", FORMS)
def test_no_weight_is_bound_twice_and_all_are_used(engines, checkpoints, form):
    from dgrt_export.checkpoint import text_tensors
    from dgrt_export.config import parse_config, read_json

    folder, used = engines("plain", moe=form), set()
    for graph in GRAPHS:
        places = [(p["location"], p["offset"]) for p in map(placement, load(folder, graph).graph.initializer)]
        assert len(places) == len(set(places))
        used |= {tensor.name.partition("#")[0] for tensor in load(folder, graph).graph.initializer}
    names = {name for name, _ in text_tensors(parse_config(read_json(folder / "config.json")))}
    assert names == used


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs_are_small_standard_and_anonymous(engines, tmp_path, form, graph):
    # A copy, because onnx's own checker (unlike ONNX Runtime) refuses weight files with a second hard link.
    path = models.copy_checkpoint(engines("plain", moe=form), tmp_path / "copy") / f"{graph}.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    model = load(path.parent, graph)
    assert [opset.domain for opset in model.opset_import] == [""]
    assert not model.metadata_props and not model.doc_string
    for node in nodes(model.graph):
        assert node.domain == "" and not node.metadata_props and not node.doc_string
    content = path.read_bytes()
    for trace_of_home in (b"/root", b"/home", b"site-packages", b".py", str(Path(__file__).parents[2]).encode()):
        assert trace_of_home not in content
    assert len(content) < 100_000


def test_denoise_has_no_mask_and_the_causal_graphs_one_per_layer_type(engines):
    folder = engines("one_kv_head")  # layers s f s f
    attention = [n for n in nodes(load(folder, "denoise").graph) if n.op_type == "Attention"]
    assert len(attention) == 4 and all(len(node.input) == 3 for node in attention)
    for graph, layers in (("prefill", 3), ("score", 4)):  # the last prefill layer stops at its K and V
        attention = [n for n in nodes(load(folder, graph).graph) if n.op_type == "Attention"]
        masks = [node.input[3] for node in attention]
        assert len(masks) == layers and masks[0] == masks[2] != masks[1] and masks[3:] == masks[1:2] * (layers - 3)


def test_in_the_packed_graph_only_the_candidate_has_a_mask(engines):
    attention = [n for n in nodes(load(engines("one_kv_head"), "packed").graph) if n.op_type == "Attention"]
    masked = [node for node in attention if len(node.input) == 4]
    assert (len(attention), len(masked)) == (2 * 4 + 3, 3)  # of the candidate the last layer keeps K and V only


def test_in_the_checking_graph_only_the_draft_has_a_mask(engines):
    attention = [n for n in nodes(load(engines("one_kv_head"), "check").graph) if n.op_type == "Attention"]
    masked = [node for node in attention if len(node.input) == 4]
    assert (len(attention), len(masked)) == (2 * 4, 4)


def test_rotary_tables_are_computed_once_per_layer_type(engines):
    for graph in GRAPHS:
        operators = [node.op_type for node in nodes(load(engines("six_layers_bf16"), graph).graph)]
        assert operators.count("Cos") == operators.count("Sin") == 2


def test_the_last_prefill_layer_reads_nothing_but_keys_and_values(engines):
    names = {tensor.name for tensor in load(engines("plain"), "prefill").graph.initializer}
    last = {name for name in names if ".layers.1." in name}
    assert {name.rpartition("layers.1.")[2] for name in last} == {
        "input_layernorm.weight", "self_attn.k_proj.weight", "self_attn.k_norm.weight",
    }  # fmt: skip


def test_layer_scalars_of_both_sides_are_honoured(engines):
    encoder, decoder = "model.encoder.language_model.layers.{}.layer_scalar", "model.decoder.layers.{}.layer_scalar"
    expected = {"prefill": {encoder.format(0)}, "score": {encoder.format(n) for n in (0, 1)},
                "denoise": {decoder.format(n) for n in (0, 1)},
                "packed": {decoder.format(n) for n in (0, 1)} | {encoder.format(0)},
                "check": {side.format(n) for side in (decoder, encoder) for n in (0, 1)}}  # fmt: skip
    for graph in GRAPHS:
        names = {tensor.name for tensor in load(engines("plain"), graph).graph.initializer}
        assert {name for name in names if "layer_scalar" in name} == expected[graph]


@pytest.mark.parametrize("form", FORMS)
def test_both_spellings_give_the_same_graphs(tmp_path, form):
    from dgrt_export.checkpoint import open_checkpoint
    from dgrt_export.config import parse_config, read_json
    from dgrt_export.graphs.target import build_target, reference_config
    from dgrt_export.graphs.trace import trace
    from dgrt_export.to_onnx.lower import lower

    spec, serialised = models.spec("one_kv_head"), []
    for spelling in ("released", "per_layer"):
        changed = type(spec)(**{**vars(spec), "spelling": spelling, "shards": 1})
        folder = models.build_checkpoint(changed, tmp_path / spelling)
        raw = read_json(folder / "config.json")
        config = parse_config(raw)
        target, weights = build_target(reference_config(raw)), open_checkpoint(folder, config).tensors
        lowered = (lower(trace(g, target, config, "portable"), weights, "portable", form) for g in GRAPHS)
        serialised.append([model.SerializeToString(deterministic=True) for model in lowered])
    assert serialised[0] == serialised[1]


def test_exports_are_reproducible(engines, checkpoints, tmp_path):
    from dgrt_export import export

    export(checkpoints("plain"), tmp_path / "again")
    for name in (*(f"{graph}.onnx" for graph in GRAPHS), "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (engines("plain", profile="fused") / name).read_bytes()


def test_a_moved_package_still_loads(engines, tmp_path):
    folder = models.copy_checkpoint(engines("plain"), tmp_path / "elsewhere")
    for name in GRAPHS:
        onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("experts", "layers", "hidden", "width", "expected"),
    [
        (8, 2, 64, 24, "dense"),
        (8, 8, 128, 32, "unrolled"),
        (32, 12, 512, 256, "unrolled"),
        (128, 30, 2816, 704, "loop"),
    ],
)
def test_the_form_of_the_experts_follows_their_size(experts, layers, hidden, width, expected):
    from dgrt_export.config import parse_config
    from dgrt_export.to_onnx.moe import choose

    pattern = "s" * (layers - 1) + "f"
    spec = models.ModelSpec("x", layers=pattern, num_experts=experts, hidden_size=hidden, expert_width=width)
    assert choose(parse_config(models.config_json(spec))) == expected
