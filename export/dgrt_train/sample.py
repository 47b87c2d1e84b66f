"""Reference refinement loop on the trainer's model, batched over cases; for accuracy probes.

python -m dgrt_train.sample --checkpoint DIR/checkpoint.pt --count 60 [--tasks 9x9 json]
One canvas at a time: start from noise, denoise with an entropy-bounded sampler and
self-conditioning, keep the argmax canvas, append it to the context and go on.
"""
import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

from .config import ModelConfig
from .model import DiffusionGemmaMini
from .tasks import edit, json_record, sudoku
from .tasks.case import PROBE_SEED
from .tokens import EOS, PAD, TOOL_RESPONSE, TURN_END, decode_answer, encode_prompt

STEPS, T_MIN, T_MAX, ENTROPY_BOUND, CONFIDENCE, MAX_CANVASES = 48, 0.4, 0.8, 0.1, 0.005, 3
STOP_IDS = torch.tensor([EOS, TURN_END, TOOL_RESPONSE])

PROBES = {
    **{s: (lambda i, s=s: sudoku.generate(PROBE_SEED, i, s), sudoku.check) for s in sudoku.LEVELS},
    "json": (lambda i: json_record.generate(PROBE_SEED, i), json_record.check),
    **{f"edit-{s}": (lambda i, s=s: edit.generate(PROBE_SEED, i, s), edit.check) for s in edit.SIZES},
}


def load_average(path: Path, dtype: torch.dtype = torch.float32) -> tuple[DiffusionGemmaMini, int]:
    """Builds a model with the averaged weights of a checkpoint; returns it and its step."""
    saved = torch.load(path)
    model = DiffusionGemmaMini(ModelConfig(), dtype=dtype)
    with torch.no_grad():
        for p, average in zip(model.parameters(), saved["average"], strict=True):
            p.copy_(average)
    return model.eval(), saved["step"]


def accept(entropy: Tensor, bound: float) -> Tensor:
    """Marks positions, in ascending (entropy, position) order, while cumulative minus own entropy <= bound (nats)."""
    ordered, order = entropy.sort(dim=-1, stable=True)
    keep = ordered.cumsum(-1) - ordered <= bound
    return torch.zeros_like(keep).scatter(-1, order, keep)


@torch.no_grad()
def refine(model: DiffusionGemmaMini, context: Tensor, pad: Tensor, generator: torch.Generator):
    """Denoises one canvas per row; returns the argmax canvases and the steps that each row took."""
    c, rows = model.config, context.shape[0]
    _, cache, _ = model.encode(context, pad)
    noise = lambda n: torch.randint(c.vocab_size, (n, c.canvas_length), generator=generator)  # noqa: E731
    canvas, result = noise(rows), torch.full((rows, c.canvas_length), -1)
    soft = torch.zeros(rows, c.canvas_length, c.hidden_size)
    steps, active = torch.zeros(rows, dtype=torch.long), torch.arange(rows)
    for remaining in range(STEPS, 0, -1):
        temperature = T_MIN + (T_MAX - T_MIN) * remaining / STEPS
        logits, _ = model.decode(canvas[:, None], soft[:, None], cache, [context.shape[1]], pad[active])
        logits = logits[:, 0] / temperature
        log_probs = logits.log_softmax(-1)
        probs = log_probs.exp()
        entropy = -(probs * log_probs).sum(-1)
        drawn = torch.multinomial(probs.flatten(0, 1), 1, generator=generator).view(canvas.shape)
        canvas = torch.where(accept(entropy, ENTROPY_BOUND), drawn, noise(len(active)))
        best = logits.argmax(-1)
        stop = (best == result[active]).all(-1) & (entropy.mean(-1) < CONFIDENCE)
        result[active], steps[active] = best, steps[active] + 1
        if stop.all():
            break
        soft = model.soft_embedding(logits, torch.tensor(1.0))[~stop]
        canvas, active = canvas[~stop], active[~stop]
        cache = [(k[~stop], v[~stop]) for k, v in cache]
    return result, steps


@torch.no_grad()
def answer(model: DiffusionGemmaMini, prompts: list[str], seed: int = 0) -> tuple[list[str], float]:
    """Generates answers for a batch of prompts; returns the texts and the mean steps per canvas."""
    generator = torch.Generator().manual_seed(seed)
    ids = [encode_prompt(p) for p in prompts]
    longest = max(map(len, ids))
    pad = torch.tensor([longest - len(i) for i in ids])
    context = torch.tensor([[PAD] * (longest - len(i)) + i for i in ids])
    outputs: list[list[int]] = [[] for _ in prompts]
    live, total, canvases = torch.arange(len(prompts)), 0, 0
    for _ in range(MAX_CANVASES):
        result, steps = refine(model, context, pad, generator)
        total, canvases = total + int(steps.sum()), canvases + len(live)
        for row, canvas in zip(live.tolist(), result.tolist()):
            outputs[row] += canvas
        going = ~torch.isin(result, STOP_IDS).any(-1)
        if not going.any():
            break
        context, pad, live = torch.cat((context, result), 1)[going], pad[going], live[going]
    return [decode_answer(o) for o in outputs], total / canvases


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--checkpoint", type=Path, required=True)
    p.add_argument("--count", type=int, default=60)
    p.add_argument("--tasks", nargs="*", default=list(PROBES), choices=list(PROBES))
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--log", type=Path, help="append one JSON line per task here")
    p.add_argument("--show", type=int, default=0, help="print this many wrong answers per task")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    model, step = load_average(args.checkpoint)
    for task in args.tasks:
        make, check = PROBES[task]
        cases, start = [make(i) for i in range(args.count)], time.time()
        texts, steps = answer(model, [c.prompt for c in cases])
        right = [check(c, t) for c, t in zip(cases, texts)]
        line = json.dumps({"step": step, "task": task, "exact": round(sum(right) / len(right), 4), "cases": len(right),
                           "steps_per_canvas": round(steps, 1), "seconds": round(time.time() - start, 1)})
        print(line, flush=True)
        if args.log:
            with args.log.open("a") as f:
                f.write(line + "\n")
        wrong = [(c, t) for c, t, ok in zip(cases, texts, right) if not ok]
        for case, text in wrong[: args.show]:
            print(f"--- prompt\n{case.prompt}\n--- expected\n{case.answer}\n--- got\n{text}")


if __name__ == "__main__":
    main()
