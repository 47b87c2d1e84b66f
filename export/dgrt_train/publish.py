"""Writes a Hugging Face model folder from a checkpoint's averaged weights.

python -m dgrt_train.publish --checkpoint DIR/checkpoint.pt --folder ../dgrt/models/mini
The folder is built aside and verified (strict load, equal logits, tokenizer round
trip); then each file replaces the old one atomically, the weights last.
"""
import argparse
import json
import os
import tempfile
from pathlib import Path

import torch

from .config import ModelConfig
from .hf_format import config_json, generation_config_json, text_tensors, vision_tensors
from .hf_tokenizer import write_tokenizer
from .model_card import model_card
from .parity import build_reference
from .sample import load_average
from .tokens import encode_bytes, encode_prompt


def write_folder(checkpoint: Path, folder: Path) -> int:
    """Writes every file of the model folder; returns the training step."""
    from safetensors.torch import save_file

    model, step = load_average(checkpoint)
    torch.manual_seed(0)  # the untrained vision tensors stay the same from one publication to the next
    tensors = text_tensors(model) | vision_tensors(build_reference(ModelConfig()))
    save_file({k: v.bfloat16() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    configs = {"config.json": config_json(ModelConfig()), "generation_config.json": generation_config_json()}
    for name, content in configs.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    write_tokenizer(folder)
    (folder / "README.md").write_text(model_card(checkpoint.parent, step))
    return step


@torch.no_grad()
def verify_folder(checkpoint: Path, folder: Path) -> None:
    """Loads the folder as a user would; raises on missing keys, unequal logits or a wrong tokenizer."""
    from transformers import AutoTokenizer, DiffusionGemmaForBlockDiffusion

    loaded, info = DiffusionGemmaForBlockDiffusion.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    problems = {k: v for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if problems:
        raise AssertionError(f"not a strict load: {problems}")
    generation = loaded.generation_config
    assert generation.eos_token_id == [1, 106, 50] and generation.sampler_config.entropy_bound == 0.1
    assert not loaded.training and loaded.config.text_config.per_layer_config[1].head_dim == 64

    content = 'edit: rename a to é\n  x = "a"'
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": content}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert ids == encode_prompt(content), (ids, encode_prompt(content))
    assert tokenizer.encode(content, add_special_tokens=False) == encode_bytes(content)
    assert tokenizer.decode(encode_bytes(content)) == content

    model, _ = load_average(checkpoint)
    for p in model.parameters():
        p.copy_(p.bfloat16())
    torch.manual_seed(0)
    canvas = torch.randint(0, 384, (1, 96))
    pad = torch.zeros(1, dtype=torch.long)
    _, cache, _ = model.encode(torch.tensor([ids]), pad)
    mine, _ = model.decode(canvas[:, None], torch.zeros(1, 1, 96, 128), cache, [len(ids)], pad)
    theirs = loaded(input_ids=torch.tensor([ids]), decoder_input_ids=canvas).logits
    gap = (mine[0] - theirs).abs().max().item()
    print(f"strict load; tokenizer and chat template agree; largest logit gap {gap:.1e}")
    if gap > 2e-3:
        raise AssertionError(f"logits differ by {gap}")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--checkpoint", type=Path, required=True)
    p.add_argument("--folder", type=Path, required=True)
    args = p.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder.parent, prefix=".mini-") as name:
        built = Path(name)
        step = write_folder(args.checkpoint, built)
        verify_folder(args.checkpoint, built)
        size = sum(f.stat().st_size for f in built.iterdir())
        for file in sorted(built.iterdir(), key=lambda f: f.name == "model.safetensors"):
            os.chmod(file, 0o644)
            os.replace(file, args.folder / file.name)
    print(f"published step {step}: {size / 1e6:.2f} MB in {args.folder}")


if __name__ == "__main__":
    main()
