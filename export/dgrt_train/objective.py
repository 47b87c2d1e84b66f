"""The training loss of one batch: denoising cross-entropy plus the causal loss.

The encoder reads prompt and answer prefix once. Several noised canvases share its
K and V. Half of the cases are self-conditioned: a first pass without gradient
gives the soft embeddings that the second pass reads. Where the phase says so they
also get the canvas that the sampler makes of the first pass, mistakes and all
(step-unrolled denoising, arXiv 2112.06749): it is what every step after a first one
sees, and independent noise never holds a word that is confidently misplaced.
"""
import numpy as np
import torch
import torch.nn.functional as F

from .data import PUZZLE_TASKS, TASK_NAMES, Batch, Bucket, add_noise
from .model import DiffusionGemmaMini
from .sample import ENTROPY_BOUND, accept
from .schedule import Phase
from .tokens import PAD, VOCAB_SIZE

CAUSAL_WEIGHT, PROMPT_WEIGHT, PAD_WEIGHT, BALANCE_WEIGHT = 1.0, 0.1, 0.2, 0.01


def batch_loss(model: DiffusionGemmaMini, bucket: Bucket, batch: Batch, rng: np.random.Generator, phase: Phase):
    """Returns the loss, the mean denoising loss per case and the mean causal loss per case (both over answers)."""
    context, pad = torch.from_numpy(batch.context), torch.from_numpy(batch.pad)
    hidden, cache, balance = model.encode(context, pad)
    loss, causal = _causal_loss(model, bucket, batch, hidden)
    loss = loss * CAUSAL_WEIGHT
    denoising = None
    if bucket.canvas_blocks:
        canvas_loss, denoising, more = _denoising_loss(model, bucket, batch, cache, pad, rng, phase)
        loss, balance = loss + canvas_loss, balance + more
    return loss + BALANCE_WEIGHT * balance / model.config.num_hidden_layers, denoising, causal


def _causal_loss(model, bucket, batch, hidden):
    if bucket.canvas_blocks and bucket.blocks == 1:  # the context is the prompt alone, mostly random text
        return 0.0, None
    targets = torch.from_numpy(batch.context[:, 1:])
    column = torch.arange(1, batch.context.shape[1])
    weight = torch.where(column < bucket.prompt, PROMPT_WEIGHT, 1.0) * (targets != PAD)
    losses = F.cross_entropy(model.logits(hidden[:, :-1]).flatten(0, 1), targets.flatten(), reduction="none")
    losses = losses.view(targets.shape)
    answer = (weight == 1.0).float()
    per_case = (losses.detach() * answer).sum(1) / answer.sum(1).clamp(min=1)
    return (losses * weight).sum() / weight.sum(), per_case


def _denoising_loss(model, bucket, batch, cache, pad, rng, phase):
    length, count = model.config.canvas_length, len(bucket.canvas_blocks)
    rows = len(batch.pad)
    clean = np.stack([batch.targets[:, b * length : (b + 1) * length] for b in bucket.canvas_blocks], 1)
    puzzle = np.isin(batch.tasks, [TASK_NAMES.index(name) for name in PUZZLE_TASKS]).repeat(count)
    power = np.where(puzzle, phase.puzzle_noise.power, phase.text_noise.power)
    front_share = np.where(puzzle, phase.puzzle_noise.front_share, phase.text_noise.front_share)
    noised, t = add_noise(clean.reshape(-1, length), rng, power, front_share)
    canvas = torch.from_numpy(noised).view(rows, count, length)
    temperature = torch.from_numpy(0.4 + 0.4 * t).float().view(rows, count, 1, 1)
    starts = [bucket.prompt + b * length for b in bucket.canvas_blocks]
    soft = torch.zeros(rows, count, length, model.config.hidden_size)
    half = rows // 2  # rows are exchangeable, so a fixed half keeps shapes static
    with torch.no_grad():
        early = [(k[:half].detach(), v[:half].detach()) for k, v in cache]
        logits, _ = model.decode(canvas[:half], soft[:half], early, starts, pad[:half])
        soft[:half] = model.soft_embedding(logits, temperature[:half])
        if phase.unroll:
            canvas[:half] = _sampler_step(logits / temperature[:half], rng)
    logits, balance = model.decode(canvas, soft, cache, starts, pad)
    targets = torch.from_numpy(clean)
    losses = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none").view(targets.shape)
    weight = torch.where(targets == PAD, PAD_WEIGHT, 1.0)
    answer = (targets != PAD).float()
    per_case = (losses.detach() * answer).sum((1, 2)) / answer.sum((1, 2))
    return (losses * weight).sum() / weight.sum(), per_case, balance


def _sampler_step(logits, rng):
    """The canvases [rows, canvases, length] that the sampler makes of tempered logits: accepted draws, else noise."""
    log_probs = logits.log_softmax(-1)
    probs = log_probs.exp()
    entropy = -(probs * log_probs).sum(-1)
    uniform = torch.from_numpy(rng.random((*entropy.shape, 1))).float()
    drawn = (probs.cumsum(-1) <= uniform).sum(-1).clamp(max=VOCAB_SIZE - 1)
    noise = torch.from_numpy(rng.integers(0, VOCAB_SIZE, entropy.shape))
    return torch.where(accept(entropy, ENTROPY_BOUND), drawn, noise)
