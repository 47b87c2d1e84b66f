"""Every tensor of a checkpoint is used, equals its tied partner, or is refused by name: a generator of changed ones."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

CASES = 288
TINY = models.ModelSpec(
    "tiny", layers="ssf", vocab_size=40, hidden_size=16, intermediate_size=24, num_heads=2, num_kv_heads=1, head_dim=8,
    global_head_dim=8, num_experts=4, expert_width=8, dtype="bf16", seed=21,
)  # fmt: skip
DECODER, ENCODER = "model.decoder.", "model.encoder.language_model."
NUMPY = {"F32": np.uint32, "BF16": np.uint16}


@dataclass
class Case:
    """A checkpoint to be changed, and what must come of it: accepted, or an error with these words."""

    rng: random.Random
    folder: Path
    tensors: models.RawTensors
    config: dict[str, Any]
    words: list[str] = field(default_factory=list)

    def used(self) -> str:
        return self.rng.choice([name for name in self.tensors if "vision" not in name])

    def tied(self) -> tuple[str, str]:
        """A name that the checkpoint may have besides, and its partner."""
        embedding = DECODER + "embed_tokens.weight"
        names = [name for name in self.tensors if name.startswith(DECODER)]
        shared = [n for n in names if "layer_scalar" not in n and "self_conditioning" not in n]
        pairs = [("lm_head.weight", embedding), *((ENCODER + n.removeprefix(DECODER), n) for n in shared)]
        return self.rng.choice(pairs)

    def put(self, name: str, dtype: str, shape: list[int], bits: np.ndarray | None = None) -> None:
        size = {"F32": 4, "BF16": 2, "I32": 4}.get(dtype, 1)
        self.tensors[name] = (dtype, shape, bytes(size * int(np.prod(shape))) if bits is None else bits.tobytes())

    def bits(self, name: str) -> np.ndarray:
        dtype, _, data = self.tensors[name]
        return np.frombuffer(data, NUMPY[dtype]).copy()


def equal_copy(case: Case) -> None:
    name, partner = case.tied()
    case.tensors[name] = case.tensors[partner]


def all_copies(case: Case) -> None:
    for _ in range(200):
        equal_copy(case)


def widened_copy(case: Case) -> None:
    name, partner = case.tied()
    case.put(name, "F32", case.tensors[partner][1], case.bits(partner).astype(np.uint32) << 16)


def other_zero(case: Case) -> None:
    name, partner = case.tied()
    bits, shape = case.bits(partner), case.tensors[partner][1]
    place = case.rng.randrange(bits.size)
    for key, value in ((partner, 0), (name, 0x8000)):
        bits[place] = value
        case.put(key, "BF16", shape, bits)


def changed_copy(case: Case) -> None:
    name, partner = case.tied()
    shape, place = case.tensors[partner][1], case.rng.randrange(case.bits(partner).size)
    if case.rng.random() < 0.5:
        bits = case.bits(partner).astype(np.uint32) << 16
        bits[place] ^= 1 << case.rng.randrange(3, 16)  # what is lost in bf16 is a difference too
        case.put(name, "F32", shape, bits)
    else:
        bits = case.bits(partner)
        bits[place] ^= 1 << case.rng.randrange(7)
        case.put(name, "BF16", shape, bits)
    row = f"row {place // int(np.prod(shape[1:]))}" if len(shape) > 1 else f"value {place}"
    case.words = ["untied", name, partner, row]


def copy_of_other_shape(case: Case) -> None:
    name, partner = case.tied()
    shape = [case.tensors[partner][1][0] + 1, *case.tensors[partner][1][1:]]
    case.put(name, "BF16", shape)
    case.words = [name, str(shape)]


def foreign_tensor(case: Case) -> None:
    root = f"{DECODER}layers.0.self_attn.q_proj."
    name, hint = case.rng.choice([
        (root + "lora_A.weight", "adapter"), (f"base_model.model.{root}lora_B.default.weight", "adapter"),
        ("base_model.model.lm_head.modules_to_save.default.weight", "adapter"), (root + "base_layer.weight", "adapter"),
        (f"ema.{root}weight", "EMA"), ("optimizer.exp_avg", "optimizer"), ("global_step", "optimizer"),
        (DECODER + "rotary_emb.inv_freq", "rotary"), (DECODER + "rotary_emb.full_attention_inv_freq", "rotary"),
        (root + "bias", "bias"), ("lm_head.bias", "bias"), (f"{DECODER}layers.7.layer_scalar", "does not have"),
        (f"{ENCODER}self_conditioning.pre_norm.weight", "does not have"), ("v_head.summary.weight", "another task"),
        (f"{DECODER}layers.0.experts.3.gate_proj.weight", "fuse"), ("model.vision_tower.x", "does not have"),
        (root + "_extra_state", "Transformer Engine"), (root + "parametrizations.weight.original", "permanent"),
        (root + "weight_mask", "permanent"), ("", "does not have"),
        ("x" * 5000, "does not have"), ("line\nfeed", "does not have"), ("model.decoder.norm.weight ", "does not have"),
    ])  # fmt: skip
    case.put(name, case.rng.choice(["F32", "BF16"]), [case.rng.randrange(1, 5)])
    case.words = [repr(name)[1:60].rstrip("'"), hint]


def prefix(case: Case) -> None:
    wrappers = ["base_model.model.", "_orig_mod.", "module.", "transformer.", "wrapped.inner."]
    inner = {"_fsdp_wrapped_module.": "FSDP", "_checkpoint_wrapped_module.": "activation checkpointing"}
    kind = case.rng.choice([*wrappers, "strip", "gemma 4", *inner])
    renamed = {
        "strip": lambda name: name.removeprefix("model."),
        "gemma 4": lambda name: name.replace(DECODER, "model.language_model."),  # a few keep theirs
        **dict.fromkeys(inner, lambda name: name.replace("layers.", f"{kind}layers.") if "layers." in name else name),
    }.get(kind, lambda name: kind + name)
    case.tensors = {renamed(name): tensor for name, tensor in case.tensors.items()}
    first = DECODER + ("layers.0.self_attn.q_proj.weight" if kind in inner else "embed_tokens.weight")
    case.words = ["the prefix", first, renamed(first), inner.get(kind, "")]


def renamed_tensor(case: Case) -> None:
    name = case.used()
    other = case.rng.choice([name + "_", name.replace("model.", "modul.", 1), name.upper()])
    case.tensors[other] = case.tensors.pop(name)
    case.words = [name, other]


def missing_tensor(case: Case) -> None:
    name = case.used()
    del case.tensors[name]
    case.words = [name, "no such tensor"]


def only_the_copy(case: Case) -> None:
    name, partner = case.tied()
    case.tensors[name] = case.tensors.pop(partner)


def only_the_copies(case: Case) -> None:
    for _ in range(200):
        name, partner = case.tied()
        if partner in case.tensors:
            case.tensors[name] = case.tensors.pop(partner)


def quantised_dtype(case: Case) -> None:
    name = case.used()
    dtype = case.rng.choice(["F8_E4M3", "F8_E5M2", "U8", "I8", "I32", "F4", "F6_E2M3", "F8_E4M3FNUZ", "F64", "C64"])
    case.put(name, dtype, case.tensors[name][1])
    if dtype == "F64":
        case.tensors[name] = (dtype, case.tensors[name][1], case.tensors[name][2] * 4)
    case.words = [name, dtype, *([] if dtype in ("F64", "C64") else ["quantised", "--precision int8"])]


def scales(case: Case) -> None:
    root = f"{DECODER}layers.{case.rng.randrange(3)}.self_attn.q_proj."
    name, scheme = case.rng.choice([
        ("weight_scale", "FP8"), ("input_scale", "FP8"), ("weight_scale_inv", "FP8"), ("weight_scale_2", "NVFP4"),
        ("weight_packed", "compressed-tensors"), ("qweight", "GPTQ"), ("qzeros", "AWQ"), ("g_idx", "GPTQ"),
        ("biases", "MLX"), ("scales", "MLX"), ("weight.absmax", "bitsandbytes"), ("SCB", "bitsandbytes"),
        ("weight.quant_state.bitsandbytes__nf4", "bitsandbytes"), ("_weight_qdata", "torchao"),
        ("weight_blocks", "MXFP4"),
        ("W_q", "HQQ"), ("weight._data", "quanto"), ("weight_scales", "EETQ"), ("codebooks", "AQLM"), ("Qidxs", "QuIP"),
        ("centroids.weight", "VPTQ"), ("q_invperm", "EXL2"), ("trellis", "EXL3"), ("bitmask", "sparse"),
        ("input_quantizer._amax", "ModelOpt"), ("weight_fake_quant.zero_point", "imitates"),
    ])  # fmt: skip
    case.put(root + name, "F32", [4])
    case.words = [root + name, "quantised", scheme, "--precision int8"]


def not_finite(case: Case) -> None:
    name = case.used()
    if case.rng.random() < 0.5:
        case.put(name, "F32", case.tensors[name][1], case.bits(name).astype(np.uint32) << 16)
    bits = case.bits(name)
    place = case.rng.randrange(bits.size)
    infinity = {2: 0x7F80, 4: 0x7F80_0000}[bits.itemsize]
    value, kind = case.rng.choice([(infinity, "infinity"), (infinity + 1, "NaN"), (infinity | infinity >> 1, "NaN")])
    bits[place] = value | case.rng.choice([0, 1 << 8 * bits.itemsize - 1])
    dtype, shape, _ = case.tensors[name]
    case.put(name, dtype, shape, bits)
    index = [int(i) for i in np.unravel_index(place, shape)]
    case.words = [name, f"{kind} at {index}"]


def other_shape(case: Case) -> None:
    name = case.used()
    shape = case.rng.choice([[0], [*case.tensors[name][1], 1], [case.tensors[name][1][0] + 1]])
    case.put(name, "BF16", shape)
    case.words = [name, str(shape)]


def vision(case: Case) -> None:
    sizes = [("F4", 1), ("F6_E3M2", 3), ("F8_E8M0", 2), ("BOOL", 2), ("of tomorrow", 11), ("F32", 8)]  # F32: NaN
    root = case.rng.choice(["model.encoder.vision_tower.", "model.encoder.embed_vision."])
    dtype, num_bytes = case.rng.choice(sizes)
    case.tensors[root + case.rng.choice(["x", "layers.0.weight_scale", "lora_A"])] = (dtype, [2], b"\xff" * num_bytes)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 4492624\n"
PAGES = ["<!DOCTYPE html>\n<html>", "\n <html lang=en>", "\ufeff<!doctype HTML><head>", "<?xml version='1.0'?><Error/>"]
TEXT_FILES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
              "chat_template.json", "processor_config.json", "preprocessor_config.json", "hf_quant_config.json",
              "special_tokens_map.json", "additional_chat_templates/tools.jinja"]  # fmt: skip


def foreign_content(case: Case) -> None:
    pointer = case.rng.random() < 0.5
    name = case.rng.choice([*TEXT_FILES, "model.safetensors", "model.safetensors"])
    (case.folder / name).parent.mkdir(exist_ok=True)
    (case.folder / name).write_text(POINTER if pointer else case.rng.choice(PAGES))
    if name == "model.safetensors":
        case.tensors = {}
    if name == "config.json":
        case.config = {}
    case.words = [Path(name).name, "git lfs pull" if pointer else "HTML"]


KINDS = [
    equal_copy, all_copies, widened_copy, other_zero, changed_copy, changed_copy, copy_of_other_shape, foreign_tensor,
    foreign_tensor, prefix, renamed_tensor, missing_tensor, only_the_copy, only_the_copies, quantised_dtype, scales,
    not_finite, not_finite, other_shape, vision, foreign_content,
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return models.build_checkpoint(replace(TINY, tokenizer=True, vocab_size=300), tmp_path_factory.mktemp("t") / "tiny")


def read(folder: Path):
    """What an export does with a checkpoint before it traces."""
    from dgrt_export.accounting import require_finite
    from dgrt_export.checkpoint import open_checkpoint
    from dgrt_export.config import parse_config, read_json
    from dgrt_export.files import find_checkpoint
    from dgrt_export.generation import read_generation, text_notes

    source = find_checkpoint(folder)
    config = parse_config(read_json(source / "config.json"))
    generation = read_generation(source, config)
    checkpoint = open_checkpoint(source, config)
    text_notes(source, config, generation["stop_ids"])
    require_finite(checkpoint.tensors.values())
    return checkpoint


def stored(entry) -> bytes:
    with entry.file.open("rb") as stream:
        stream.seek(entry.offset)
        return stream.read(entry.num_bytes)


@pytest.fixture(scope="module")
def base(tiny) -> tuple[models.RawTensors, dict[str, Any]]:
    return models.read_raw(tiny / "model.safetensors"), json.loads((tiny / "config.json").read_text())


@pytest.mark.parametrize("seed", range(CASES))
def test_a_changed_checkpoint_is_equivalent_or_refused_by_the_name_of_the_change(tiny, base, tmp_path, seed):
    from dgrt_export import ExportError

    folder = models.copy_checkpoint(tiny, tmp_path / "c")
    case = Case(random.Random(seed), folder, dict(base[0]), copy.deepcopy(base[1]))
    KINDS[seed % len(KINDS)](case)
    if case.tensors:
        models.write_raw(folder / "model.safetensors", case.tensors)
    if not case.words:
        used = read(folder).tensors
        assert {name: entry.dtype for name, entry in used.items()} == {n: base[0][n][0] for n in base[0] if n in used}
        assert set(used) == {name for name in base[0] if "vision" not in name}
        for name, entry in used.items():
            dtype, _, data = {**base[0], **case.tensors}[name]
            assert (dtype, data) == (entry.dtype, stored(entry))
        return
    with pytest.raises(ExportError) as caught:
        read(folder)
    message = str(caught.value)
    assert all(word in message for word in case.words), (case.words, message)
    assert "\n" not in message and len(message) < 1200 and " expected " in message


def test_names_of_the_text_model_the_tied_copies_and_vision_are_all_of_transformers(checkpoints):
    import torch
    from dgrt_export.checkpoint import VISION_PREFIXES, text_tensors, tied_copies
    from dgrt_export.config import parse_config
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

    raw = models.config_json(TINY)
    with torch.device("meta"):
        reference = DiffusionGemmaForBlockDiffusion(DiffusionGemmaConfig(**copy.deepcopy(raw)))
    config = parse_config(raw)
    used, tied = dict(text_tensors(config)), dict(tied_copies(config))
    assert tied == reference.all_tied_weights_keys
    names = set(reference.state_dict())
    seen = {name for name in names if name.startswith(VISION_PREFIXES)}
    assert seen and names == set(used) | set(tied) | seen and not set(used) & set(tied)
    for prefix_ in VISION_PREFIXES:
        assert any(name.startswith(prefix_) for name in names)


@pytest.mark.parametrize("change", ["equal", "head", "encoder"])
def test_what_transformers_would_not_tie_is_refused_and_what_it_ties_is_accepted(tiny, base, tmp_path, change):
    import torch
    from dgrt_export import Unsupported
    from transformers import DiffusionGemmaForBlockDiffusion

    folder = models.copy_checkpoint(tiny, tmp_path / "c")
    names = {
        "lm_head.weight": DECODER + "embed_tokens.weight",
        ENCODER + "layers.1.mlp.up_proj.weight": DECODER + "layers.1.mlp.up_proj.weight",
    }
    tensors = dict(base[0])
    for name, partner in names.items():
        dtype, shape, data = tensors[partner]
        rolled = data[32:] + data[:32]
        differs = change == {"lm_head.weight": "head"}.get(name, "encoder")
        tensors[name] = (dtype, shape, rolled if differs else data)
    models.write_raw(folder / "model.safetensors", tensors)
    model = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=torch.bfloat16)
    state = {**dict(model.named_parameters(remove_duplicate=False))}
    tied = {name: state[name].data_ptr() == state[partner].data_ptr() for name, partner in names.items()}
    assert list(tied.values()) == [change != "head", change != "encoder"]
    if change == "equal":
        read(folder)
        return
    with pytest.raises(Unsupported, match="untied .*expected the values of .*dgrt ties them.*first in row 0; "):
        read(folder)


@pytest.mark.parametrize("names", ["the head alone", "those of the encoder"])
def test_tied_weights_under_their_other_names_are_what_transformers_loads(tiny, base, tmp_path, names):
    import torch
    from transformers import DiffusionGemmaForBlockDiffusion

    other = {DECODER + "embed_tokens.weight": "lm_head.weight"}
    if names == "those of the encoder":
        tied = [name for name in base[0] if name.startswith(DECODER) and "scalar" not in name and "self_c" not in name]
        other = {name: ENCODER + name.removeprefix(DECODER) for name in tied}
    folder = models.copy_checkpoint(tiny, tmp_path / "c")
    tensors = {other.get(name, name): tensor for name, tensor in base[0].items()}
    models.write_raw(folder / "model.safetensors", tensors)
    state = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=torch.bfloat16).state_dict()
    for name, entry in read(folder).tensors.items():
        assert entry.name == name
        assert stored(entry) == base[0][name][2] == state[name].contiguous().view(torch.uint8).numpy().tobytes()


def test_large_tensors_are_compared_and_judged_beyond_the_first_chunk(tmp_path, monkeypatch):
    from dgrt_export import ExportError, accounting
    from dgrt_export.checkpoint import read_header

    monkeypatch.setattr(accounting, "_CHUNK_ELEMENTS", 7)
    values = np.arange(60, dtype=np.float32).reshape(6, 10)
    other = values.copy()
    other[4, 3] = -1
    half = values.astype(np.float16)
    half[5, 9] = np.inf
    files = models.write_raw(tmp_path / "x.safetensors", {
        "a": ("F32", [6, 10], values.tobytes()), "b": ("F32", [6, 10], other.tobytes()),
        "c": ("F16", [6, 10], values.astype(np.float16).tobytes()), "d": ("F16", [6, 10], half.tobytes()),
    })  # fmt: skip
    found, counts = read_header(files), []
    accounting.compare_copies(found, {"c": "a", "a": "c"})
    with pytest.raises(ExportError, match="untied b: .*first in row 4"):
        accounting.compare_copies(found, {"b": "c"})
    accounting.require_finite([found["a"], found["c"]], counts.append)
    assert sum(counts) == 60 * 6 and len(counts) == 18
    with pytest.raises(ExportError, match=r"tensor d: .*infinity at \[5, 9\] in x.safetensors"):
        accounting.require_finite(found.values())


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path):
    from dgrt_export import InvalidCheckpoint, accounting
    from dgrt_export.checkpoint import read_header

    path = models.write_raw(tmp_path / "x.safetensors", {"a": ("F32", [4], bytes(16))})
    found = read_header(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InvalidCheckpoint, match="nobody may write to the checkpoint"):
        accounting.require_finite(found.values())


def test_weights_that_are_no_numbers_are_told_before_anything_is_traced(tiny, base, tmp_path):
    from dgrt_export import InvalidCheckpoint, export

    folder = models.copy_checkpoint(tiny, tmp_path / "c")
    name = DECODER + "layers.2.experts.down_proj"
    dtype, shape, data = base[0][name]
    models.write_raw(folder / "model.safetensors", {**base[0], name: (dtype, shape, b"\xc0\x7f" + data[2:])})
    stages: list[str] = []
    with pytest.raises(InvalidCheckpoint, match=rf"tensor {name}: expected finite .* NaN at \[0, 0, 0\]"):
        export(folder, tmp_path / "e", progress=lambda stage, *_: stages.append(stage))
    assert set(stages) == {"read config", "check weights"} and not (tmp_path / "e").exists()
