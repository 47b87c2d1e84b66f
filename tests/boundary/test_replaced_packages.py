"""A package that is replaced while a runtime has it open: answers are those of the one that was loaded, or errors.

Graphs that few requests need are opened late, so there is something to mix.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dgrt_export.manifest import sample_of
from dgrt_export.package import _exchange

import dgrt

PROMPT = [2, 3, 17]
COMMON: dict[str, Any] = {"max_new_tokens": 64, "stop_ids": (), "seed": 5}
SHORT = {"max_denoising_steps": 3}
# Each needs a graph that `exact` does not: score, packed, check, drafter.
TIERS: dict[str, dict[str, Any]] = {
    "exact": SHORT,
    "logprobs": SHORT | {"logprobs": True},
    "causal": {"guarantee": "causal"},
    "packed": SHORT | {"pipeline": "on"},
    "verified": SHORT | {
        "guarantee": "verified", "draft": list(range(4, 36)), "verify": dgrt.VerifyOptions(always=True, packing="on"),
    },
    "drafted": {"guarantee": "causal", "drafter": "model"},
}  # fmt: skip
Answer = tuple[list[int], list[float] | None]
NUM_CASES = 60


def answer(runtime: dgrt.Runtime, tier: str) -> Answer:
    result = runtime.generate(PROMPT, **COMMON | TIERS[tier])
    return result.tokens.tolist(), None if result.logprobs is None else result.logprobs.tolist()


def make_other(source: Path, folder: Path) -> None:
    """Another model of the same shapes: its last norm has the other sign."""
    shutil.copytree(source, folder)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    for name, facts in json.loads(content[8:start]).items():
        if name == "model.decoder.norm.weight":
            first, last = (start + offset for offset in facts["data_offsets"])
            content[first:last] = (-np.frombuffer(content[first:last], np.float32)).tobytes()
    path.write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] |= {
        "sha256": hashlib.sha256(content).hexdigest(), "sample": sample_of(io.BytesIO(content), len(content)),
    }  # fmt: skip
    manifest["source"]["name"] = "other"
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def packages(engines: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    old, new = engines("plain", drafter="fp32"), tmp_path_factory.mktemp("other") / "engine"
    make_other(old, new)
    return old, new


@pytest.fixture(scope="module")
def answers(packages: tuple[Path, Path]) -> dict[str, Answer]:
    """Of the old package; those of the new one all differ."""
    found = []
    for package in packages:
        with dgrt.Runtime(package, threads=1) as runtime:
            found.append({tier: answer(runtime, tier) for tier in TIERS})
    assert [tier for tier in TIERS if found[0][tier] == found[1][tier]] == []
    return found[0]


def by_rename(live: Path, new: Path) -> None:
    live.rename(live.with_name("gone"))
    shutil.copytree(new, live)


def by_force(live: Path, new: Path) -> None:
    """What `dgrt export --force` does."""
    shutil.copytree(new, live.with_name("staging"))
    _exchange(live.with_name("staging"), live)
    shutil.rmtree(live.with_name("staging"))


def by_link(live: Path, new: Path) -> None:
    live.unlink()
    live.symlink_to(new)


def file_by_file(live: Path, new: Path) -> None:
    for path in sorted(new.iterdir(), reverse=True):
        shutil.copyfile(path, live / "part")
        (live / "part").rename(live / path.name)


def in_place(live: Path, new: Path) -> None:
    for path in new.iterdir():
        (live / path.name).write_bytes(path.read_bytes())


def by_deletion(live: Path, new: Path) -> None:
    shutil.rmtree(live)


# Whether the graphs that are not open yet can still be had, and whether the weights that are open stay what they were.
WAYS = {by_rename: (True, True), by_link: (True, True), by_force: (False, True), by_deletion: (False, True),
        file_by_file: (False, True), in_place: (False, False)}  # fmt: skip


def test_answers_are_those_of_the_package_that_was_loaded_or_errors(
    packages: tuple[Path, Path], answers: dict[str, Answer], tmp_path: Path
) -> None:
    """At random moments, in random ways, with random tiers before and after."""
    rng = random.Random(23)
    for case in range(NUM_CASES):
        way = list(WAYS)[case % len(WAYS)]
        late_opens, stays = WAYS[way]
        place = tmp_path / str(case)
        live = place / "live"
        shutil.copytree(packages[0], place / "real" if way is by_link else live)
        if way is by_link:
            live.symlink_to(place / "real")
        before = rng.sample(sorted(TIERS), rng.randrange(3))
        with dgrt.Runtime(live, threads=1) as runtime:
            for tier in before:
                assert answer(runtime, tier) == answers[tier]
            way(live, packages[1])
            for tier in rng.sample(sorted(TIERS), 3):
                is_open = tier in (*before, "exact")
                if late_opens or (is_open and stays):
                    assert answer(runtime, tier) == answers[tier], (way, tier)
                    continue
                try:  # another tier may have opened the same graph
                    assert answer(runtime, tier) == answers[tier] and stays, (way, tier)
                except dgrt.ContractMismatch as error:
                    assert "open the engine again" in str(error) or not stays, error
        shutil.rmtree(place)


def test_a_replaced_package_gives_late_graphs_a_clear_error(packages: tuple[Path, Path], tmp_path: Path) -> None:
    live = tmp_path / "live"
    shutil.copytree(packages[0], live)
    with dgrt.Runtime(live, threads=1) as runtime:
        by_force(live, packages[1])
        answer(runtime, "exact")
        for tier in ("causal", "packed", "verified", "drafted", "logprobs"):
            said = r"safetensors: expected the file that was opened with the engine, found none; the package was "
            with pytest.raises(dgrt.ContractMismatch, match=said + "deleted or replaced since: open the engine again"):
                answer(runtime, tier)
    with dgrt.Runtime(live, threads=1) as runtime:
        assert runtime.info.name == "other"


def test_a_package_that_is_swapped_while_it_is_loaded_is_one_of_the_two(
    packages: tuple[Path, Path], tmp_path: Path
) -> None:
    """Manifest, graphs, weights and tokenizer of one folder."""
    folders = [tmp_path / "live", tmp_path / "other"]
    for package, folder in zip(packages, folders, strict=True):
        shutil.copytree(package, folder)
    tokenizer = json.loads((folders[1] / "tokenizer_config.json").read_text()) | {"model": "other"}
    (folders[1] / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    manifest = json.loads((folders[1] / "manifest.json").read_text())
    content = (folders[1] / "tokenizer_config.json").read_bytes()
    manifest["files"]["tokenizer_config.json"] = {
        "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    (folders[1] / "manifest.json").write_text(json.dumps(manifest))
    expected, packed = {}, {}
    for folder in folders:
        with dgrt.Runtime(folder, threads=1) as runtime:
            expected[runtime.info.name] = answer(runtime, "causal")
            packed[runtime.info.name] = answer(runtime, "packed")
    assert len(expected) == 2

    rng, seen = random.Random(31), set()
    for _ in range(80):
        swapper = threading.Timer(0.02 * rng.random(), _exchange, folders)
        swapper.start()
        with dgrt.Runtime(folders[0], threads=1) as runtime:
            name = runtime.info.name
            seen.add(name)
            assert runtime.tokenizer is not None
            assert (runtime.tokenizer.config.get("model") == "other") == (name == "other")
            assert answer(runtime, "causal") == expected[name]
            swapper.join()
            assert answer(runtime, "packed") == packed[name]
    assert len(seen) == 2


def test_no_descriptor_is_left_or_inherited(packages: tuple[Path, Path]) -> None:
    def held() -> set[str]:
        names = set()
        for number in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                continue
            if target.startswith(str(packages[0])):
                assert not os.get_inheritable(int(number))
                names.add(target)
        return names

    assert held() == set()
    with dgrt.Runtime(packages[0], threads=1) as runtime:
        answer(runtime, "causal")
        weights = {str(packages[0] / name) for name in runtime.info.weight_files}
        assert held() == {str(packages[0]), *weights}
    del runtime
    assert held() == set()
