"""Run by `make versions`: the export extra with the oldest and the newest versions that its ranges allow.

    python versions_check.py requirements oldest|newest     what to install beside the wheel, for `pip install -r`
    python versions_check.py run                            export mini in that environment, and use what comes out
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]
MODELS = CLONE / "dgrt" / "models"
PROMPTS = {
    "json\nname=Ana Silva; age=34; active=yes": '{"name":"Ana Silva","age":34,"active":true}',
    "json\ncity=Lisbon; country=Portugal": '{"city":"Lisbon","country":"Portugal"}',
    "sudoku 4x4\n1.3.\n..1.\n.1..\n4..1": "1234\n3412\n2143\n4321",
}


def requirements(end: str) -> list[str]:
    """The ranges of the extra; for the oldest, the lower bound of each as the one version."""
    project = tomllib.loads((CLONE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ranges = project["optional-dependencies"]["export"]
    return [re.sub(r">=([\d.]+).*", r"==\1", line) for line in ranges] if end == "oldest" else ranges


def check_exports(folder: Path) -> None:
    """Both profiles export, so they are within the parity gate, and answer as the shipped engine does."""
    from dgrt_export import export

    import dgrt
    from dgrt.cli.checks import _EXPORT_PACKAGES, all_checks

    outside = [c for _, group in all_checks() for c in group if c.name in _EXPORT_PACKAGES and not c.ok]
    assert not outside, outside
    shipped = MODELS / "mini-engine"
    for profile in ("fused", "portable"):
        report = export(MODELS / "mini", folder / profile, profile=profile, drafter=MODELS / "mini-drafter")
        for name, found in report.manifest["tools"].items():
            assert found == version(name).split("+")[0], name
        with dgrt.Runtime(folder / profile, threads=1) as runtime:
            for prompt, expected in PROMPTS.items():
                assert runtime.generate(prompt, seed=1).text == expected, (profile, prompt)
    with dgrt.Runtime(folder / "fused", threads=1) as made, dgrt.Runtime(shipped, threads=1) as expected:
        for prompt in PROMPTS:
            for options in ({}, {"guarantee": "causal", "drafter": "model"}):
                tokens = [rt.generate(prompt, seed=2, **options).tokens.tolist() for rt in (made, expected)]
                assert tokens[0] == tokens[1], (prompt, options)
    graphs = [path.read_bytes() == (shipped / path.name).read_bytes() for path in (folder / "fused").glob("*.onnx")]
    print(f"{sum(graphs)} of {len(graphs)} graphs have the bytes of the shipped engine's")


def check_distillation(folder: Path) -> None:
    """A drafter can be trained and exported; how good it is does not matter here."""
    from dgrt_export import export
    from dgrt_train.distill.run import Settings, distill

    data = folder / "prompts.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"json\nn={number}"}) + "\n" for number in range(20)))
    settings = Settings(layers=1, steps=3, batch_size=4, max_new_tokens=16)
    distill(folder / "fused", data, folder / "drafter", settings, threads=1)
    export(MODELS / "mini", folder / "drafted", drafter=folder / "drafter")


def main(what: str, *end: str) -> None:
    if what == "requirements":
        print("\n".join(requirements(*end)))
        return
    with tempfile.TemporaryDirectory() as folder:
        check_exports(Path(folder))
        check_distillation(Path(folder))
    names = ("torch", "onnx", "transformers", "safetensors", "numpy", "onnxruntime", "tokenizers")
    print("works with", ", ".join(f"{name} {version(name)}" for name in names))


if __name__ == "__main__":
    main(*sys.argv[1:])
