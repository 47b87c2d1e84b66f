"""The machine and the versions behind a benchmark figure, recorded in every results file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path


def environment() -> dict:
    """Returns machine, versions, commit and command line as plain JSON data."""
    return {
        "environment": {
            "date": time.strftime("%Y-%m-%d"),
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "isa": _isa(),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in ("dgrt", "onnxruntime", "torch", "transformers", "numpy")},
            "commit": _git("rev-parse", "--short", "HEAD"),
            "dirty": bool(_git("status", "--porcelain")),
            "command": " ".join(["python", *sys.argv]),
        }
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _isa() -> list[str]:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8") if f in flags]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*args: str) -> str:
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=False)
    return done.stdout.strip()
