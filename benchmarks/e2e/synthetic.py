"""Random checkpoints for speed measurements: seeded, calm (`dgrt.reference.calm`), no download."""

from __future__ import annotations

import json
from pathlib import Path


def write_calm_checkpoint(spec: dict, folder: Path) -> None:
    """Writes a Hugging Face checkpoint of the text model described by `spec` (config.json keys plus `seed`)."""
    import torch
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

    from dgrt.reference import calm

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
            if bounds := calm.uniform_range(name):
                tensor.uniform_(*bounds)
            elif (factor := calm.factor(name)) != 1:
                tensor.mul_(factor)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    defaults = {
        "eos_token_id": [1], "pad_token_id": 0, "bos_token_id": 2, "max_denoising_steps": 48,
        "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.1},
        "t_min": 0.4, "t_max": 0.8, "stability_threshold": 1, "confidence_threshold": 0.005,
    }
    (folder / "generation_config.json").write_text(json.dumps(defaults, indent=1))
