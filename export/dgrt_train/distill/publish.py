"""The drafter folder: config.json, drafter.safetensors and a model card. `export/README.md` has the format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from dgrt_export.config import read_json
from dgrt_export.drafter import MODEL_TYPE, VERSION, WEIGHT_FILE
from dgrt_export.package import FolderKind, staged
from safetensors.torch import load_file, save_file

from .errors import DistillError
from .network import BlockDrafter
from .target import Target

_CARD_FILE = "README.md"
DRAFTER = FolderKind("a drafter", "config.json", "model_type", MODEL_TYPE, lambda config: (WEIGHT_FILE, _CARD_FILE))


def config_json(drafter: BlockDrafter, target: Target, mean_run: float) -> dict[str, Any]:
    """The content of config.json; `mean_run` as the report says."""
    shape, config = drafter.shape, target.config
    return {
        "model_type": MODEL_TYPE, "version": VERSION, "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size, "num_heads": shape.num_heads,
        "kv_layers": list(shape.kv_layers), "rms_norm_eps": shape.rms_norm_eps, "block_len": shape.block_len,
        "mean_run": mean_run,
        "target": {
            "name": target.name, "fingerprint": target.fingerprint, "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size, "canvas_len": config.canvas_len,
        },
    }  # fmt: skip


def publish(drafter: BlockDrafter, target: Target, facts: dict[str, Any], output: Path) -> None:
    """Writes the folder; it appears whole or not at all.

    Args:
        drafter: Trained.
        target: What it was trained for.
        facts: Settings and held-out figures, for the card.
        output: A new or empty folder, or an older drafter that it replaces.
    """
    with staged(output, force=True, kind=DRAFTER) as folder:
        tensors = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in drafter.named_parameters()}
        save_file(tensors, folder / WEIGHT_FILE, metadata={"format": "pt"})
        config = config_json(drafter, target, facts["held_out"]["mean_run"])
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (folder / _CARD_FILE).write_text(_card(drafter, target, facts))


def load_weights(drafter: BlockDrafter, target: Target, folder: Path) -> None:
    """Puts the weights of a published drafter into `drafter`.

    Raises:
        DistillError: no drafter, or one of another shape. One for other weights of the target is as good a beginning.
    """
    if not (folder / "config.json").is_file() or not (folder / WEIGHT_FILE).is_file():
        raise DistillError(f"{folder}: expected a drafter (config.json, {WEIGHT_FILE}), found none")
    found, wanted = read_json(folder / "config.json"), config_json(drafter, target, 0)
    for key in [key for key in wanted if key not in ("mean_run", "target")]:
        if found.get(key) != wanted[key]:
            raise DistillError(f"{folder}: expected {key} {wanted[key]!r} to go on from, found {found.get(key)!r}")
    weights = load_file(folder / WEIGHT_FILE)
    own = drafter.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        shapes = [list(tensors[name].shape) if name in tensors else "none" for tensors in (own, weights)]
        if shapes[0] != shapes[1]:
            raise DistillError(f"{folder}: expected {name} {shapes[0]} to go on from, found {shapes[1]}")
    drafter.load_state_dict(weights)


def _card(drafter: BlockDrafter, target: Target, facts: dict[str, Any]) -> str:
    shape = drafter.shape
    size = sum(p.numel() for p in drafter.parameters())
    settings, found = facts["settings"], facts["held_out"]
    rows = [
        f"| {task} | {row['drafts']} | {100 * row['recall']:.1f} % | {row['prefix']:.1f} of {row['tokens']:.1f} | "
        f"{100 * row['whole']:.1f} % |"
        for task, row in found["first_draft"].items()
    ]
    after = found["after_a_denoise_pass"]
    bins = [
        f"| {b['share']:.3f} | {b['promised']:.2f} | {b['kept']:.2f} |"
        for b in found["calibration"]["bins"] if b["share"] > 0
    ]  # fmt: skip
    begun = "the weights of an earlier drafter" if settings.get("start") else "random weights"
    unsettled = f"{100 * after['recall_unsettled']:.1f} %" if "recall_unsettled" in after else "none there"
    return "\n".join([
        f"# A block drafter for {target.name}", "",
        f"{size:,} parameters ({2 * size / 2**20:.2f} MiB in bf16): {len(shape.kv_layers)} layers that look into the "
        f"K and V rows of the target's full layers {', '.join(map(str, shape.kv_layers))}, MLPs of width "
        f"{shape.intermediate_size}, {shape.num_heads} heads; up to {shape.block_len} tokens per draft. No token table "
        "and no head: they are the target's.", "",
        "```", "dgrt export TARGET_CHECKPOINT -o ENGINE --drafter THIS_FOLDER",
        'dgrt generate ENGINE "..." --guarantee causal --drafter model', "```", "",
        f"Made by `dgrt distill` from {settings['num_prompts']:,} prompts whose answers the target wrote itself; "
        f"{settings['steps']:,} steps of {settings['batch_size']} blocks, seed {settings['seed']}, from {begun}. It "
        f"fits the checkpoint with fingerprint `{target.fingerprint}` and no other.", "",
        "## Held-out texts (one in twenty)", "",
        "The first draft of a request, right behind its prompt:", "",
        "| task | drafts | tokens right | right before the first wrong one | right to the end |",
        "|---|---|---|---|---|",
        *rows, "",
        f"Behind a denoise pass of the target, {after['drafts']} canvases: {100 * after['recall']:.1f} % of tokens "
        f"right, of those that the pass itself had not settled: {unsettled}.", "",
        "What a draft's confidence (that a token and all before it are right) is worth; expected calibration error "
        f"{found['calibration']['ece']:.3f}:", "",
        "| share of tokens | promised | kept |", "|---|---|---|", *bins, "",
    ])  # fmt: skip
