"""config.json in both spellings, with class defaults, and the things that must be refused."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import models
import pytest


def parse(raw):
    from dgrt_export.config import parse_config

    return parse_config(raw)


@pytest.mark.parametrize("name", ["plain", "one_kv_head", "only_full", "six_layers_bf16"])
def test_both_spellings_mean_the_same_model(name, tmp_path):
    from transformers import DiffusionGemmaConfig

    released = models.config_json(models.spec(name))
    DiffusionGemmaConfig(**copy.deepcopy(released)).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert "per_layer_config" in saved["text_config"] and "global_head_dim" not in saved["text_config"]
    assert parse(saved) == parse(released)


def test_missing_keys_take_the_class_defaults_of_transformers():
    from transformers import DiffusionGemmaConfig

    bare = {"model_type": "diffusion_gemma",
            "text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 8}}  # fmt: skip
    ours, theirs = parse(bare), DiffusionGemmaConfig(**copy.deepcopy(bare))
    text = theirs.text_config
    assert (ours.hidden_size, ours.vocab_size, ours.num_heads) == (
        text.hidden_size,
        text.vocab_size,
        text.num_attention_heads,
    )
    assert (ours.sliding_window, ours.context_len) == (text.sliding_window, text.max_position_embeddings)
    assert ours.canvas_len == theirs.canvas_length
    assert [f"{layer.type}_attention" for layer in ours.layers] == text.layer_types
    expected = [(layer.head_dim, layer.num_key_value_heads) for layer in text.per_layer_config]
    assert [(layer.head_dim, layer.num_kv_heads) for layer in ours.layers] == expected
    assert ours.ropes["full"].rotated_pairs == 64 and ours.ropes["full"].theta == 1e6


def test_the_last_layer_is_always_full():
    raw = models.config_json(models.spec("plain"))
    raw["text_config"]["layer_types"] = ["sliding_attention", "sliding_attention"]
    assert [layer.type for layer in parse(raw).layers] == ["sliding", "full"]


@pytest.mark.parametrize("kind", ["sliding_attention", "full_attention"])
@pytest.mark.parametrize("factor", [0.25, 0.5, 0.3, 1.0])
def test_rotary_frequencies_are_those_of_transformers(kind, factor):
    import torch
    from dgrt_export.graphs.ops import inverse_frequencies
    from transformers import DiffusionGemmaConfig
    from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaTextRotaryEmbedding

    raw = models.config_json(models.spec("plain"))
    if kind == "full_attention":
        raw["text_config"]["rope_parameters"][kind].update(partial_rotary_factor=factor, factor=2.0)
    ours = inverse_frequencies(parse(raw).ropes[kind.removesuffix("_attention")])
    theirs = DiffusionGemmaTextRotaryEmbedding(DiffusionGemmaConfig(**raw).text_config)
    assert torch.equal(ours, getattr(theirs, f"{kind}_inv_freq"))


def _set(path, value):
    def change(raw):
        *parents, key = path
        for parent in parents:
            raw = raw[parent]
        raw[key] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("architectures",), ["LlamaForCausalLM"], ["DiffusionGemmaForBlockDiffusion", "LlamaForCausalLM"]),
        (("model_type",), "llama", ["DiffusionGemmaForBlockDiffusion"]),
        (("text_config", "rope_parameters", "full_attention", "rope_type"), "yarn", ["'proportional'", "'yarn'"]),
        (("text_config", "rope_parameters", "sliding_attention", "partial_rotary_factor"), 0.5, ["1.0", "0.5"]),
        (("text_config", "hidden_activation"), "silu", ["'gelu_pytorch_tanh'", "'silu'"]),
        (("text_config", "attention_bias"), True, ["attention_bias", "False", "True"]),
        (("text_config", "use_bidirectional_attention"), "all", ["'vision'", "'all'"]),
        (("text_config", "attention_k_eq_v"), False, ["attention_k_eq_v", "True", "False"]),
        (("text_config", "tie_word_embeddings"), False, ["tie_word_embeddings", "True"]),
        (
            ("text_config", "layer_types"),
            ["chunked_attention", "full_attention"],
            ["full_attention", "chunked_attention"],
        ),
        (("text_config", "per_layer_config"), {"0": {"sliding_window": 3}}, ["sliding_window"]),
        (("quantization_config",), {"quant_method": "modelopt"}, ["quantization_config", "modelopt"]),
    ],
)
def test_what_the_graphs_cannot_express_is_unsupported(path, value, words):
    from dgrt_export import Unsupported

    raw = models.config_json(models.spec("plain"))
    _set(path, value)(raw)
    with pytest.raises(Unsupported, match=r"expected .* found ") as caught:
        parse(raw)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("text_config",), None),
        (("text_config", "hidden_size"), "64"),
        (("text_config", "num_experts"), None),
        (("text_config", "top_k_experts"), 9),
        (("text_config", "num_key_value_heads"), 3),
        (("text_config", "layer_types"), ["full_attention"]),
        (("text_config", "per_layer_config"), {"7": {"head_dim": 8}}),
        (("text_config", "rope_parameters"), {"rope_type": "default"}),
        (("text_config", "rope_parameters"), ["default"]),
        (("text_config", "rope_parameters", "full_attention"), "proportional"),
        (("text_config", "per_layer_config"), [{"head_dim": 8}]),
        (("text_config", "per_layer_config"), {"first": {"head_dim": 8}}),
        (("text_config", "per_layer_config"), {"0": 8}),
        (("text_config", "rms_norm_eps"), float("inf")),
        (("text_config", "eos_token_id"), "stop"),
        (("text_config", "pad_token_id"), 301),
        (("text_config", "pad_token_id"), -1),
        (("text_config", "pad_token_id"), "<pad>"),
        (("text_config", "bos_token_id"), 301),
        (("text_config", "bos_token_id"), True),
        (("architectures",), 5),
        (("canvas_length",), 0),
    ],
)
def test_a_config_that_contradicts_itself_is_invalid(path, value):
    from dgrt_export import InvalidCheckpoint

    raw = models.config_json(models.spec("plain"))
    raw.pop("eos_token_id")
    _set(path, value)(raw)
    with pytest.raises(InvalidCheckpoint, match=r"^config\.json .*expected .* found "):
        parse(raw)


@pytest.mark.parametrize("where", ["top", "text_config"])
@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["x" * 40] * 120},
         ["compressed-tensors, float-quantized"]),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, ["fp8"]),
        ({"quant_method": "fbgemm_fp8"}, ["fbgemm_fp8"]),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, ["modelopt, NVFP4"]),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, ["awq, 4 bits"]),
        ({"quant_method": "gptq", "bits": 8}, ["gptq, 8 bits"]),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
         ["bitsandbytes", "nf4", "load_in_4bit"]),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
         ["torchao", "Int4WeightOnlyConfig"]),
        ({"of": "tomorrow"}, ["tomorrow"]),
        ("fp8", ["fp8"]),
    ],
    ids=lambda value: "",
)  # fmt: skip
def test_a_quantised_config_is_refused_by_its_scheme_in_one_line(where, facts, words):
    from dgrt_export import Unsupported

    raw = models.config_json(models.spec("plain"))
    (raw if where == "top" else raw[where])["quantization_config"] = facts
    with pytest.raises(Unsupported, match="quantization_config: expected an unquantised .* quantised ") as caught:
        parse(raw)
    message = str(caught.value)
    assert all(word in message for word in [*words, "export the original bf16 checkpoint; --precision int8 or int4"])
    assert len(message) < 500 and "\n" not in message


def test_mlx_and_modelopt_name_their_quantisation(tmp_path):
    from dgrt_export import Unsupported
    from dgrt_export.files import find_checkpoint

    raw = models.config_json(models.spec("plain"))
    with pytest.raises(Unsupported, match=r"config.json quantization: .* quantised \(MLX, affine, 4 bits\)"):
        parse({**raw, "quantization": {"group_size": 64, "bits": 4, "mode": "affine"}})
    (tmp_path / "config.json").write_text(json.dumps(raw))
    facts = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(facts))
    with pytest.raises(Unsupported, match=r"hf_quant_config.json: .* quantised \(ModelOpt, NVFP4\)"):
        find_checkpoint(tmp_path)
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": None}}))
    assert find_checkpoint(tmp_path) == tmp_path


@pytest.mark.parametrize("nothing", [{}, None])
def test_an_empty_quantisation_is_none(nothing):
    raw = models.config_json(models.spec("plain"))
    expected = parse(raw)
    raw["quantization_config"] = raw["text_config"]["quantization_config"] = nothing
    assert parse(raw) == expected


@pytest.mark.parametrize("where", ["top", "text_config"])
@pytest.mark.parametrize("scaling", [{"rope_type": "yarn", "factor": 4.0}, {"type": "linear", "factor": 8.0}])
def test_rope_scaling_is_refused_where_the_config_is_read(where, scaling):
    from dgrt_export import Unsupported

    raw = models.config_json(models.spec("plain"))
    (raw if where == "top" else raw[where])["rope_scaling"] = scaling
    with pytest.raises(Unsupported, match="rope_scaling: expected none, found .*; rope_scaling is not supported"):
        parse(raw)


def test_the_old_spelling_of_a_rope_type_counts():
    from dgrt_export import Unsupported

    raw = models.config_json(models.spec("plain"))
    rope = raw["text_config"]["rope_parameters"]["sliding_attention"]
    rope["type"] = "linear"
    assert parse(raw).ropes["sliding"].theta == 10_000.0
    del rope["rope_type"]
    with pytest.raises(Unsupported, match="sliding_attention rope_type: expected 'default' or 'prop.*, found 'linear'"):
        parse(raw)


def _flattened(raw):
    return {**raw.pop("text_config"), "architectures": raw["architectures"], "model_type": "diffusion_gemma_text"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_flattened, "text_config: expected an object, found the text part alone, flattened into config.json; take"),
        (lambda raw: {**_flattened(raw), "model_type": "diffusion_gemma"}, "flattened into config.json; take"),
        (lambda raw: {**raw, "model_type": "llama"},
         r"model_type: expected 'diffusion_gemma' \(DiffusionGemmaForBlockDiffusion\), found 'llama'"),
        (lambda raw: {**raw, "architectures": ["PeftModelForCausalLM"]},
         r"architectures: expected 'DiffusionGemmaForBlockDiffusion', found \['PeftModelForCausalLM'\]; a trainer's"),
        (lambda raw: {**raw, "text_config": "x" * 1000}, "text_config: expected an object, found 'x{190,210}[.]{3}$"),
        (lambda raw: {**raw, "transformers_weights": "a.safetensors"}, "transformers_weights: .*rename that file"),
        (lambda raw: {**raw, "text_config": {**raw["text_config"], "hidden_size": "64"}},
         "hidden_size: expected an integer >= 1, found '64'"),
    ],
    ids=lambda value: "",
)  # fmt: skip
def test_a_config_of_another_kind_says_what_it_is(change, message):
    from dgrt_export import ExportError

    with pytest.raises(ExportError, match=message):
        parse(change(models.config_json(models.spec("plain"))))


VALUES = [None, True, False, 0, -1, 1, 2, 3, 0.5, 1.0, 16.0, "64", "x", "", [], [1], {}, {"a": 1}, 10**30, 10**4000,
          float("nan"), float("inf"), "yarn", ["full_attention"], "line\nfeed", "x" * 3000]  # fmt: skip


def _paths(part, root=()):
    for key, value in part.items():
        yield (*root, key)
        if isinstance(value, dict) and key != "vision_config":
            yield from _paths(value, (*root, key))


@pytest.mark.parametrize("seed", range(240))
def test_a_changed_value_means_what_it_means_to_transformers_or_is_refused_by_its_key(seed):
    from dgrt_export import ExportError
    from dgrt_export.graphs.target import reference_config

    rng = random.Random(seed)
    raw = models.config_json(models.spec("plain"))
    raw["vision_config"] = None
    more = [("text_config", "rope_scaling"), ("text_config", "per_layer_config"), ("text_config", "unknown")]
    path = rng.choice([*_paths(raw), *more])
    part = raw
    for key in path[:-1]:
        part = part[key]
    if rng.random() < 0.1:
        part.pop(path[-1], None)
    else:
        part[path[-1]] = rng.choice(VALUES)
    try:
        ours, theirs = parse(copy.deepcopy(raw)), reference_config(raw)
    except ExportError as error:
        message = str(error)
        key = {"num_hidden_layers": "layer"}.get(path[-1], path[-1])
        related = ["partial_rotary_factor"] if path[-1] == "rope_type" else []  # its default allows no factor
        related += ["key_value_heads"] if path[-1] == "num_attention_heads" else []
        assert any(word in message for word in [key, *related, "torch"]), (path, message)  # torch: the dtype
        assert "\n" not in message and len(message) < 700
        expected, found = message.split(" expected ")[1].split(", found ", 1)
        assert expected and expected != found
        return
    text = theirs.text_config
    ends = theirs.eos_token_id if "eos_token_id" in raw else text.eos_token_id
    assert ours.eos_token_ids == tuple([] if ends is None else ends if isinstance(ends, list) else [ends])
    assert (ours.hidden_size, ours.intermediate_size, ours.vocab_size, ours.num_heads, ours.sliding_window) == (
        text.hidden_size, text.intermediate_size, text.vocab_size, text.num_attention_heads, text.sliding_window
    )  # fmt: skip
    assert (ours.num_experts, ours.top_k_experts, ours.moe_intermediate_size, ours.rms_norm_eps) == (
        text.num_experts, text.top_k_experts, text.moe_intermediate_size, text.rms_norm_eps
    )  # fmt: skip
    assert (ours.context_len, ours.canvas_len) == (text.max_position_embeddings, theirs.canvas_length)
    assert [f"{layer.type}_attention" for layer in ours.layers] == text.layer_types
    expected = [(layer.head_dim, layer.num_key_value_heads) for layer in text.per_layer_config]
    assert [(layer.head_dim, layer.num_kv_heads) for layer in ours.layers] == expected
    for kind, rope in ours.ropes.items():
        assert rope.theta == float(text.rope_parameters[f"{kind}_attention"]["rope_theta"])


def test_the_ends_of_the_vocabulary_and_no_tokens_at_all_are_fine():
    raw = models.config_json(models.spec("plain"))
    raw["text_config"].update(pad_token_id=300, bos_token_id=300)
    assert (parse(raw).pad_token_id, parse(raw).bos_token_id) == (300, 300)
    raw["text_config"].update(pad_token_id=None, bos_token_id=None)
    assert (parse(raw).pad_token_id, parse(raw).bos_token_id) == (0, -1)


def generation(folder: Path, **changes):
    from dgrt_export.generation import read_generation

    (folder / "generation_config.json").write_text(json.dumps(changes))
    return read_generation(folder, parse(models.config_json(models.spec("plain"))))


def test_generation_defaults_are_those_of_transformers(tmp_path):
    from dgrt_export.generation import read_generation
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import DiffusionGemmaGenerationConfig

    theirs = DiffusionGemmaGenerationConfig._get_default_generation_params()
    ours = read_generation(tmp_path, parse(models.config_json(models.spec("plain"))))
    assert ours.pop("stop_ids") == models.STOP_IDS[:2]  # of config.json
    assert ours.pop("entropy_bound") == theirs.pop("sampler_config").entropy_bound
    theirs.pop("max_new_tokens")  # unlimited is ours
    assert ours == theirs


def test_generation_values_come_from_the_file(tmp_path):
    sampler = {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.25}
    values = generation(tmp_path, eos_token_id=9, max_new_tokens=256, t_min=0.1, sampler_config=sampler)
    assert values["stop_ids"] == [9] and values["t_min"] == 0.1 and values["entropy_bound"] == 0.25
    assert "max_new_tokens" not in values
    assert generation(tmp_path, eos_token_id=[1, 106, 50])["stop_ids"] == [1, 106, 50]


@pytest.mark.parametrize("changes", [
    {"t_min": 0.9}, {"t_min": 0.8}, {"t_min": -0.1}, {"t_min": float("nan")}, {"t_max": float("inf")}, {"t_max": "hot"},
    {"max_denoising_steps": 0}, {"eos_token_id": [-1]}, {"eos_token_id": [1, 301]}, {"sampler_config": 3},
    {"sampler_config": {"_cls_name": "OtherSampler"}}, {"sampler_config": {"entropy_bound": 0}},
    {"confidence_threshold": 0.0}, {"stability_threshold": 1.5}, {"sampler_config": []}, {"sampler_config": False},
    {"sampler_config": {"entropy_bounds": 0.2}},
], ids=str)  # fmt: skip
def test_impossible_generation_values_are_refused(tmp_path, changes):
    from dgrt_export import ExportError

    with pytest.raises(ExportError, match=r"^generation_config\.json .*expected .* found "):
        generation(tmp_path, **changes)


def test_a_stop_id_of_config_json_outside_the_vocabulary_is_refused_where_it_counts(tmp_path):
    from dgrt_export import InvalidCheckpoint
    from dgrt_export.generation import read_generation

    raw = models.config_json(models.spec("plain"))
    raw["eos_token_id"] = [1, 301]
    with pytest.raises(InvalidCheckpoint, match=r"config\.json eos_token_id: expected .* 301, found 301"):
        read_generation(tmp_path, parse(raw))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 1}')
    assert read_generation(tmp_path, parse(raw))["stop_ids"] == [1]


def notes(folder: Path, generation=None, tokens=None, model=None, **config):
    from dgrt_export.generation import read_generation, text_notes

    raw = models.config_json(models.spec("plain"))
    parsed = parse({**raw, **config})
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    if tokens is not None:
        added = [{"id": token, "content": text} for text, token in tokens.items()]
        (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": model or {}}))
    return text_notes(folder, parsed, read_generation(folder, parsed)["stop_ids"])


def test_stop_ids_that_lack_an_end_are_noted(tmp_path):
    ends = {"<eos>": 1, "<turn|>": 3}
    assert notes(tmp_path, {"eos_token_id": [1, 3]}, ends) == ()
    (note,) = notes(tmp_path, {"eos_token_id": 1}, ends)
    assert note.startswith("the stop ids [1] lack 3 (<turn|>): replies may run on; add them to generation_config.json")
    (note,) = notes(tmp_path, {"eos_token_id": [3]}, ends)
    assert "lack 1 (an end token of config.json)" in note
    (note,) = notes(tmp_path, {"eos_token_id": None}, ends)
    assert note.startswith("generation_config.json eos_token_id names no token: no reply ends before its limit")


def test_values_that_this_model_does_not_have_are_noted(tmp_path):
    known = {"eos_token_id": [1, 3], "max_length": 9, "cache_implementation": "static", "transformers_version": "5"}
    assert notes(tmp_path, known) == ()
    (note,) = notes(tmp_path, {**known, "top_k": 64, "temperature": 0.1, "suppress_tokens": None})
    assert note == "generation_config.json: this model has no temperature, top_k, in transformers neither: ignored"


def test_tokens_beyond_the_embedding_are_noted_by_their_text(tmp_path):
    ends = {"<eos>": 1, "<turn|>": 3}
    assert notes(tmp_path, tokens={**ends, "<last>": 300}) == ()
    (note,) = notes(tmp_path, tokens={**ends, "<new>": 301, "<newer>": 302})
    assert "token '<new>' with id 301 and 1 more are beyond the embedding of 301 rows; prompts with such" in note
    (note,) = notes(tmp_path, tokens=ends, model={"vocab": [[f"piece {n}", 0.0] for n in range(302)]})
    assert "token 'piece 301' with id 301 is beyond" in note
    for odd in (3, [3], {"vocab": 3}, {"vocab": {"x": "y"}}, {"vocab": [[[]], 3]}):
        assert notes(tmp_path, tokens=ends, model=odd) == ()
