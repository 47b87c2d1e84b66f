"""Text of the model card that `publish.py` writes beside the weights."""
import json
import statistics
from itertools import pairwise
from pathlib import Path

from .schedule import LAST_STEP, PHASES

CARD = """\
---
license: apache-2.0
library_name: transformers
tags: [diffusion-gemma, block-diffusion, byte-level, tiny]
---
# dgrt-mini

A small DiffusionGemma with 2.2M parameters, trained from scratch on CPU on three synthetic tasks.
It has every structural feature of the released model (sliding and full attention, K = V in full layers,
dense MLP and mixture of experts in parallel, self-conditioning, one layer scalar per side), so a runtime can
be tested and measured end to end on a laptop. It is not a general language model.

| | |
|---|---|
| hidden size, layers | 128; 8, sliding and full in turn |
| attention | 4 query heads; sliding: 2 KV heads of 32, window 128; full: 1 KV head of 64, no v_proj |
| feed-forward | dense MLP 256 in parallel with 8 experts of 32, 2 active |
| canvas, vocabulary | 96; 384 ids: byte b is id 128 + b, special tokens at Gemma's ids |
| sampling | the released defaults: 48 steps, entropy bound 0.1 nats, temperatures 0.8 to 0.4 |
| weights | bf16, moving average of training step {step} |

The vision tower is a tiny untrained stub that the model class needs; the model reads text only.

## Prompts

Each task is one user turn of the chat template.

- `sudoku 9x9` (or `4x4`, `6x6`), then the rows with dots for blanks; the answer is the solved rows.
- `json`, then a record such as `name=Ana Silva; age=34; active=yes`; the answer is compact JSON.
- `edit: rename x to y`, `edit: replace a with b`, `edit: change LINE to LINE`, `edit: after LINE insert LINE` or
  `edit: delete LINE`, then the text; the answer is the whole edited text, up to 256 bytes.

## Accuracy

Exact answers on held-out cases (another seed than training), through the native runtime, nothing post-processed.

<!-- table accuracy -->
<!-- end -->

The same cases with its weights in each precision of the profile `fused`:

<!-- table precision -->
<!-- end -->

## Training

`python -m dgrt_train.train --out RUN` trains from scratch on two CPU cores: 13,000 steps, {minutes:.0f} minutes on an
EPYC with AVX-512 bf16 (Zen 5). How and why is in `export/dgrt_train/README.md`. These weights are of two runs of it:
steps to 9,500 are those that were published before (178 minutes on an older machine), and the last cycle went on from
there (`--start`), with the new optimiser and the bf16 weights that a single run has at that step. Its mix was written
when the held-out rates were known: 4x4 96.8 %, 6x6 96.0 %, 9x9 86.2 %, JSON 99.8 %, edits 92.2 %; the cycle before knew
those of step 7,000. So the table above is of unseen cases, but not of an unseen measure.

Loss in nats per answer byte, averaged over the noise levels of the phase (`export/dgrt_train/schedule.py`), so that a
rise at a border between phases (steps 700, 1,300, 2,500, 7,000, 9,500) is a harder question and no worse answer.

{curve}
"""

_TASKS = ("9x9", "6x6", "4x4", "json", "edit-short", "edit-medium", "edit-long")
_ROWS = 12


def training_minutes(points: list[dict]) -> float:
    """Time that the steps take: of each phase their number and their median, so that pauses do not count."""
    total = 0.0
    borders = [phase.first for phase in PHASES] + [LAST_STEP]
    for first, end in pairwise(borders):
        seconds = [p["seconds_per_step"] for p in points if first < p["step"] <= end]
        if seconds:
            total += statistics.median(seconds) * (min(end, points[-1]["step"]) - first)
    return total / 60


def model_card(run: Path, step: int) -> str:
    """The card of the weights of `step`, with the loss curve found in `run`/curve.jsonl.

    The accuracy table is filled in by benchmarks/report.py from a results file.
    """
    path = run / "curve.jsonl"
    points = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if not points:
        raise FileNotFoundError(f"{path}: expected the curve of the run that made the weights")
    last = points[-1]["step"]  # evenly spaced, always with the last one
    wanted = [i * last / (_ROWS - 1) for i in range(_ROWS)]
    picked = sorted({min(range(len(points)), key=lambda i: abs(points[i]["step"] - at)) for at in wanted})
    head = f"| step | {' | '.join(_TASKS)} |"
    rows = [
        f"| {p['step']} | " + " | ".join(f"{p[key]:.3f}" if (key := f"denoise/{t}") in p else "" for t in _TASKS) + " |"
        for p in (points[i] for i in picked)
    ]
    table = "\n".join([head, "|---" * (len(_TASKS) + 1) + "|", *rows])
    return CARD.format(step=step, minutes=training_minutes(points), curve=table)
