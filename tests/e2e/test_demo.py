"""`dgrt demo` and the engine that it runs: the shipped one is what an export of today makes."""

from __future__ import annotations

import filecmp
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dgrt
from dgrt.cli import demo

SOLUTION = "739285641\n621974835\n845361927\n972436518\n354817269\n168592374\n413658792\n597123486\n286749153"
# Facts of the manifest that do not depend on the versions of the tools or on the machine that exported.
FACTS = (
    "contract_version", "source", "profile", "operators", "precision", "experts", "model", "generation", "graphs",
    "drafter", "embedding", "weight_files",
)  # fmt: skip


@pytest.fixture(scope="module")
def fresh(mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make mini-engine` exports."""
    from dgrt_export import export

    folder = tmp_path_factory.mktemp("fresh") / "engine"
    export(mini_checkpoint, folder, drafter=mini_checkpoint.with_name("mini-drafter"))
    return folder


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def test_the_shipped_engine_is_a_fresh_export(fresh: Path) -> None:
    """If this fails: `make mini-engine`."""
    shipped, made = manifest(demo.ENGINE), manifest(fresh)
    assert {name: shipped.get(name) for name in FACTS} == {name: made.get(name) for name in FACTS}
    assert shipped["files"].keys() == made["files"].keys()
    same_tools = shipped["tools"] == made["tools"]  # others may trace graphs of other bytes
    for name in made["files"]:
        if same_tools or not name.endswith(".onnx"):
            assert filecmp.cmp(demo.ENGINE / name, fresh / name, shallow=False), name


def test_the_shipped_engine_answers_like_a_fresh_export(fresh: Path) -> None:
    answers = []
    for folder in (demo.ENGINE, fresh):
        with dgrt.Runtime(folder, threads=1, verify_weights=True) as runtime:
            options: list[dict[str, Any]] = [{}, {"guarantee": "causal", "drafter": "model"}]
            answers.append([runtime.generate(demo.PUZZLE, seed=3, **one).tokens.tolist() for one in options])
    assert answers[0] == answers[1]


def test_the_shipped_weights_are_the_checkpoints_in_files_of_their_own(mini_checkpoint: Path) -> None:
    """So git stores their bytes once, and nothing that writes one file changes the other."""
    for folder, name in (("mini", "model.safetensors"), ("mini-drafter", "drafter.safetensors")):
        original, shipped = mini_checkpoint.with_name(folder) / name, demo.ENGINE / name
        assert filecmp.cmp(original, shipped, shallow=False) and not original.samefile(shipped)


def test_the_demo_solves_its_puzzle_and_says_what_happened(run: Any) -> None:
    code, out, err = run("demo", "--threads", "1")
    assert (code, err) == (0, "")
    assert out.startswith(f"{demo.PUZZLE}\n\n{SOLUTION}\n\nsolved: 90 tokens in ")
    assert " denoise steps, 1 canvas: " in out and " tokens per second, 1 thread\n" in out
    assert out.endswith("\nnext:\n" + "".join(f"  {command}\n" for command in demo.next_commands(None)))


def test_the_demo_as_json(run: Any) -> None:
    code, out, _ = run("demo", "--json")
    report = json.loads(out)
    assert code == 0 and report["text"] == SOLUTION and report["solved"] and report["finish_reason"] == "stop"
    assert Path(report["engine"]) == demo.ENGINE and report["stats"]["canvases"] == 1


def test_the_path_of_the_shipped_engine_is_printed_alone(run: Any) -> None:
    assert run("demo", "--path") == (0, f"{demo.ENGINE}\n", "")


def test_another_engine_says_that_it_did_not_solve_the_puzzle(run: Any, plain_engine: Path) -> None:
    code, out, _ = run("demo", plain_engine)
    assert code == 0 and "\nnot solved (mini solves nine in ten): " in out and f"dgrt inspect {plain_engine}\n" in out


@pytest.mark.parametrize(
    "text",
    [
        "", SOLUTION[:-1], SOLUTION + "\n1", SOLUTION.replace("9", "8"), SOLUTION.replace("7", "x"),
        "\n".join(reversed(SOLUTION.split("\n"))),  # a solution of another puzzle
    ],
)  # fmt: skip
def test_what_is_no_solution_is_not_called_one(text: str) -> None:
    assert demo.is_solved(SOLUTION) and not demo.is_solved(text)


@pytest.mark.parametrize(
    ("index", "expected"),
    [(0, '{"name":"Ana Silva","age":34,"active":true}\n'), (1, "mini"), (2, "tokens per second")],
)
def test_the_next_commands_work(repository: Path, index: int, expected: str) -> None:
    script = f'dgrt() {{ "{sys.executable}" -m dgrt "$@"; }}\n{demo.next_commands(None)[index]}'
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(["sh", "-ec", script], env=environment, capture_output=True, text=True, check=True)
    assert expected in done.stdout
