"""The prefix cache on real engines: a prompt that finds its beginning there gives the bits of one that does not.

The C++ tests show that the right rows come back; here ONNX Runtime computes, so the numbers of every denoise step and
the rows themselves (out of a snapshot) are compared bit for bit.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import PREFILL_CHUNK

import dgrt

# A model whose full layer comes last, one whose full layers feed sliding ones, the trained one in both profiles.
ENGINES = [("plain", {}), ("one_kv_head", {}), ("mini", {}), ("mini", {"profile": "fused"})]
IDS = ["plain", "one_kv_head", "mini", "mini-fused"]
OPTIONS: dict[str, Any] = {"max_denoising_steps": 3, "stop_ids": (), "seed": 5}


@pytest.fixture(scope="module", params=ENGINES, ids=IDS)
def engine(request: pytest.FixtureRequest, engines: Any) -> Path:
    name, options = request.param
    return engines(name, **options)


@pytest.fixture
def open_runtime(engine: Path) -> Iterator[Any]:
    opened: list[dgrt.Runtime] = []

    def build(**options: Any) -> dgrt.Runtime:
        opened.append(dgrt.Runtime(engine, threads=1, **options))
        return opened[-1]

    yield build
    for runtime in opened:
        runtime.close()


def text(runtime: dgrt.Runtime, seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(5, runtime.info.vocab_size, length).tolist()


def same(left: dgrt.GenerateResult, right: dgrt.GenerateResult) -> None:
    """Tokens and all numbers of every step, bit for bit."""
    assert left.tokens.tolist() == right.tokens.tolist()
    assert left.trace is not None and right.trace is not None and len(left.trace) == len(right.trace)
    for a, b in zip(left.trace, right.trace, strict=True):
        assert a.kv_len == b.kv_len
        assert a.entropy.tobytes() == b.entropy.tobytes()
        assert a.soft_in.tobytes() == b.soft_in.tobytes()


def rows_of_snapshot(path: Path, vocab_size: int) -> dict[tuple[int, ...], bytes]:
    """The rows of each prefix, by its tokens; read from the format that csrc/memory/prefix_snapshot.cc states."""
    content = path.read_bytes()
    (key_len,) = struct.unpack_from("<I", content, 20)
    at = 24 + key_len
    chunk, full, window, nodes = struct.unpack_from("<4q", content, at)
    assert chunk == PREFILL_CHUNK
    at += 32
    texts: list[tuple[int, ...]] = []
    rows = {}
    for _ in range(nodes):
        parent, _, _, has_window = struct.unpack_from("<4q", content, at)
        at += 32
        tokens = struct.unpack_from(f"<{chunk}i", content, at)
        assert max(tokens) < vocab_size
        at += 4 * chunk
        texts.append((texts[parent] if parent >= 0 else ()) + tokens)
        size = full + (window if has_window else 0)
        rows[texts[-1]] = content[at : at + size]
        at += size
    assert at == len(content) - 64
    return rows


@pytest.mark.parametrize("left", [0, 1, 511])
@pytest.mark.parametrize("logprobs", [False, True])
def test_a_hit_gives_the_bits_of_a_fresh_run(open_runtime: Any, left: int, logprobs: bool) -> None:
    fresh, warm = open_runtime(prefix_cache=0), open_runtime()
    prompt = text(fresh, 1, 2 * PREFILL_CHUNK + left)
    options = {**OPTIONS, "max_new_tokens": fresh.info.canvas_len + 3, "trace": True, "logprobs": logprobs}
    expected = fresh.generate(prompt, **options)
    assert expected.stats.prefix_tokens == fresh.prefix_stats().limit_bytes == 0
    warm.generate(prompt[: PREFILL_CHUNK + 200], **options)  # another prompt with the same beginning
    for _ in range(3):
        found = warm.generate(prompt, **options)
        same(found, expected)
        assert (found.logprobs is None) == (not logprobs)
        if logprobs:
            assert found.logprobs.tobytes() == expected.logprobs.tobytes()
    assert found.stats.prefix_tokens == (PREFILL_CHUNK if logprobs and left == 0 else 2 * PREFILL_CHUNK)
    assert found.stats.prefill_passes == (left > 0 or logprobs)


def test_the_rows_themselves_are_the_same_bits(open_runtime: Any, tmp_path: Path) -> None:
    cold, warm = open_runtime(), open_runtime()
    prompt = text(cold, 2, 3 * PREFILL_CHUNK + 9)
    cold.generate(prompt, max_new_tokens=1, **OPTIONS)
    for length in (PREFILL_CHUNK, PREFILL_CHUNK + 7, 2 * PREFILL_CHUNK, len(prompt)):
        warm.generate(prompt[:length], max_new_tokens=1, **OPTIONS)
    assert warm.prefix_stats().hit_tokens == (0 + 1 + 1 + 2) * PREFILL_CHUNK
    files = tmp_path / "cold", tmp_path / "warm"
    for runtime, path in zip((cold, warm), files, strict=True):
        runtime.save_prefixes(path)
    left, right = (rows_of_snapshot(path, cold.info.vocab_size) for path in files)
    assert len(left) == 3 and left == right


def test_causal_tokens_are_the_same(open_runtime: Any) -> None:
    fresh, warm = open_runtime(prefix_cache=0), open_runtime()
    for length in (PREFILL_CHUNK, PREFILL_CHUNK + 1, PREFILL_CHUNK + 2):
        prompt = text(fresh, 3, length)
        options = {"guarantee": "causal", "max_new_tokens": 12, "stop_ids": (), "seed": 3}
        expected = fresh.generate(prompt, **options)
        warm.generate(prompt, **options)
        found = warm.generate(prompt, **options)
        assert found.tokens.tolist() == expected.tokens.tolist()
        assert found.stats.prefix_tokens == (length - 1) // PREFILL_CHUNK * PREFILL_CHUNK


def test_threads_that_share_prefixes_change_nothing(open_runtime: Any) -> None:
    fresh, warm = open_runtime(prefix_cache=0), open_runtime()
    start = text(fresh, 4, PREFILL_CHUNK)
    prompts = [start + text(fresh, 10 + n, 300 + 300 * (n % 2)) for n in range(4)]
    options = {**OPTIONS, "max_new_tokens": fresh.info.canvas_len, "trace": True}
    expected = [fresh.generate(prompt, **options) for prompt in prompts]
    found: dict[int, dgrt.GenerateResult] = {}

    def run(numbers: list[int]) -> None:
        for number in numbers:
            found[number] = warm.generate(prompts[number % 4], **options)

    threads = [threading.Thread(target=run, args=(list(range(n, 8, 2)),)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        same(found[number], expected[number % 4])
    assert sum(result.stats.prefix_tokens > 0 for result in found.values()) >= 6


def test_saved_prefixes_serve_another_runtime(open_runtime: Any, tmp_path: Path) -> None:
    fresh, first, second = open_runtime(prefix_cache=0), open_runtime(), open_runtime()
    prompt = text(fresh, 6, PREFILL_CHUNK + 100)
    options = {**OPTIONS, "max_new_tokens": fresh.info.canvas_len, "trace": True}
    first.generate(prompt, **options)
    first.save_prefixes(tmp_path / "prefixes")
    assert second.load_prefixes(tmp_path / "prefixes") == 1
    found = second.generate(prompt, **options)
    assert found.stats.prefix_tokens == PREFILL_CHUNK
    same(found, fresh.generate(prompt, **options))
    second.clear_prefixes()
    assert second.generate(prompt, **options).stats.prefix_tokens == 0


def test_snapshots_of_other_engines_and_damaged_ones_are_refused(engines: Any, tmp_path: Path) -> None:
    path = tmp_path / "prefixes"
    with dgrt.Runtime(engines("plain"), threads=1) as plain, dgrt.Runtime(engines("mini"), threads=1) as mini:
        prompt = text(plain, 1, PREFILL_CHUNK)
        plain.generate(prompt, max_new_tokens=1, **OPTIONS)
        plain.save_prefixes(path)
        with pytest.raises(dgrt.ContractMismatch, match=r"engine and machine: expected .*ONNX Runtime.*, found "):
            mini.load_prefixes(path)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(dgrt.ContractMismatch, match="it is damaged"):
            plain.load_prefixes(path)
        with pytest.raises(dgrt.InvalidArgument, match="cannot read"):
            plain.load_prefixes(tmp_path / "none")
        with pytest.raises(dgrt.InvalidArgument, match="cannot write"):
            plain.save_prefixes(tmp_path / "no" / "folder")
        assert plain.generate(prompt, max_new_tokens=1, **OPTIONS).stats.prefix_tokens == PREFILL_CHUNK
        assert mini.prefix_stats().num_chunks == 0
    with dgrt.Runtime(engines("plain"), threads=1, prefix_cache=0) as off, pytest.raises(dgrt.Unsupported, match="off"):
        off.load_prefixes(path)


def test_one_limit_for_all_sessions_is_stated_with_numbers(engines: Any) -> None:
    with dgrt.Runtime(engines("plain"), threads=1, kv_limit=400_000) as runtime:
        assert runtime.generate(text(runtime, 1, 100), max_new_tokens=1, **OPTIONS).tokens.size == 1
        with pytest.raises(dgrt.OutOfMemory, match=r"tokens need \d+ bytes, the limit for all sessions is 400000"):
            runtime.generate(text(runtime, 1, 1900), max_new_tokens=1, **OPTIONS)
        assert runtime.prefix_stats().kv_limit_bytes == 400_000
        assert runtime.prefix_stats().kv_sequence_bytes == 0


def test_another_turn_goes_on_where_the_session_ended(engines: Any) -> None:
    from dgrt import _native
    from dgrt.ort import find_ort_library

    runtime = _native.Runtime(str(engines("plain")), threads=1, ort_library=find_ort_library())

    def session() -> Any:
        options = _native.Options(runtime, seed=4, max_new_tokens=40, max_denoising_steps=3, stop_ids=[])
        return _native.Session(runtime, options)

    def run(one: Any) -> list[int]:
        while not one.finish_reason:
            one.next_canvas()
        return one.tokens.tolist()

    turns = session()
    turns.prefill(np.array([2, 9, 30], dtype=np.int32))
    first = run(turns)
    turns.extend(np.array([7, 8], dtype=np.int32))
    second = run(turns)
    assert turns.stats()["prompt_tokens"] == 3 + 40 + 2 and turns.stats()["prefill_passes"] == 1
    whole = session()
    whole.prefill(np.array([2, 9, 30, *first, 7, 8], dtype=np.int32))
    assert whole.stats()["prompt_tokens"] == 45
    again = session()  # the same turns, the same tokens
    again.prefill(np.array([2, 9, 30], dtype=np.int32))
    assert run(again) == first
    again.extend(np.array([7, 8], dtype=np.int32))
    assert run(again) == second
    assert len(run(whole)) == len(second) == 40
