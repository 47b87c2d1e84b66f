"""The prefix cache and turns through the C API: what a foreign host sees of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boundary import c_api
from boundary.c_api import Failure

PROMPT = [2] + [5 + i * 7 % 290 for i in range(599)]
OPTIONS: dict[str, Any] = {"max_new_tokens": 4, "max_denoising_steps": 2, "stop_ids": []}


@pytest.fixture
def open_runtime(plain_engine: Path, ort_library: str) -> Iterator[Callable[..., Any]]:
    opened = []

    def build(**options: Any) -> Any:
        opened.append(c_api.Runtime(plain_engine, threads=1, ort_library=ort_library.encode(), **options))
        return opened[-1]

    yield build
    for runtime in opened:
        runtime.destroy()


def run(runtime: Any, prompt: list[int]) -> tuple[list[int], Any]:
    session = c_api.Session(runtime, **OPTIONS)
    session.prefill(prompt)
    tokens = session.next_canvas()
    stats = session.stats()
    session.destroy()
    return tokens, stats


def test_a_second_prompt_takes_what_the_first_one_left(open_runtime: Any, tmp_path: Path) -> None:
    runtime, other = open_runtime(), open_runtime()
    tokens, stats = run(runtime, PROMPT)
    assert (stats.prefix_tokens, stats.prefill_passes) == (0, 2)
    again, stats = run(runtime, PROMPT)
    assert again == tokens and (stats.prefix_tokens, stats.prefill_passes) == (512, 1)
    counters = runtime.prefix_stats()
    assert (counters["lookups"], counters["hits"], counters["hit_tokens"], counters["num_chunks"]) == (2, 1, 512, 1)
    assert counters["kv_prefix_bytes"] == counters["bytes"] > 0 and counters["kv_sequence_bytes"] == 0
    assert counters["kv_peak_bytes"] > counters["bytes"]

    runtime.save_prefixes(tmp_path / "prefixes")
    assert other.load_prefixes(tmp_path / "prefixes") == 1
    assert run(other, PROMPT)[1].prefix_tokens == 512
    other.clear_prefixes()
    assert run(other, PROMPT)[1].prefix_tokens == 0

    content = bytearray((tmp_path / "prefixes").read_bytes())
    content[5000] ^= 4
    (tmp_path / "prefixes").write_bytes(content)
    with pytest.raises(Failure, match="DGRT_CONTRACT_MISMATCH.*damaged"):
        other.load_prefixes(tmp_path / "prefixes")
    assert other.prefix_stats()["num_chunks"] == 1


def test_it_can_be_turned_off_and_limited(open_runtime: Any, tmp_path: Path) -> None:
    off = open_runtime(prefix_cache_bytes=0)
    assert run(off, PROMPT)[0] == run(off, PROMPT)[0]
    assert run(off, PROMPT)[1].prefix_tokens == 0 and off.prefix_stats()["limit_bytes"] == 0
    with pytest.raises(Failure, match="DGRT_UNSUPPORTED.*off"):
        off.save_prefixes(tmp_path / "prefixes")
    with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT.*prefix_cache_bytes: expected 0, or at least"):
        open_runtime(prefix_cache_bytes=4096)
    limited = open_runtime(kv_limit_bytes=400_000)
    assert limited.prefix_stats()["kv_limit_bytes"] == 400_000
    with pytest.raises(Failure, match="DGRT_OUT_OF_MEMORY.*400000"):
        run(limited, [2] * 2000)


def test_a_session_takes_another_turn(open_runtime: Any) -> None:
    session = c_api.Session(open_runtime(), **OPTIONS)
    session.prefill(PROMPT[:20])
    with pytest.raises(Failure, match="DGRT_INVALID_ARGUMENT.*extend"):
        session.extend([7])
    assert len(session.next_canvas()) == 4
    session.extend([7, 8])
    assert session.tokens() == [] and session.stats().kv_len == session.stats().prompt_tokens == 26
    assert len(session.next_canvas()) == 4 and session.finish_reason == "length"
    session.destroy()
