"""Names and configs of the Hugging Face layout: our weights in, tensors and JSON out.

The config uses the released spelling (`global_head_dim`, `num_global_key_value_heads`,
`attention_k_eq_v`). The class in transformers needs a vision tower; ours is one tiny,
untrained layer so that loading is strict and no key is missing.
"""
import torch
from torch import Tensor

from .config import ModelConfig
from .model import DiffusionGemmaMini
from .tokens import BOS, EOS, PAD, TOOL_RESPONSE, TURN_END

VISION = {
    "model_type": "gemma4_vision", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16, "patch_size": 4,
    "position_embedding_size": 16, "pooling_kernel_size": 1, "max_position_embeddings": 64,
    "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
}


def config_json(c: ModelConfig) -> dict:
    """The content of config.json."""
    text = {
        "model_type": "diffusion_gemma_text",
        "vocab_size": c.vocab_size, "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers, "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads, "head_dim": c.head_dim,
        "num_global_key_value_heads": c.num_global_key_value_heads, "global_head_dim": c.global_head_dim,
        "attention_k_eq_v": True, "attention_bias": False, "attention_dropout": 0.0,
        "sliding_window": c.sliding_window, "layer_types": c.layer_types,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": c.sliding_rope_theta},
            "full_attention": {"rope_type": "proportional", "rope_theta": c.full_rope_theta,
                               "partial_rotary_factor": c.full_partial_rotary_factor},
        },
        "num_experts": c.num_experts, "top_k_experts": c.top_k_experts,
        "moe_intermediate_size": c.moe_intermediate_size, "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": c.rms_norm_eps, "final_logit_softcapping": c.final_logit_softcapping,
        "max_position_embeddings": c.max_position_embeddings, "use_bidirectional_attention": "vision",
        "initializer_range": 0.02, "tie_word_embeddings": True,
        "bos_token_id": BOS, "eos_token_id": [EOS, TURN_END], "pad_token_id": PAD, "dtype": "bfloat16",
    }
    return {
        "architectures": ["DiffusionGemmaForBlockDiffusion"], "model_type": "diffusion_gemma",
        "dtype": "bfloat16", "canvas_length": c.canvas_length, "tie_word_embeddings": True,
        "bos_token_id": BOS, "eos_token_id": [EOS, TURN_END], "pad_token_id": PAD,
        "boi_token_id": 120, "image_token_id": 121, "eoi_token_id": 122,
        "text_config": text, "vision_config": VISION,
    }


def generation_config_json() -> dict:
    """The content of generation_config.json; the released defaults."""
    return {
        "bos_token_id": BOS, "eos_token_id": [EOS, TURN_END, TOOL_RESPONSE], "pad_token_id": PAD,
        "max_new_tokens": 256, "max_denoising_steps": 48,
        "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.1},
        "t_min": 0.4, "t_max": 0.8, "stability_threshold": 1, "confidence_threshold": 0.005,
    }


def _views(model: DiffusionGemmaMini) -> dict[str, Tensor]:
    """Views of the parameters under their Hugging Face names: what is read and what is loaded go through one table."""
    c, out = model.config, {}
    root = "model.decoder."
    out[root + "embed_tokens.weight"] = model.embed
    out[root + "norm.weight"] = model.norm
    sc = model.self_conditioning
    out[root + "self_conditioning.pre_norm.weight"] = sc["pre_norm"]
    gate, up = sc["gate_up"].chunk(2)
    out[root + "self_conditioning.gate_proj.weight"], out[root + "self_conditioning.up_proj.weight"] = gate, up
    out[root + "self_conditioning.down_proj.weight"] = sc["down"]
    for n, w in enumerate(model.layers):
        full = c.is_full(n)
        name, dim, kv = f"{root}layers.{n}.", c.dim_per_head(full), c.kv_heads(full)
        sizes = [c.num_attention_heads * dim, kv * dim] + ([] if full else [kv * dim])
        for part, tensor in zip(("q", "k", "v"), w["qkv"].split(sizes)):
            out[f"{name}self_attn.{part}_proj.weight"] = tensor
        out[name + "self_attn.o_proj.weight"] = w["o"]
        out[name + "self_attn.q_norm.weight"], out[name + "self_attn.k_norm.weight"] = w["q_norm"], w["k_norm"]
        gate, up = w["gate_up"].chunk(2)
        out[name + "mlp.gate_proj.weight"], out[name + "mlp.up_proj.weight"] = gate, up
        out[name + "mlp.down_proj.weight"] = w["down"]
        out[name + "router.proj.weight"], out[name + "router.scale"] = w["router"], w["router_scale"]
        out[name + "router.per_expert_scale"] = w["per_expert_scale"]
        out[name + "experts.gate_up_proj"] = w["experts_gate_up"]
        out[name + "experts.down_proj"] = w["experts_down"].permute(1, 0, 2)
        for key in w:
            if key.endswith(("layernorm", "layernorm_1", "layernorm_2")):
                out[f"{name}{key}.weight"] = w[key]
        out[name + "layer_scalar"] = model.decoder_scalars[n : n + 1]
        out[f"model.encoder.language_model.layers.{n}.layer_scalar"] = model.encoder_scalars[n : n + 1]
    return {name: view.detach() for name, view in out.items()}


def text_tensors(model: DiffusionGemmaMini) -> dict[str, Tensor]:
    """Text weights under their Hugging Face names, fp32 copies."""
    return {name: view.float().contiguous().clone() for name, view in _views(model).items()}


def load_text_tensors(model: DiffusionGemmaMini, tensors: dict[str, Tensor]) -> None:
    """Fills the model from tensors of a published folder.

    Raises:
        KeyError: a text tensor is missing.
    """
    for name, view in _views(model).items():
        view.copy_(tensors[name])


def vision_tensors(reference: "torch.nn.Module") -> dict[str, Tensor]:
    """Untrained tensors of the vision tower, from a freshly built Hugging Face model."""
    keep = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")
    return {k: v.detach().float().contiguous().clone() for k, v in reference.state_dict().items() if k.startswith(keep)}
