"""What `import dgrt` and the command line load, and that documented examples of pure modules run."""

from __future__ import annotations

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import dgrt

PACKAGE = Path(dgrt.__file__).parent
HEAVY = ["torch", "onnx", "transformers", "onnxruntime", "tokenizers", "jinja2", "rich"]
PURE_MODULES = [
    "dgrt.errors",
    "dgrt.native_thread",
    "dgrt.options",
    "dgrt.ort",
    "dgrt.cli",
    "dgrt.cli.arguments",
    "dgrt.cli.checks",
    "dgrt.cli.display",
    "dgrt.cli.show",
    "dgrt.reference.noise",
    "dgrt.reference.sampling",
    "dgrt.reference.commit",
    "dgrt.reference.refine",
]


def loaded_by(code: str) -> set[str]:
    """Returns the top-level modules that `code` loads in a fresh interpreter."""
    report = "import sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    return set(json.loads(out.stdout.splitlines()[-1]))


def test_import_dgrt_loads_no_heavy_package() -> None:
    assert loaded_by("import dgrt").isdisjoint(HEAVY)


def test_building_the_command_line_loads_no_heavy_package() -> None:
    assert loaded_by("from dgrt.cli import build_parser; build_parser()").isdisjoint(HEAVY)


def test_every_public_name_exists_and_has_a_docstring() -> None:
    for name in dgrt.__all__:
        value = getattr(dgrt, name)
        assert name == "__version__" or value.__doc__, name


@pytest.mark.parametrize("name", PURE_MODULES)
def test_docstring_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
