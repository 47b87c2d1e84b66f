"""Random checkpoints for speed measurements: seeded, calm (a correct implementation agrees to about 1e-5), no download.

The recipe (design notes): post-attention and post-FFN norm weights x0.2, k_norm x0.3, router.proj x40, layer_scalar in
0.95..1.05. Without it a random deep model amplifies rounding until two correct implementations disagree.
"""

from __future__ import annotations

import json
from pathlib import Path


def write_calm_checkpoint(spec: dict, folder: Path) -> None:
    """Writes a Hugging Face checkpoint of the text model described by `spec` (config.json keys plus `seed`)."""
    import torch
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

    spec = dict(spec)
    seed, canvas_length = spec.pop("seed"), spec.pop("canvas_length")
    vision = {
        "model_type": "gemma4_vision", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16,
    }
    config = DiffusionGemmaConfig(text_config=spec, vision_config=vision, canvas_length=canvas_length)
    torch.manual_seed(seed)
    model = DiffusionGemmaForBlockDiffusion(config).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "post_attention_layernorm" in name or "post_feedforward_layernorm" in name:
                tensor.mul_(0.2)
            elif name.endswith("k_norm.weight"):
                tensor.mul_(0.3)
            elif name.endswith("router.proj.weight"):
                tensor.mul_(40.0)
            elif name.endswith("layer_scalar"):
                tensor.copy_(torch.empty(1).uniform_(0.95, 1.05))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    defaults = {
        "eos_token_id": [1], "pad_token_id": 0, "bos_token_id": 2, "max_denoising_steps": 48,
        "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.1},
        "t_min": 0.4, "t_max": 0.8, "stability_threshold": 1, "confidence_threshold": 0.005,
    }
    (folder / "generation_config.json").write_text(json.dumps(defaults, indent=1))
