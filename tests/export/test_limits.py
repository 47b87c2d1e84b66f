"""Values that are legal and extreme: what the exporter takes, a runtime opens; what it would refuse, nobody exports."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import models
import pytest
from dgrt_export import ExportError
from dgrt_export.config import parse_config
from dgrt_export.generation import read_generation

import dgrt

TINY = 1e-320  # nothing in single precision
GENERATION = [
    ("max_denoising_steps", 2**16), ("max_denoising_steps", 2**16 + 1), ("stability_threshold", 0),
    ("stability_threshold", 2**16), ("stability_threshold", 2**16 + 1), ("t_max", 1e4), ("t_max", 1e308),
    ("t_max", 10_000.001), ("t_max", TINY), ("t_min", TINY), ("t_min", 0.7999999999999999), ("entropy_bound", TINY),
    ("entropy_bound", 1e9), ("entropy_bound", 1e10), ("confidence_threshold", TINY), ("confidence_threshold", 1e9),
    ("confidence_threshold", 1e10), ("stop_ids", list(range(301))), ("stop_ids", [1] * 1000), ("stop_ids", []),
]  # fmt: skip
CONFIG = [
    ("max_position_embeddings", "context_len", 31), ("max_position_embeddings", "context_len", 32),
    ("max_position_embeddings", "context_len", 2**31 - 1), ("final_logit_softcapping", "final_logit_softcap", 1e6),
    ("final_logit_softcapping", "final_logit_softcap", 2e6), ("final_logit_softcapping", "final_logit_softcap", 1e-37),
    ("sliding_window", "sliding_window", 2**31 - 1),
]  # fmt: skip


def opens(engine: Path, folder: Path, part: str, key: str, value: Any) -> bool:
    """Whether a runtime opens the engine with another value in its manifest."""
    folder.mkdir()
    for path in engine.iterdir():
        os.link(path, folder / path.name)
    manifest = json.loads((engine / "manifest.json").read_text())
    manifest[part][key] = value
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    try:
        dgrt.Runtime(folder).close()
    except dgrt.ContractMismatch as error:
        assert key in str(error)
        return False
    finally:
        shutil.rmtree(folder)
    return True


@pytest.mark.parametrize(("key", "value"), GENERATION, ids=lambda value: str(value)[:20])
def test_generation_values_that_are_exported_can_be_opened(engines, tmp_path, key, value):
    written = {"stop_ids": "eos_token_id"}.get(key, key)
    raw = {"sampler_config": {key: value}} if key == "entropy_bound" else {written: value}
    (tmp_path / "generation_config.json").write_text(json.dumps(raw))
    try:
        kept = read_generation(tmp_path, parse_config(models.config_json(models.spec("plain"))))[key]
    except ExportError as error:
        assert key in str(error) or "t_max" in str(error)
        kept = None
    assert opens(engines("plain"), tmp_path / "e", "generation", key, value) == (kept is not None)


@pytest.mark.parametrize(("key", "name", "value"), CONFIG)
def test_config_values_that_are_exported_can_be_opened(engines, tmp_path, key, name, value):
    raw = models.config_json(models.spec("plain"))
    raw["text_config"][key] = value
    try:
        parse_config(raw)
    except ExportError as error:
        assert key in str(error)
        assert not opens(engines("plain"), tmp_path / "e", "model", name, value)
    else:
        assert opens(engines("plain"), tmp_path / "e", "model", name, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rms_norm_eps", 5e-324), ("rms_norm_eps", 1e300), ("final_logit_softcapping", TINY), ("num_experts", 2**16 + 1),
     ("vocab_size", 2**24 + 1), ("num_hidden_layers", 2**12 + 1), ("head_dim", 2**14 + 1)],
)  # fmt: skip
def test_what_single_precision_or_a_runtime_cannot_hold_is_refused_by_its_key(key, value):
    raw = models.config_json(models.spec("plain"))
    raw["text_config"][key] = value
    with pytest.raises(ExportError, match=re.escape(f", found {value}")) as caught:
        parse_config(raw)
    assert f"{key}: expected" in str(caught.value)


@pytest.mark.parametrize("change", [{"rope_theta": 1e308}, {"rope_theta": TINY}, {"factor": 1e-300}])
def test_a_rotary_embedding_of_extreme_values_is_refused_by_its_key(change):
    raw = models.config_json(models.spec("plain"))
    raw["text_config"]["rope_parameters"]["full_attention"].update(change)
    (key,) = change
    with pytest.raises(ExportError, match=f"full_attention {key}: expected a number > 0, found .*single precision"):
        parse_config(raw)


def test_a_canvas_that_the_parity_gate_cannot_hold_is_refused_before_any_work():
    raw = {**models.config_json(models.spec("plain")), "canvas_length": 4097}
    raw["text_config"]["max_position_embeddings"] = 2**31 - 1
    with pytest.raises(ExportError, match="canvas_length: expected at most 4096, found 4097"):
        parse_config(raw)


def test_a_window_without_an_end_does_not_make_the_parity_gate_endless():
    from dgrt_export.check import num_passes

    raw = models.config_json(models.spec("plain"))
    raw["text_config"]["sliding_window"] = 2**31 - 1
    assert num_passes(parse_config(raw)) < 100
