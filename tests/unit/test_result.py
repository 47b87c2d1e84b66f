"""Statistics, engine facts and the trace file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dgrt import ContractMismatch, EngineInfo, GenerateOptions, GenerateResult, MemoryPlan, Stats, StepTrace
from dgrt.cli.trace_file import write_trace

MANIFEST: dict[str, Any] = {
    "format": "dgrt-engine", "contract_version": 1, "dgrt_version": "0.1.0", "tools": {"torch": "2.13.0"},
    "source": {"name": "mini", "architecture": "X", "vision": "skipped"}, "profile": "portable", "precision": "fp32",
    "model": {
        "vocab_size": 384, "hidden_size": 128, "canvas_len": 96, "context_len": 4096, "sliding_window": 128,
        "num_heads": 4, "num_experts": 8, "top_k_experts": 2, "final_logit_softcap": 30.0, "pad_token_id": 0,
        "bos_token_id": -1, "layers": [{"type": "full", "head_dim": 32, "num_kv_heads": 2}],
    },
    "generation": {"stop_ids": [1]}, "files": {"a": {"bytes": 3, "sha256": ""}}, "weight_files": ["a"],
}  # fmt: skip


def stats(**changes: Any) -> Stats:
    zero = {field.name: 0 for field in dataclasses.fields(Stats)}
    return Stats.from_native({**zero, "steps_per_canvas": [3, 4], **changes})


def test_statistics_are_read_by_name_and_become_plain_json() -> None:
    out = json.loads(json.dumps(stats(tokens=10, total_ms=500.0).to_dict()))
    assert (out["tokens"], out["steps_per_canvas"], out["tokens_per_second"]) == (10, [3, 4], 20.0)


def test_a_statistic_the_native_side_does_not_report_is_an_error() -> None:
    with pytest.raises(KeyError):
        Stats.from_native({"tokens": 1})


def test_nothing_generated_has_a_rate_of_zero() -> None:
    assert stats().tokens_per_second == 0.0


def test_engine_facts_are_read_from_the_manifest() -> None:
    info = EngineInfo.from_json(json.dumps(MANIFEST))
    assert (info.canvas_len, info.layers[0].type, info.bos_token_id, info.pad_token_id) == (96, "full", None, 0)
    assert (info.files, info.parity, info.vision) == ({"a": 3}, {}, "skipped")


def test_a_manifest_without_a_key_names_it() -> None:
    with pytest.raises(ContractMismatch, match="'weight_files'"):
        EngineInfo.from_json(json.dumps({k: v for k, v in MANIFEST.items() if k != "weight_files"}))


def test_a_manifest_that_is_not_json_is_refused() -> None:
    with pytest.raises(ContractMismatch, match="not JSON"):
        EngineInfo.from_json("{")


def test_the_memory_plan_adds_up() -> None:
    assert MemoryPlan(weight_bytes=1, kv_bytes_full_context=2, workspace_bytes=4).total_bytes == 7


def test_the_trace_file_holds_every_field_stacked_over_the_steps(tmp_path: Path) -> None:
    row, soft = np.arange(3, dtype=np.int32), np.ones((3, 2), np.float32)
    trace = [
        StepTrace(
            canvas_index=0, step=n, temperature=0.5, kv_len=7, canvas_in=row, soft_in=soft, argmax=row,
            entropy=row.astype(np.float32), sampled=row, accepted=row > 1, canvas_out=row,
            soft_out=soft if n > 1 else None, stopped=n == 1,
        )
        for n in (2, 1)
    ]  # fmt: skip
    result = GenerateResult(
        text=None, tokens=row, prompt_tokens=row[:1], finish_reason="stop", stats=stats(),
        options=GenerateOptions(seed=2**64 - 1), origins=np.zeros(3, np.uint8), trace=trace,
    )  # fmt: skip
    write_trace(tmp_path / "steps", result)
    with np.load(tmp_path / "steps") as file:
        names = {field.name for field in dataclasses.fields(StepTrace)} | {
            "has_soft_out",
            "tokens",
            "prompt_tokens",
            "seed",
        }
        assert set(file.files) == names
        assert file["step"].tolist() == [2, 1] and file["soft_in"].shape == (2, 3, 2)
        assert file["has_soft_out"].tolist() == [True, False] and not file["soft_out"][1].any()
        assert int(file["seed"]) == 2**64 - 1
