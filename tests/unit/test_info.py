"""Facts of an engine from its manifest, and manifests that are none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dgrt import ContractMismatch, DrafterInfo, EngineInfo

MODEL = {
    "vocab_size": 301, "hidden_size": 64, "canvas_len": 32, "context_len": 2048, "sliding_window": 24, "num_heads": 4,
    "num_experts": 8, "top_k_experts": 2, "bos_token_id": -1, "pad_token_id": 0,
    "layers": [{"type": "full", "head_dim": 16, "num_kv_heads": 2}],
}  # fmt: skip
MANIFEST: dict[str, Any] = {
    "format": "dgrt-engine", "contract_version": 1, "dgrt_version": "0.1.0", "profile": "portable", "precision": "fp32",
    "source": {"name": "x", "architecture": "A"}, "model": MODEL, "generation": {}, "weight_files": ["w"],
    "files": {"w": {"bytes": 1, "sha256": ""}},
}  # fmt: skip


def test_keys_that_may_be_absent_have_their_empty_values() -> None:
    for optional in ({}, {"tools": None, "parity": None}):
        info = EngineInfo.from_json(json.dumps({**MANIFEST, **optional}))
        assert (info.tools, info.parity, info.vision, info.bos_token_id, info.pad_token_id) == ({}, {}, "none", None, 0)


def test_the_drafter_of_a_package_is_told_and_so_is_its_absence() -> None:
    drafter = {"name": "small", "kv_layers": [1, 3], "block_len": 96}
    info = EngineInfo.from_json(json.dumps({**MANIFEST, "drafter": drafter}))
    assert info.drafter == DrafterInfo(name="small", kv_layers=(1, 3), block_len=96)
    assert EngineInfo.from_json(json.dumps(MANIFEST)).drafter is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": "x"}, 'source: expected an object, found "x"'),
        ({"source": None}, "source: expected an object, found null"),
        ({"tools": []}, r"tools: expected an object, found \[\]"),
        ({"parity": 1}, "parity: expected an object, found 1"),
        ({"drafter": ["x"]}, "drafter: expected an object"),
        ({"drafter": {"name": "x", "kv_layers": 3, "block_len": 1}}, "expected what 'dgrt export' writes"),
        ({"drafter": {"name": "x", "kv_layers": [3]}}, "no key 'block_len'"),
        ({"files": []}, "files: expected an object"),
        ({"files": {"w": 1}}, "expected what 'dgrt export' writes"),
        ({"weight_files": 3}, "expected what 'dgrt export' writes"),
        ({"model": {**MODEL, "layers": [7]}}, "expected what 'dgrt export' writes"),
        ({"model": {**MODEL, "bos_token_id": "2"}}, "expected what 'dgrt export' writes"),
        ({"model": {}}, "no key 'vocab_size'"),
    ],
    ids=str,
)
def test_a_manifest_with_values_of_other_kinds_is_a_contract_mismatch(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ContractMismatch, match=says):
        EngineInfo.from_json(json.dumps({**MANIFEST, **change}))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "[" * 100_000])
def test_what_is_no_manifest_at_all_is_a_contract_mismatch(text: str) -> None:
    with pytest.raises(ContractMismatch, match="manifest.json"):
        EngineInfo.from_json(text)
