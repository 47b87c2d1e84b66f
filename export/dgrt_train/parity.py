"""Proves that our forward passes equal transformers' DiffusionGemmaForBlockDiffusion.

Random weights, fp32, unequal layer scalars, contexts shorter and longer than the
sliding window, with and without self-conditioning. Run: python -m dgrt_train.parity
"""
import torch

from .config import ModelConfig
from .hf_format import config_json, text_tensors
from .model import DiffusionGemmaMini


def build_reference(config: ModelConfig):
    """Builds the Hugging Face model with its own random weights, in fp32."""
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

    hf_config = DiffusionGemmaConfig(**config_json(config))
    hf_config._attn_implementation = "eager"
    return DiffusionGemmaForBlockDiffusion(hf_config).float().eval()


@torch.no_grad()
def check_parity(tolerance: float = 1e-4) -> float:
    """Returns the largest logit difference; raises if it exceeds `tolerance`."""
    torch.manual_seed(0)
    config = ModelConfig()
    mine = DiffusionGemmaMini(config, dtype=torch.float32)
    for p in (mine.encoder_scalars, mine.decoder_scalars):
        p.copy_(0.8 + 0.4 * torch.rand_like(p))
    for layer in mine.layers:
        layer["per_expert_scale"].copy_(0.5 + torch.rand(config.num_experts))
    reference = build_reference(config)
    missing, unexpected = reference.load_state_dict(text_tensors(mine), strict=False)
    untied = [k for k in missing if "vision" not in k and "encoder.language_model" not in k and k != "lm_head.weight"]
    assert not unexpected and not untied, (unexpected, untied)
    worst = 0.0
    for length, left_pad in ((50, 0), (127, 5), (128, 0), (300, 7)):
        ids = torch.randint(0, config.vocab_size, (2, length))
        canvas = torch.randint(0, config.vocab_size, (2, 1, config.canvas_length))
        padded = torch.cat((torch.zeros(2, left_pad, dtype=torch.long), ids), 1)
        pad = torch.full((2,), left_pad)
        hidden, cache, _ = mine.encode(padded, pad)
        mine_lm = mine.logits(hidden)[:, left_pad:]
        soft = torch.zeros(2, 1, config.canvas_length, config.hidden_size)
        first, _ = mine.decode(canvas, soft, cache, [left_pad + length], pad)
        soft = mine.soft_embedding(first, torch.tensor(0.6))
        second, _ = mine.decode(canvas, soft, cache, [left_pad + length], pad)

        out = reference(input_ids=ids, decoder_input_ids=canvas[:, 0])
        raw = reference.lm_head(out.encoder_last_hidden_state)
        cap = config.final_logit_softcapping
        pairs = [(mine_lm, torch.tanh(raw / cap) * cap), (first[:, 0], out.logits)]
        again = reference(input_ids=ids, decoder_input_ids=canvas[:, 0], self_conditioning_logits=first[:, 0] / 0.6)
        pairs.append((second[:, 0], again.logits))
        gaps = [(a - b).abs().max().item() for a, b in pairs]
        print(f"context {length:4d}: encoder {gaps[0]:.2e}  decoder {gaps[1]:.2e}  self-conditioned {gaps[2]:.2e}")
        worst = max(worst, *gaps)
    if worst > tolerance:
        raise AssertionError(f"largest difference {worst} > {tolerance}")
    return worst


if __name__ == "__main__":
    check_parity()
