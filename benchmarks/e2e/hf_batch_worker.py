"""Hugging Face `generate` on several prompts, one after the other and as one batch, in a process of its own.

    python hf_batch_worker.py WORKLOAD.json   ->   one JSON line: seconds and emitted tokens of both

A batch is padded on the left and masked. It goes on until its slowest canvas is done, for as many canvases as its
longest answer needs; tokens count up to the first stop id of each prompt.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from e2e import workload
from e2e.hf_worker import load_model


def main() -> None:
    work = workload.load(Path(sys.argv[1]))
    model = load_model(work)
    stop_ids, pad = set(work["stop_ids"]), model.config.pad_token_id or 0

    def run(prompts: list[list[int]]) -> tuple[float, int]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=mask, max_new_tokens=work["max_new_tokens"]).sequences
        seconds = time.perf_counter() - start
        tokens = 0
        for answer in out[:, longest:].tolist():
            end = next((i + 1 for i, token in enumerate(answer) if token in stop_ids), len(answer))
            tokens += min(end, work["max_new_tokens"])
        return seconds, tokens

    rounds = []
    for number in range(1 + work["rounds"]):
        torch.manual_seed(number)
        alone = [run([prompt]) for prompt in work["prompts"]]
        batch = run(work["prompts"])
        rounds.append({
            "alone": {"seconds": sum(s for s, _ in alone), "tokens": sum(t for _, t in alone)},
            "batch": {"seconds": batch[0], "tokens": batch[1]},
        })
    print(json.dumps({"rounds": rounds[1:], "peak_rss_bytes": workload.peak_rss_bytes()}))


if __name__ == "__main__":
    main()
