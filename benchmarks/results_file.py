"""Results files whose rows are measured apart: each row carries its own environment, the others stay as they are."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path


def store(row: dict, path: Path, key: str, order: Sequence[str]) -> None:
    """Puts the row into the file, in place of one with the same `key`; whoever reads the file finds it whole."""
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    place = {name: number for number, name in enumerate(order)}  # names that no longer exist come last
    rows = [*(r for r in before if r[key] != row[key]), row]
    rows.sort(key=lambda r: place.get(r[key], len(place)))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    os.replace(beside, path)
