"""The fused profile in the runtime: with fp32 weights the tokens of the portable engine, with bf16 its answers.

Single graphs are compared in tests/export, single kernels in tests/cpp; here whole generations are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dgrt_train.tasks import edit, json_record, sudoku
from graph_runner import GraphRunner

import dgrt

SEED = 515  # a stream that nothing was trained or measured on
CASES_PER_TASK = 8
TASKS: dict[str, tuple[Callable[[int], Any], Callable[[Any, str], bool]]] = {
    "6x6": (lambda index: sudoku.generate(SEED, index, "6x6"), sudoku.check),
    "json": (lambda index: json_record.generate(SEED, index), json_record.check),
    "edit": (lambda index: edit.generate(SEED, index), edit.check),
}


@pytest.mark.parametrize("task", TASKS)
def test_fp32_writes_the_tokens_of_the_portable_engine(engines: Any, task: str) -> None:
    portable = dgrt.Runtime(engines("mini", precision="fp32"), threads=2)
    fused = dgrt.Runtime(engines("mini", precision="fp32", profile="fused"), threads=2)
    assert "fused fp32" in fused.description
    for index in range(CASES_PER_TASK):
        case = TASKS[task][0](index)
        expected = portable.generate(case.prompt, seed=index)
        found = fused.generate(case.prompt, seed=index)
        assert np.array_equal(found.tokens, expected.tokens), case.prompt
        assert found.stats.steps_per_canvas == expected.stats.steps_per_canvas


@pytest.mark.parametrize(
    ("options", "most_wrong"), [({}, 1), ({"precision": "int8"}, 2), ({"precision": "int4"}, 2)],
    ids=["bf16", "int8", "int4"],
)  # fmt: skip
def test_rounded_weights_are_the_same_for_any_threads_and_right_about_as_often(
    engines: Any, options: dict[str, str], most_wrong: int
) -> None:
    path, precision = engines("mini", profile="fused", **options), options.get("precision", "bf16")
    one, two = (dgrt.Runtime(path, threads=n) for n in (1, 2))
    assert f"fused {precision}" in one.description and one.info.precision == precision
    generate, check = TASKS["json"]  # nearly always right in fp32
    right = 0
    for index in range(CASES_PER_TASK):
        case = generate(index)
        result = one.generate(case.prompt, seed=index)
        assert np.array_equal(two.generate(case.prompt, seed=index).tokens, result.tokens)
        right += check(case, result.text)
    assert right >= CASES_PER_TASK - most_wrong


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_a_row_has_the_same_bits_in_every_graph(engines: Any, precision: str) -> None:
    """Whichever graph commits a token or denoises a canvas, whatever rows are beside: no token depends on it."""
    runner = GraphRunner(engines("mini", profile="fused", precision=precision))
    length, hidden = runner.model["canvas_len"], runner.model["hidden_size"]
    rng = np.random.default_rng(3)
    tokens, canvases = rng.integers(128, 256, 40 + length), rng.integers(128, 256, (2, length))
    softs = rng.standard_normal((2, length, hidden)).astype(np.float32)
    kv = runner.prefill(tokens, [40])
    past, candidate = [rows[:40] for rows in kv], tokens[40:]
    expected = [rows[40:] for rows in kv]
    _, scored = runner.score(candidate, past, 40)
    denoised, following, packed = runner.packed(canvases, softs, candidate, past, 40)
    checked, _, drafted = runner.check(canvases, softs[0], candidate, past, 40)
    for name, rows in (("score", scored), ("packed", packed), ("check", drafted)):
        for tensor, (found, right) in enumerate(zip(rows, expected, strict=True)):
            assert np.array_equal(found, right), f"{name}: KV tensor {tensor}"
    alone = runner.denoise(canvases[0], softs[0], past, 40)
    assert np.array_equal(denoised, alone) and np.array_equal(checked[0], alone)
    assert np.array_equal(following, runner.denoise(canvases[1], softs[1], kv, 40 + length))


def test_bf16_is_the_same_beside_other_requests(engines: Any) -> None:
    with dgrt.Runtime(engines("mini", profile="fused"), threads=2) as runtime:
        cases = [TASKS[task][0](index) for index in range(3) for task in list(TASKS)[:2]]
        alone = [runtime.generate(case.prompt, seed=3) for case in cases]
        futures = [runtime.submit(case.prompt, seed=3) for case in cases]
        for future, expected in zip(futures, alone, strict=True):
            assert np.array_equal(future.result().tokens, expected.tokens)
        assert runtime.serving_stats().narrow_passes > 0


def test_commit_speculation_and_the_causal_tier_run_on_it(engines: Any) -> None:
    runtime = dgrt.Runtime(engines("mini", profile="fused"), threads=2)
    case = edit.generate(SEED, 3, "medium")
    plain = runtime.generate(case.prompt, pipeline="off")
    packed = runtime.generate(case.prompt, pipeline="on")
    assert packed.stats.packed_passes > 0
    assert np.array_equal(packed.tokens, plain.tokens)
    options = {"guarantee": "causal", "temperature": 0.0}
    without = runtime.generate(case.prompt, **options)
    drafted = runtime.generate(case.prompt, drafter="suffix", **options)
    assert drafted.stats.accepted_drafts > 0
    assert np.array_equal(drafted.tokens, without.tokens)


@pytest.mark.parametrize(("name", "message"), [("sse9", "expected one of"), ("plain", None)])
def test_the_instruction_set_can_be_forced(engines: Any, name: str, message: str | None) -> None:
    code = "import sys, dgrt; dgrt.Runtime(sys.argv[1], threads=1).generate('json\\nname=Ana', max_new_tokens=8)"
    path: Path = engines("mini", profile="fused")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "DGRT_CPU_ISA": name}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if message is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode != 0 and f"DGRT_CPU_ISA: {message}" in done.stderr and "found 'sse9'" in done.stderr
