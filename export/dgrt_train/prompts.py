"""Prompts of mini's tasks as JSON lines, for `dgrt distill`: python -m dgrt_train.prompts --count 10000 > prompts.jsonl

Of the training seed, in a fixed order of tasks; puzzles come from a pool that is built once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .config import ModelConfig
from .data import Stream
from .pool import load_pool

# In each eight prompts; indices are far from those that mini was trained on.
TASKS = ("json", "4x4", "edit-short", "json", "6x6", "edit-medium", "4x4", "9x9")
FIRST_INDEX = 50_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, required=True, help="prompts")
    parser.add_argument("--pool", type=Path, required=True, help="puzzle pool of a training run, or where to build one")
    args = parser.parse_args()
    stream = Stream(load_pool(args.pool), ModelConfig().canvas_length)
    for index in range(args.count):
        task = TASKS[index % len(TASKS)]
        case = stream.case(task, FIRST_INDEX + index)
        print(json.dumps({"prompt": case.prompt, "task": task}))


if __name__ == "__main__":
    main()
