"""How good a drafter is on held-out texts: recall, how far a draft holds, and whether its confidence means something.

`recall` is over all known positions; `prefix` the mean number of tokens before the first wrong one, and `mean_run` that
of all first drafts; `whole` the share of drafts that are right to the end. With evidence, `recall_unsettled` looks only
at positions where the target's own pass does not yet say the token that it ends with. Calibration is of what a reader
uses: the probability that a token and all before it are right (a running product), in ten bins against how often they
are; `ece` weighs the gaps.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch

from .blocks import Batch, Block, Blocks
from .network import BlockDrafter
from .train import predict

_BATCH = 32
_BINS = 10


class _Tally:
    """Counts over drafts of one group."""

    def __init__(self) -> None:
        self.drafts = self.tokens = self.right = self.prefix = self.whole = self.unsettled = self.recovered = 0

    def add(self, right: torch.Tensor, unsettled: torch.Tensor) -> None:
        """One draft: whether each known position is right, and whether the target had not settled it."""
        self.drafts += 1
        self.tokens += len(right)
        self.right += int(right.sum())
        self.prefix += int(right.long().cumprod(0).sum())
        self.whole += bool(right.all())
        self.unsettled += int(unsettled.sum())
        self.recovered += int((right & unsettled).sum())

    def to_json(self) -> dict[str, Any]:
        found = {
            "drafts": self.drafts, "recall": round(self.right / self.tokens, 4),
            "prefix": round(self.prefix / self.drafts, 2), "tokens": round(self.tokens / self.drafts, 2),
            "whole": round(self.whole / self.drafts, 4),
        }  # fmt: skip
        if self.unsettled:
            found["recall_unsettled"] = round(self.recovered / self.unsettled, 4)
        return found


@torch.no_grad()
def report(drafter: BlockDrafter, blocks: Blocks, tasks: list[str]) -> dict[str, Any]:
    """The figures: per task the first draft of a request, drafts with evidence over all tasks, and calibration.

    Args:
        drafter: The drafter.
        blocks: Where the held-out texts are.
        tasks: Of each text, its group.
    """
    first: dict[str, _Tally] = defaultdict(_Tally)
    after_a_pass = _Tally()
    promised, kept = torch.zeros(_BINS), torch.zeros(_BINS)
    counts = torch.zeros(_BINS)
    groups = [[blocks.at_prompt(text) for text in blocks.held_out]]
    groups.append([block for text in blocks.held_out for block in blocks.all_with_evidence(text)])
    for group in groups:
        for start in range(0, len(group), _BATCH):
            chosen = group[start : start + _BATCH]
            batch = blocks.batch(chosen, blocks.block_len)
            best, token = predict(drafter, blocks, batch).softmax(-1).max(-1)
            right, known = token == batch.target, batch.target >= 0
            unsettled = _unsettled(blocks, batch, chosen)
            for row, block in enumerate(chosen):
                tally = first[tasks[block.text]] if block.canvas < 0 else after_a_pass
                tally.add(right[row][known[row]], unsettled[row][known[row]])
            if chosen[0].canvas < 0:
                confidence, all_right = best.cumprod(-1)[known], right.long().cumprod(-1)[known].float()
                bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
                for total, values in ((counts, torch.ones_like(confidence)), (promised, confidence), (kept, all_right)):
                    total.index_add_(0, bins, values)
    used = counts.clamp(min=1)
    runs = sum(tally.prefix for tally in first.values()) / sum(tally.drafts for tally in first.values())
    return {
        "mean_run": round(max(runs, 0.01), 2),  # of 0 a reader could make nothing
        "first_draft": {task: tally.to_json() for task, tally in sorted(first.items())},
        "after_a_denoise_pass": after_a_pass.to_json(),
        "calibration": {
            "ece": round(float(((promised - kept).abs() / counts.sum()).sum()), 4),
            "bins": [
                {"share": round(float(c / counts.sum()), 4), "promised": round(float(p), 3), "kept": round(float(k), 3)}
                for c, p, k in zip(counts, promised / used, kept / used, strict=True)
            ],
        },
    }  # fmt: skip


def _unsettled(blocks: Blocks, batch: Batch, chosen: list[Block]) -> torch.Tensor:
    """Known positions that the target's pass gets wrong; none without evidence."""
    if chosen[0].canvas < 0:
        return torch.zeros_like(batch.target, dtype=torch.bool)
    return blocks.target.logits(batch.evidence).argmax(-1) != batch.target
