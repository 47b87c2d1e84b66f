"""One side of the comparison: Hugging Face `generate` on the CPU, in a process of its own.

    python hf_worker.py WORKLOAD.json   ->   one JSON line: per-prompt times and steps, peak RSS

The clock holds token ids in, token ids out. Steps are decoder forward passes; encoder time is taken out of the time
per step by wrapping the encoder's forward.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from transformers import DiffusionGemmaForBlockDiffusion

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from e2e import workload


class PassClock:
    """Counts and times the calls of one bound method."""

    def __init__(self, owner: torch.nn.Module):
        self.calls, self.seconds, self._forward = 0, 0.0, owner.forward
        owner.forward = self._timed

    def _timed(self, *args, **kwargs):
        start = time.perf_counter()
        try:
            return self._forward(*args, **kwargs)
        finally:
            self.calls += 1
            self.seconds += time.perf_counter() - start

    def take(self) -> tuple[int, float]:
        calls, seconds = self.calls, self.seconds
        self.calls, self.seconds = 0, 0.0
        return calls, seconds


def load_model(work: dict) -> DiffusionGemmaForBlockDiffusion:
    """Returns the workload's model in its setting, and gives torch the workload's threads."""
    setting = work["hf_setting"]
    torch.set_num_threads(work["threads"])
    model = DiffusionGemmaForBlockDiffusion.from_pretrained(work["checkpoint"], dtype=getattr(torch, setting["dtype"]))
    model.eval()
    model.set_experts_implementation(setting["experts"])
    model.set_attn_implementation("sdpa")
    return model


def main() -> None:
    work = workload.load(Path(sys.argv[1]))
    model = load_model(work)
    encoder, decoder = PassClock(model.model.encoder), PassClock(model.model.decoder)
    options = {"max_new_tokens": work["max_new_tokens"]}
    if work["max_denoising_steps"]:
        options["max_denoising_steps"] = work["max_denoising_steps"]
    stop_ids = set(work["stop_ids"])
    rows = []
    for number, ids in enumerate(work["warmup"] + work["prompts"]):
        torch.manual_seed(number)
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(torch.tensor([ids]), **options).sequences[0, len(ids):].tolist()
        total = time.perf_counter() - start
        (_, encoder_seconds), (steps, decoder_seconds) = encoder.take(), decoder.take()
        end = next((i + 1 for i, t in enumerate(out) if t in stop_ids), len(out))
        tokens = min(end, work["max_new_tokens"])  # the output is whole canvases
        rows.append({
            "total_ms": 1e3 * total, "steps": steps, "canvases": len(out) // work["canvas_len"], "tokens": tokens,
            "ms_per_step": 1e3 * (total - encoder_seconds) / steps,
            "ms_per_pass": 1e3 * decoder_seconds / steps, "encoder_ms": 1e3 * encoder_seconds,
        })
    print(json.dumps({"rows": rows[len(work["warmup"]):], "peak_rss_bytes": workload.peak_rss_bytes()}))


if __name__ == "__main__":
    main()
