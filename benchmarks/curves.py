"""How the kernels grow with canvas, context, experts, canvases per pass and threads.

    python benchmarks/curves.py --out benchmarks/results/curves.json

Runs `dgrt_micro N curves` (build it first, see `micro/layers.cc`) with one thread and with two: kernels of the mid
scenario in bf16, median milliseconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from environment import environment

BINARY = Path(__file__).resolve().parent.parent / "build" / "cpu-release" / "benchmarks" / "micro" / "dgrt_micro"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", type=Path, default=BINARY)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    args = parser.parse_args()
    rows = []
    for threads in args.threads:
        done = subprocess.run([args.binary, str(threads), "curves"], capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            print(line, flush=True)
            rows.append(json.loads(line))
    if args.out:
        args.out.write_text(json.dumps({"rows": rows, **environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
