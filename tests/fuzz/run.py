"""Fuzzes every reader of files from outside: `python tests/fuzz/run.py BUILD [--runs N] [--only READER]`.

BUILD is the folder of the fuzz programs. A fixed number of inputs from a fixed seed, so that a run ends and can be
repeated; what a run finds is kept in BUILD/corpus and is where the next one starts from.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NATIVE = ("manifest", "tokenizer", "chat_template", "snapshot")
PYTHON = ("safetensors", "model_config", "manifest", "tokenizer", "chat_template")


def main() -> int:
    """Runs the readers one after the other and returns the number of those with a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path)
    parser.add_argument("--runs", type=int, default=10_000, help="inputs per reader")
    parser.add_argument("--only", help="one reader, such as native-manifest")
    args = parser.parse_args()
    build = args.build.resolve()
    subprocess.run([sys.executable, HERE / "seeds.py", build / "seeds"], check=True)
    commands = {f"native-{name}": [build / "tests" / "fuzz" / f"fuzz_{name}"] for name in NATIVE}
    commands |= {f"python-{name}": [sys.executable, HERE / "python_readers.py", name] for name in PYTHON}
    chosen = [name for name in commands if args.only in (None, name)]
    failed = [name for name in chosen if not _run(name, commands[name], build, args.runs)]
    print(f"{len(chosen) - len(failed)} passed, {len(failed)} failed")
    return len(failed)


def _run(name: str, command: list[object], build: Path, runs: int) -> bool:
    corpus, seeds, log = build / "corpus" / name, build / "seeds" / name.split("-")[1], build / f"{name}.log"
    corpus.mkdir(parents=True, exist_ok=True)
    limits = [f"-runs={runs}", "-seed=1", "-max_len=65536", "-timeout=20", "-rss_limit_mb=4096"]
    with log.open("wb") as out:
        done = subprocess.run(
            [*map(str, command), *limits, f"-artifact_prefix={build}/{name}-", str(corpus), str(seeds)],
            stdout=out, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if done.returncode == 0:
        print(f"fuzz {name}: {runs} inputs, nothing found", flush=True)
        return True
    lines = log.read_text(errors="replace").splitlines()
    print(f"fuzz {name}: FOUND, exit status {done.returncode}; {log}:", *lines[-30:], sep="\n  ", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
