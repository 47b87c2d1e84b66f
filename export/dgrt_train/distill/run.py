"""A distillation from beginning to end: check, collect, train, report, publish. Resumes by itself.

Everything that takes long lies in the work folder, `OUTPUT.work`: shards of trajectories, the checkpoint, and the
settings, which must be the same when a run goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from dgrt_export.package import check_output

import dgrt
from dgrt.prompts_file import read_prompts

from .blocks import Blocks
from .collect import Trajectories, collect
from .errors import DistillError
from .network import BlockDrafter, DrafterShape
from .publish import DRAFTER, load_weights, publish
from .report import report
from .target import Target
from .train import TrainSettings, train

STAGES = ("collect", "train", "report")
ProgressCallback = Callable[[str, int, int, str], None]
_MOST_LAYERS = 5
_FEWEST_PROMPTS = 20  # one of them is held out


@dataclass(frozen=True)
class Settings:
    """What a distillation may vary. None: from the target.

    Attributes:
        layers: Layers of the drafter; they look into the last full layers of the target, one each. None: one per full
            layer, at most 5.
        intermediate_size: Width of its MLPs. None: twice the hidden size.
        num_heads: Query heads. None: the target's.
        block_len: Most tokens of a draft. None: the canvas.
        max_new_tokens: Most tokens that the target writes to a prompt. None: four canvases.
        steps: Training steps.
        batch_size: Blocks per step.
        seed: Of the target's answers and of the training.
        start: Folder of a drafter of the same shape, whose weights are trained further; the target's may have changed
            since. None: begin with random ones.
    """

    layers: int | None = None
    intermediate_size: int | None = None
    num_heads: int | None = None
    block_len: int | None = None
    max_new_tokens: int | None = None
    steps: int = 6000
    batch_size: int = 32
    seed: int = 0
    start: str | None = None


def distill(
    engine: str | Path, data: str | Path, output: str | Path, settings: Settings | None = None, *,
    threads: int | None = None, progress: ProgressCallback | None = None, stopping: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Trains a block drafter for an engine and writes its folder.

    Args:
        engine: Package of the target, as `dgrt export` writes it; fp32 or bf16.
        data: File of JSON lines, see `dgrt/prompts_file.py`.
        output: Folder of the drafter; new, empty, or an older drafter that is replaced.
        settings: See `Settings`.
        threads: CPU threads. None: all the process may use.
        progress: Called with (stage, done, total, note).
        stopping: Asked now and then; true stops the run as Ctrl-C does.

    Returns:
        Settings and held-out figures, as the model card shows them.

    Raises:
        DistillError: a setting or a target that will not do, or a work folder of another run.
        InvalidArgument: prompts that will not do.
        KeyboardInterrupt: it was to stop; the next call with the same arguments goes on from there.

    Example:
        >>> distill("engines/mini", "prompts.jsonl", "mini-drafter")["held_out"]["calibration"]["ece"]  # doctest: +SKIP
        0.02
    """
    tell = progress or (lambda stage, done, total, note: None)
    stop = stopping or (lambda: False)
    settings = settings or Settings()
    output = check_output(output, [Path(engine).resolve()], force=True, kind=DRAFTER)
    prompts = read_prompts(Path(data))
    if len(prompts) < _FEWEST_PROMPTS:
        raise DistillError(f"{data}: expected at least {_FEWEST_PROMPTS} prompts, found {len(prompts)}")
    with dgrt.Runtime(engine, threads=threads, prefix_cache=0) as runtime:
        if threads is not None:
            torch.set_num_threads(threads)
        target = Target(Path(engine))
        shape, most_tokens = _shape(settings, target), _given(settings.max_new_tokens, 4 * target.config.canvas_len)
        torch.manual_seed(settings.seed)
        drafter = BlockDrafter(shape)
        if settings.start is not None:
            load_weights(drafter, target, Path(settings.start))
        work = _work_folder(output, {
            **asdict(settings), **asdict(shape), "kv_layers": list(shape.kv_layers), "max_new_tokens": most_tokens,
            "num_prompts": len(prompts), "target": target.fingerprint,
        })  # fmt: skip

        def collected(done: int) -> None:
            tell("collect", done, len(prompts), "")
            if stop():
                raise KeyboardInterrupt

        collect(runtime, target, prompts, work, settings.seed, most_tokens, collected)
    texts = Trajectories(work, len(prompts))
    blocks = Blocks(texts, target, shape.kv_layers, shape.block_len)
    is_continued = settings.start is not None
    schedule = TrainSettings(settings.steps, settings.batch_size, seed=settings.seed, is_continued=is_continued)

    def trained(done: int, note: str) -> None:
        tell("train", done, settings.steps, note)

    train(drafter, blocks, schedule, work / "checkpoint.pt", trained, stop)
    tell("report", 0, 1, "")
    facts = {
        "settings": json.loads((work / "settings.json").read_text()),
        "held_out": report(drafter, blocks, [prompt.task for prompt in prompts]),
    }
    publish(drafter, target, facts, output)
    tell("report", 1, 1, "")
    return facts


def _shape(settings: Settings, target: Target) -> DrafterShape:
    """The drafter's shape; refuses what the target does not have."""
    config, full = target.config, target.full_layers
    layers = _given(settings.layers, min(len(full), _MOST_LAYERS))
    block_len = _given(settings.block_len, config.canvas_len)
    intermediate_size = _given(settings.intermediate_size, 2 * config.hidden_size)
    if not 1 <= layers <= len(full):
        raise DistillError(f"layers: expected 1 to {len(full)}, one per full layer of the target, found {layers}")
    if not 1 <= block_len <= config.canvas_len:
        raise DistillError(f"block_len: expected 1 to {config.canvas_len}, the canvas, found {block_len}")
    kv_heads, heads = config.layers[full[0]].num_kv_heads, _given(settings.num_heads, config.num_heads)
    if heads < 1 or heads % kv_heads:
        raise DistillError(f"num_heads: expected a multiple of the target's {kv_heads} KV heads, found {heads}")
    counts = {"intermediate_size": intermediate_size, "steps": settings.steps, "batch_size": settings.batch_size}
    for name, count in counts.items():
        if count < 1:
            raise DistillError(f"{name}: expected at least 1, found {count}")
    return DrafterShape(
        kv_layers=full[-layers:], intermediate_size=intermediate_size, num_heads=heads, block_len=block_len,
        hidden_size=config.hidden_size, num_kv_heads=kv_heads,
        rope=config.ropes["full"], rms_norm_eps=config.rms_norm_eps,
    )  # fmt: skip


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _work_folder(output: Path, settings: dict[str, Any]) -> Path:
    """The work folder of this run, with its settings; refuses that of another."""
    folder = output.with_name(output.name + ".work")
    path = folder / "settings.json"
    wanted = json.loads(json.dumps(settings))
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if other := [key for key in wanted if found.get(key) != wanted[key]]:
            raise DistillError(
                f"{folder}: expected a run with {other[0]} {wanted[other[0]]!r}, found {found.get(other[0])!r}; "
                "remove the folder to begin anew"
            )
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return folder
