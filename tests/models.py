"""Random DiffusionGemma checkpoints in the Hugging Face layout, for every test that needs a model.

They follow the calm recipe (`dgrt.reference.calm`), so that a rounding difference stays one. Nothing here says anything
about text quality. Seeded: the same spec always gives the same bytes.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

VISION = {
    "model_type": "gemma4_vision", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16, "patch_size": 4,
    "position_embedding_size": 16, "pooling_kernel_size": 1, "max_position_embeddings": 64,
    "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
}  # fmt: skip
SPECIAL = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<turn|>": 3, "<|tool_response>": 4}
STOP_IDS = [SPECIAL["<eos>"], SPECIAL["<turn|>"], SPECIAL["<|tool_response>"]]


@dataclass(frozen=True)
class ModelSpec:
    """A checkpoint in one line. Lengths in tokens; `layers` spells the pattern, s sliding and f full."""

    name: str
    layers: str = "sf"
    vocab_size: int = 301
    hidden_size: int = 64
    intermediate_size: int = 96
    num_heads: int = 4
    num_kv_heads: int = 2
    num_global_kv_heads: int = 1
    head_dim: int = 16
    global_head_dim: int = 32
    window: int = 24
    canvas_len: int = 32
    context_len: int = 2048
    num_experts: int = 8
    top_k: int = 2
    expert_width: int = 24
    partial_rotary: float = 0.25
    softcap: float = 30.0
    max_denoising_steps: int = 12
    dtype: Literal["fp32", "bf16"] = "fp32"
    shards: int = 1
    tokenizer: bool = False
    spelling: Literal["released", "per_layer"] = "released"
    vision: bool = True
    seed: int = 0


@dataclass(frozen=True)
class DrafterSpec:
    """A random drafter for a checkpoint, a layer for each full layer of the target, last first, and one more.

    The one more looks into the first full layer again.
    """

    num_heads: int = 4
    intermediate_size: int = 72
    block_len: int = 12
    dtype: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0


RANDOM_SPECS: list[ModelSpec] = [
    ModelSpec("plain", tokenizer=True),
    ModelSpec("per_layer_spelling", spelling="per_layer", num_kv_heads=4, num_global_kv_heads=2, seed=1),
    ModelSpec("bf16_sharded", layers="ssf", dtype="bf16", shards=3, tokenizer=True, seed=2),
    ModelSpec("wide_canvas", canvas_len=256, window=40, num_experts=16, top_k=4, vocab_size=1111, seed=3),
    ModelSpec("many_experts", num_experts=32, top_k=8, expert_width=8, canvas_len=17, partial_rotary=0.5, seed=4),
    ModelSpec("few_experts", num_experts=4, top_k=1, canvas_len=96, window=128, partial_rotary=1.0, seed=5),
    ModelSpec("one_kv_head", layers="sfsf", num_kv_heads=1, num_global_kv_heads=4, head_dim=32, global_head_dim=16,
              vocab_size=777, shards=2, spelling="per_layer", seed=6),
    ModelSpec("only_full", layers="ff", vocab_size=509, canvas_len=16, vision=False, seed=7),
    ModelSpec("six_layers_bf16", layers="sssssf", dtype="bf16", hidden_size=48, num_heads=6, num_kv_heads=3,
              num_global_kv_heads=2, window=7, canvas_len=40, vocab_size=353, softcap=12.0, tokenizer=True, seed=8),
]  # fmt: skip


def spec(name: str) -> ModelSpec:
    """One of RANDOM_SPECS by name."""
    return next(s for s in RANDOM_SPECS if s.name == name)


def config_json(s: ModelSpec) -> dict[str, Any]:
    """The content of config.json in the released spelling."""
    layer_types = [{"s": "sliding_attention", "f": "full_attention"}[kind] for kind in s.layers]
    text = {
        "model_type": "diffusion_gemma_text", "vocab_size": s.vocab_size, "hidden_size": s.hidden_size,
        "intermediate_size": s.intermediate_size, "num_hidden_layers": len(s.layers),
        "num_attention_heads": s.num_heads, "num_key_value_heads": s.num_kv_heads, "head_dim": s.head_dim,
        "num_global_key_value_heads": s.num_global_kv_heads, "global_head_dim": s.global_head_dim,
        "attention_k_eq_v": True, "attention_bias": False, "attention_dropout": 0.0, "sliding_window": s.window,
        "layer_types": layer_types,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "full_attention": {"rope_type": "proportional", "rope_theta": 1_000_000.0,
                               "partial_rotary_factor": s.partial_rotary},
        },
        "num_experts": s.num_experts, "top_k_experts": s.top_k, "moe_intermediate_size": s.expert_width,
        "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "final_logit_softcapping": s.softcap,
        "max_position_embeddings": s.context_len, "use_bidirectional_attention": "vision",
        "tie_word_embeddings": True, "bos_token_id": SPECIAL["<bos>"], "eos_token_id": STOP_IDS[:2],
        "pad_token_id": 0,
    }  # fmt: skip
    return {
        "architectures": ["DiffusionGemmaForBlockDiffusion"], "model_type": "diffusion_gemma",
        "canvas_length": s.canvas_len, "tie_word_embeddings": True, "bos_token_id": SPECIAL["<bos>"],
        "eos_token_id": STOP_IDS[:2], "pad_token_id": 0, "boi_token_id": 5, "image_token_id": 6, "eoi_token_id": 7,
        "dtype": {"fp32": "float32", "bf16": "bfloat16"}[s.dtype], "text_config": text, "vision_config": VISION,
    }  # fmt: skip


def build_checkpoint(s: ModelSpec, folder: Path) -> Path:
    """Writes the checkpoint of `s` into `folder` (created) and returns the folder."""
    import torch
    from safetensors.torch import save_file
    from transformers import DiffusionGemmaConfig

    folder.mkdir(parents=True, exist_ok=True)
    released = config_json(s)
    tensors = random_tensors(s)
    if s.dtype == "bf16":
        tensors = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    if s.spelling == "per_layer":
        DiffusionGemmaConfig(**released).save_pretrained(folder)
    else:
        (folder / "config.json").write_text(json.dumps(released, indent=2))
    names = sorted(tensors)
    if s.shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        weight_map = {}
        for n in range(s.shards):
            file = f"model-{n + 1:05d}-of-{s.shards:05d}.safetensors"
            part = {name: tensors[name] for name in names[n :: s.shards]}
            save_file(part, folder / file, metadata={"format": "pt"})
            weight_map.update(dict.fromkeys(part, file))
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "generation_config.json").write_text(json.dumps({
        "bos_token_id": SPECIAL["<bos>"], "eos_token_id": STOP_IDS, "pad_token_id": 0, "max_new_tokens": 256,
        "max_denoising_steps": s.max_denoising_steps, "t_min": 0.4, "t_max": 0.8, "stability_threshold": 1,
        "confidence_threshold": 0.005,
        "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.1},
    }, indent=2))  # fmt: skip
    if s.tokenizer:
        write_tokenizer(folder)
    return folder


def random_tensors(s: ModelSpec) -> dict[str, Any]:
    """Every tensor of the checkpoint, fp32, by name; values by the calm recipe."""
    import torch
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

    from dgrt.reference import calm

    with torch.device("meta"):
        skeleton = DiffusionGemmaForBlockDiffusion(DiffusionGemmaConfig(**config_json(s)))
    shapes = {name: tuple(t.shape) for name, t in skeleton.state_dict().items()}
    generator = torch.Generator().manual_seed(1_000_003 * (s.seed + 1))
    out = {}
    for name, shape in sorted(shapes.items()):
        tied = name == "lm_head.weight" or (".language_model." in name and not name.endswith("layer_scalar"))
        vision = ".vision_tower." in name or ".embed_vision." in name
        if tied or (vision and not s.vision):
            continue
        normal = torch.randn(shape, generator=generator)
        factor = calm.factor(name)
        if bounds := calm.uniform_range(name):
            value = bounds[0] + (bounds[1] - bounds[0]) * torch.rand(shape, generator=generator)
        elif name.endswith("per_expert_scale"):
            value = 0.5 + torch.rand(shape, generator=generator)
        elif name.endswith("embed_tokens.weight"):
            value = normal * (2 / math.sqrt(s.hidden_size))  # logits of spread 2: entropies neither 0 nor maximal
        elif len(shape) == 1:
            value = (1 + 0.1 * normal) * factor
        else:
            plain = 0.02 if vision else shape[-1] ** -0.5
            value = normal * (plain if factor == 1 else calm.INIT_STD * factor)
        out[name] = value.contiguous()
    return out


def build_drafter(s: DrafterSpec, checkpoint: Path, folder: Path) -> Path:
    """Writes a drafter for the target in `checkpoint` into `folder` (created) and returns the folder."""
    import torch
    from dgrt_export.checkpoint import open_checkpoint
    from dgrt_export.config import parse_config, read_json
    from dgrt_export.drafter import DrafterConfig, drafter_tensors
    from dgrt_export.fingerprint import fingerprint
    from safetensors.torch import save_file

    from dgrt.reference import calm

    folder.mkdir(parents=True)
    target = parse_config(read_json(checkpoint / "config.json"))
    full = [number for number, layer in enumerate(target.layers) if layer.type == "full"]
    config = {
        "model_type": "dgrt_block_drafter", "version": 1, "hidden_size": target.hidden_size,
        "intermediate_size": s.intermediate_size, "num_heads": s.num_heads, "kv_layers": [*full[::-1], full[0]],
        "rms_norm_eps": 1e-6, "block_len": s.block_len, "mean_run": 4.0,
        "target": {
            "name": checkpoint.name, "fingerprint": fingerprint(open_checkpoint(checkpoint, target)),
            "vocab_size": target.vocab_size, "hidden_size": target.hidden_size, "canvas_len": target.canvas_len,
        },
    }  # fmt: skip
    kv_layers = tuple(config["kv_layers"])
    facts = DrafterConfig(folder.name, s.num_heads, s.intermediate_size, 1e-6, s.block_len, kv_layers, 4.0)
    generator = torch.Generator().manual_seed(7_000_003 * (s.seed + 1))
    tensors = {}
    for name, shape in drafter_tensors(facts, target):
        normal = torch.randn(shape, generator=generator)
        if name == "mask":
            value = normal
        elif len(shape) == 1:
            value = (1 + 0.1 * normal) * calm.factor(name)
        else:
            value = normal * shape[-1] ** -0.5
        tensors[name] = value.to({"fp32": torch.float32, "bf16": torch.bfloat16}[s.dtype])
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(tensors, folder / "drafter.safetensors", metadata={"format": "pt"})
    return folder


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer of 256 + 5 tokens and a minimal chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {**SPECIAL, **{char: len(SPECIAL) + i for i, char in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
        "model_max_length": 2048,
    }))  # fmt: skip
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}<turn|>\n{% endfor %}"
        "{% if add_generation_prompt %}model\n{% endif %}"
    )


RawTensors = dict[str, tuple[str, list[int], bytes]]  # by name: dtype, shape, data


def read_raw(path: Path) -> RawTensors:
    """The tensors of a safetensors file as they are stored."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    tensors: RawTensors = {}
    for name, facts in header.items():
        begin, end = facts["data_offsets"]
        tensors[name] = (facts["dtype"], facts["shape"], content[start + begin : start + end])
    return tensors


def write_raw(path: Path, tensors: RawTensors) -> Path:
    """Writes tensors of any dtype, also of those that no library knows."""
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values()))
    return path


def copy_checkpoint(source: Path, target: Path) -> Path:
    """A private copy that a test may damage."""
    shutil.copytree(source, target)
    return target


def load_reference(folder: Path) -> Any:
    """The transformers model in fp32 with eager attention and experts, from a checkpoint folder."""
    import torch
    from transformers import DiffusionGemmaForBlockDiffusion

    model = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.set_experts_implementation("eager")
    return model.eval()
