"""config.json in both spellings, with class defaults, and the things that must be refused."""

from __future__ import annotations

import copy
import json
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
    {"confidence_threshold": 0.0}, {"stability_threshold": 1.5},
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
