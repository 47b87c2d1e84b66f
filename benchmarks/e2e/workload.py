"""What both sides of an end-to-end comparison run: a checkpoint and token-id prompts, from a scenario file."""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def checkpoint(scenario: dict, cache_dir: Path) -> Path:
    """Returns the scenario's checkpoint folder; a synthetic one is made (seeded) on first use.

    It is named after what it is made from and appears complete or not at all.
    """
    if "checkpoint" in scenario:
        return ROOT / scenario["checkpoint"]
    from dgrt.reference import calm
    from e2e import synthetic

    recipe = [Path(module.__file__).read_text() for module in (synthetic, calm)]
    key = hashlib.sha256(json.dumps([scenario["synthetic"], recipe], sort_keys=True).encode()).hexdigest()[:12]
    folder = cache_dir / f"{scenario['name']}-{key}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache_dir) as beside:
            synthetic.write_calm_checkpoint(scenario["synthetic"], Path(beside) / "checkpoint")
            (Path(beside) / "checkpoint").rename(folder)
    return folder


def prompts(scenario: dict) -> list[list[int]]:
    """Returns the prompts as token ids; equal on both sides because they are made once, here."""
    spec = scenario["prompts"]
    if "tasks" not in spec:
        rng = random.Random(spec["seed"])
        vocab_size = scenario["synthetic"]["vocab_size"]
        return [[rng.randrange(vocab_size) for _ in range(spec["random_tokens"])] for _ in range(spec["count"])]
    from accuracy import TASKS
    from dgrt_train.tokens import encode_prompt

    return [
        [int(i) for i in encode_prompt(TASKS[task][0](spec["seed"], index).prompt)]
        for task in spec["tasks"]
        for index in range(spec["cases_per_task"])
    ]


def load(path: Path) -> dict:
    """Reads a workload file written by run.py."""
    return json.loads(path.read_text())


def peak_rss_bytes() -> int:
    """High-water mark of this process's resident memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("VmHWM not found in /proc/self/status")
