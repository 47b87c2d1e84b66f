"""One scenario through both faces of the native code, pybind and C: the same tokens, counters and steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boundary import c_api

from dgrt import _native

CASES = json.loads((Path(__file__).parent / "scenario.json").read_text(encoding="utf-8"))["cases"]
COUNTERS = (*c_api.COUNTERS, "causal_passes", "packed_commits")
FIELDS = ("canvas_in", "argmax", "entropy", "sampled", "accepted", "canvas_out")


@pytest.fixture(scope="module", params=["mini_engine", "plain_engine"])
def runtimes(request: pytest.FixtureRequest, ort_library: str) -> Any:
    engine = request.getfixturevalue(request.param)
    native = _native.Runtime(str(engine), threads=2, ort_library=ort_library)
    foreign = c_api.Runtime(engine, threads=2, ort_library=ort_library.encode())
    yield native, foreign
    foreign.destroy()


def prompt_of(case: dict[str, Any], vocab_size: int) -> list[int]:
    if "prompt" in case:
        prompt = case["prompt"]
    else:
        prompt = [i * case["prompt_pattern"]["step"] for i in range(case["prompt_pattern"]["length"])]
    return [token % vocab_size for token in prompt]


def run_native(runtime: Any, case: dict[str, Any], prompt: list[int], canvas: list[int] | None) -> dict[str, Any]:
    session = _native.Session(runtime, _native.Options(runtime, **case["options"]))
    session.prefill(np.array(prompt, np.int32))
    if canvas is not None:
        session.set_canvas(np.array(canvas, np.int32))
    steps: list[dict[str, Any]] = []
    emitted = []
    while not session.finish_reason:
        emitted.append(session.next_canvas(steps.append).tolist())
    return {
        "emitted": emitted, "tokens": session.tokens.tolist(), "finish": session.finish_reason,
        "stats": session.stats(), "kv_len": session.kv_len, "canvas": session.canvas().tolist(), "steps": steps,
        "logprobs": session.logprobs.tolist(),
    }  # fmt: skip


def run_foreign(runtime: Any, case: dict[str, Any], prompt: list[int], canvas: list[int] | None) -> dict[str, Any]:
    session = c_api.Session(runtime, **case["options"])
    session.prefill(prompt)
    if canvas is not None:
        session.set_canvas(canvas)
    steps: list[dict[str, Any]] = []

    def on_step(_: Any, pointer: Any) -> int:
        step = pointer.contents
        arrays = {name: getattr(step, name)[: step.canvas_len] for name in FIELDS}
        last = not step.soft_out
        steps.append({"step": step.step, "stopped": bool(step.stopped), "last": last, "kv_len": step.kv_len, **arrays})
        return 0

    emitted, committed = [], []

    def on_commit(_: Any, canvas_index: int, tokens: Any, count: int) -> int:
        committed.append((canvas_index, tokens[:count]))
        return 0

    while not session.finish_reason:
        emitted.append(session.next_canvas(on_step, on_commit))
    assert committed == list(enumerate(emitted))
    stats = session.stats()
    result = {
        "emitted": emitted, "tokens": session.tokens(), "finish": session.finish_reason, "kv_len": stats.kv_len,
        "stats": {name: getattr(stats, name) for name in COUNTERS}, "canvas": session.canvas(), "steps": steps,
        "steps_per_canvas": stats.steps_per_canvas[: stats.num_steps_per_canvas], "logprobs": session.logprobs(),
    }  # fmt: skip
    session.destroy()
    return result


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_both_faces_agree(runtimes: Any, case: dict[str, Any]) -> None:
    native, foreign = runtimes
    facts = foreign.info()
    case = {**case, "options": {**case["options"]}}
    if case["options"].get("stop_ids"):
        case["options"]["stop_ids"] = [token for token in case["options"]["stop_ids"] if token < facts.vocab_size]
    prompt = prompt_of(case, facts.vocab_size)
    canvas = [case["canvas_token"]] * facts.canvas_len if "canvas_token" in case else None

    left = run_native(native, case, prompt, canvas)
    right = run_foreign(foreign, case, prompt, canvas)

    for key in ("emitted", "tokens", "finish", "kv_len", "canvas", "logprobs"):
        assert left[key] == right[key], key
    assert left["tokens"] == [token for part in left["emitted"] for token in part]
    for name in COUNTERS:
        assert left["stats"][name] == right["stats"][name], name
    assert left["stats"]["steps_per_canvas"] == right["steps_per_canvas"]
    assert len(left["steps"]) == len(right["steps"]) == sum(right["steps_per_canvas"])
    assert len(left["logprobs"]) == (len(left["tokens"]) if case["options"].get("logprobs") else 0)
    for a, b in zip(left["steps"], right["steps"], strict=True):
        assert (a["step"], a["stopped"], a["kv_len"]) == (b["step"], b["stopped"], b["kv_len"])
        for name in FIELDS:
            assert a[name].tolist() == b[name], name
    if canvas is not None:
        assert left["steps"][0]["canvas_in"].tolist() == canvas


def test_generate_gives_the_same_tokens_and_statistics(runtimes: Any) -> None:
    _, foreign = runtimes
    options = {"seed": 5, "max_new_tokens": 150, "max_denoising_steps": 4, "stop_ids": []}
    prompt = [2, 3, 4]
    session = c_api.Session(foreign, **options)
    session.prefill(prompt)
    expected: list[int] = []
    while not session.finish_reason:
        expected += session.next_canvas()
    session.destroy()

    found: list[int] = []

    def on_commit(_: Any, canvas_index: int, tokens: Any, count: int) -> int:
        found.extend(tokens[:count])
        return 0

    stats = c_api.Stats(c_api.ctypes.sizeof(c_api.Stats))
    settings, keep = foreign.session_options(**options), c_api.callbacks(on_commit=on_commit)
    status = c_api.LIB.dgrt_generate(
        foreign.handle, c_api.byref(settings), c_api.ids(prompt), len(prompt), c_api.byref(keep), c_api.byref(stats)
    )
    c_api.check(status)
    assert found == expected
    assert (stats.tokens, stats.finish_reason, bool(stats.steps_per_canvas)) == (len(expected), 2, False)


def test_facts_and_memory_agree(runtimes: Any) -> None:
    native, foreign = runtimes
    facts, memory = foreign.info(), foreign.memory()
    manifest = json.loads(facts.manifest_json)
    assert json.loads(native.manifest_json) == manifest
    assert facts.description.decode() == native.description
    assert facts.threads == native.threads == 2
    for name in ("vocab_size", "hidden_size", "canvas_len", "context_len", "pad_token_id", "bos_token_id"):
        assert getattr(facts, name) == manifest["model"][name], name
    assert {name: getattr(memory, name) for name in native.memory()} == native.memory()
    settings, defaults = foreign.session_options(), native.defaults()
    assert settings.stop_ids[: settings.num_stop_ids] == defaults["stop_ids"] == manifest["generation"]["stop_ids"]
    for name in defaults.keys() - {"stop_ids"}:
        assert getattr(settings, name) == defaults[name] == pytest.approx(manifest["generation"][name]), name
    assert (settings.max_new_tokens, settings.seed, settings.request) == (-1, 0, 0)
