"""Distilling a drafter: it is shown what the target computes, an interrupted run goes on, bad input is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compare import assert_close
from dgrt_train.distill import collect as collecting
from dgrt_train.distill.blocks import Block, Blocks
from dgrt_train.distill.collect import Trajectories, collect
from dgrt_train.distill.errors import DistillError
from dgrt_train.distill.network import BlockDrafter
from dgrt_train.distill.run import Settings, _shape, distill
from dgrt_train.distill.target import Features, Target
from dgrt_train.distill.train import TrainSettings, train
from safetensors.torch import load_file, save_file
from tolerances import tolerance

import dgrt
from dgrt.cli import main
from dgrt.cli.distill import _summarise as summarise
from dgrt.prompts_file import read_prompts

PROMPTS = [{"prompt": f"json\nname=Ana; count={number}", "task": "json"} for number in range(22)]
SMALL = Settings(layers=2, steps=4, batch_size=3)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS))
    return path


@pytest.fixture(scope="module")
def collected(mini_engine: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the texts that mini writes to the prompts."""
    folder = tmp_path_factory.mktemp("collected")
    with dgrt.Runtime(mini_engine, threads=1) as runtime:
        collect(runtime, Target(mini_engine), read_prompts(data), folder, 0, 192, lambda done: None)
    return folder


@pytest.fixture
def blocks(mini_engine: Path, collected: Path) -> Blocks:
    return Blocks(Trajectories(collected, len(PROMPTS)), Target(mini_engine), (5, 7), 96)


def test_features_are_those_of_the_runtime(mini_engine: Path) -> None:
    """Hidden states recomputed from a trace give the argmax that the runtime saw, also behind the sliding window."""
    target = Target(mini_engine)
    features = Features(target)
    with dgrt.Runtime(mini_engine, threads=1) as runtime:
        prompt = "edit: rename pipe to wall\n" + "pipe = pipe + 1\n" * 12
        result = runtime.generate(prompt, trace=True, max_new_tokens=200)
    tokens = np.concatenate((result.prompt_tokens, result.tokens))
    assert len(result.prompt_tokens) > target.config.sliding_window and result.stats.canvases > 1
    rows = features.kv_rows(tokens)
    for step in result.trace:
        hidden = features.hidden(step.canvas_in, step.soft_in, step.kv_len, rows)
        best, second = target.logits(torch.from_numpy(hidden)).topk(2).values.unbind(-1)
        found = target.logits(torch.from_numpy(hidden)).argmax(-1).numpy()
        clear = (best - second).numpy() > 1e-2
        assert (found == step.argmax)[clear].all() and clear.mean() > 0.5


def test_long_texts_are_computed_in_chunks_with_the_same_rows(mini_engine: Path, monkeypatch) -> None:
    from dgrt_train.distill import target as module

    features = Features(Target(mini_engine))
    tokens = np.random.default_rng(0).integers(0, 384, 300)
    whole = features.kv_rows(tokens)
    monkeypatch.setattr(module, "_CHUNK", 70)
    for expected, found in zip(whole, features.kv_rows(tokens), strict=True):
        assert_close(found, expected, tolerance("hidden"), "rows in chunks")


def test_a_collection_goes_on_behind_its_last_shard(mini_engine, data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(collecting, "SHARD_PROMPTS", 4)
    prompts, target = read_prompts(data)[:10], Target(mini_engine)
    done: list[int] = []

    def stop_in_the_second_shard(count: int) -> None:
        done.append(count)
        if count == 6:
            raise KeyboardInterrupt

    with dgrt.Runtime(mini_engine, threads=1) as runtime:
        with pytest.raises(KeyboardInterrupt):
            collect(runtime, target, prompts, tmp_path, 0, 192, stop_in_the_second_shard)
        assert [path.name for path in tmp_path.iterdir()] == ["trajectories-00000.safetensors"]
        again: list[int] = []
        collect(runtime, target, prompts, tmp_path, 0, 192, again.append)
        assert again[:2] == [4, 5] and again[-1] == 10
        whole = tmp_path / "whole"
        whole.mkdir()
        collect(runtime, target, prompts, whole, 0, 192, lambda count: None)
    for path in sorted(whole.iterdir()):
        first, second = load_file(path), load_file(tmp_path / path.name)
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_block_has_the_text_behind_its_anchor(blocks: Blocks) -> None:
    texts = blocks.texts
    tokens = texts.tokens(3).long()
    anchor = texts.prompt_len(3) + 5
    batch = blocks.batch([Block(3, anchor), blocks.at_prompt(4)], 96)
    known = len(tokens) - anchor - 1
    assert torch.equal(batch.target[0, :known], tokens[anchor + 1 :]) and (batch.target[0, known:] == -1).all()
    assert torch.equal(batch.anchor[0], blocks.target.table[tokens[anchor]] * 128**0.5)
    assert batch.position.tolist() == [anchor, texts.prompt_len(4) - 1]
    assert batch.seen.sum(-1).tolist() == batch.position.tolist()  # rows [0, a), not the anchor's
    assert not batch.evidence.any()
    with_evidence = blocks.batch(blocks.all_with_evidence(3), 96)
    assert with_evidence.evidence.any() and with_evidence.position[0] == texts.prompt_len(3) - 1


def test_training_never_draws_a_held_out_text(blocks: Blocks, monkeypatch) -> None:
    drawn: set[int] = set()
    batch = blocks.batch
    monkeypatch.setattr(blocks, "batch", lambda made, rows: drawn.update(b.text for b in made) or batch(made, rows))
    for step in range(40):
        blocks.draw(np.random.default_rng([0, step]), 4)
    assert drawn and not drawn & set(blocks.held_out)
    assert sorted([*blocks.held_out, *blocks.training]) == list(range(len(PROMPTS)))


def test_a_block_does_not_depend_on_the_others_of_its_batch(mini_engine: Path, blocks: Blocks) -> None:
    torch.manual_seed(0)
    drafter = BlockDrafter(_shape(SMALL, Target(mini_engine)))
    wanted = [blocks.at_prompt(2), Block(5, blocks.texts.prompt_len(5) + 9), *blocks.all_with_evidence(1)]
    together = blocks.batch(wanted, 24)
    out = drafter(together.anchor, together.position, together.evidence, together.past, together.seen)
    for row, block in enumerate(wanted):
        alone = blocks.batch([block], 24)
        expected = drafter(alone.anchor, alone.position, alone.evidence, alone.past, alone.seen)
        assert_close(out[row].detach().numpy(), expected[0].detach().numpy(), tolerance("hidden"), f"block {row}")


def test_a_resumed_training_is_the_uninterrupted_one(mini_engine: Path, blocks: Blocks, tmp_path: Path) -> None:
    settings = TrainSettings(steps=6, batch_size=2)

    def trained(path: Path, stop_at: int = 0) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        drafter = BlockDrafter(_shape(SMALL, Target(mini_engine)))
        steps: list[int] = []
        train(drafter, blocks, settings, path, lambda step, _: steps.append(step), lambda: len(steps) == stop_at > 0)
        return drafter.state_dict()

    expected = trained(tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts.pt", stop_at=2)
    assert torch.load(tmp_path / "parts.pt")["step"] == 2
    found = trained(tmp_path / "parts.pt")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_training_lowers_the_loss(mini_engine: Path, blocks: Blocks, tmp_path: Path) -> None:
    torch.manual_seed(0)
    drafter = BlockDrafter(_shape(SMALL, Target(mini_engine)))
    losses: list[float] = []
    train(drafter, blocks, TrainSettings(steps=100, batch_size=4), tmp_path / "c.pt",
          lambda _, note: losses.append(float(note.split()[1])) if note else None, lambda: False)  # fmt: skip
    assert losses[-1] < 0.8 * losses[0]


def test_the_command_writes_a_drafter_and_replaces_an_older_one(mini_engine, data, tmp_path, capsys) -> None:
    words = ["distill", str(mini_engine), "--data", str(data), "-o", str(tmp_path / "d"), "--layers", "2",
             "--steps", "2", "--batch-size", "2", "--max-new-tokens", "96", "--threads", "1"]  # fmt: skip
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["settings"]["kv_layers"] == [5, 7] and facts["held_out"]["first_draft"]["json"]["drafts"] == 1
    config = json.loads((tmp_path / "d" / "config.json").read_text())
    assert config["target"]["fingerprint"] == Target(mini_engine).fingerprint
    assert set(load_file(tmp_path / "d" / "drafter.safetensors")) >= {"mask", "layers.1.q_norm.weight", "norm.weight"}
    assert "fingerprint" in (tmp_path / "d" / "README.md").read_text()
    assert main(words) == 0 and "json" in capsys.readouterr().out
    assert main([*words[:-4], "--max-new-tokens", "64"]) == 2
    assert "expected a run with max_new_tokens 64, found 96" in capsys.readouterr().err


def test_a_drafter_is_trained_further(mini_engine, collected, data, tmp_path, capsys) -> None:
    def distilled(name: str, settings: Settings) -> dict[str, torch.Tensor]:
        shutil.copytree(collected, tmp_path / f"{name}.work")
        distill(mini_engine, data, tmp_path / name, replace(settings, max_new_tokens=192), threads=1)
        return load_file(tmp_path / name / "drafter.safetensors")

    short = replace(SMALL, steps=1)
    first = distilled("first", SMALL)
    config = json.loads((tmp_path / "first" / "config.json").read_text())
    config["target"]["fingerprint"] = "0" * 64  # the target was trained further
    (tmp_path / "first" / "config.json").write_text(json.dumps(config))
    second = distilled("second", replace(short, start=str(tmp_path / "first")))
    fresh = distilled("fresh", short)

    def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
        return sum(float((one[name].float() - other[name].float()).norm()) for name in one)

    assert 0 < distance(first, second) < distance(fresh, second) / 3  # fresh: the same random weights
    assert "from the weights of an earlier drafter" in (tmp_path / "second" / "README.md").read_text()
    shutil.copytree(tmp_path / "fresh", tmp_path / "wider")
    save_file({**fresh, "mask": torch.zeros(64)}, tmp_path / "wider" / "drafter.safetensors")
    words = ["distill", str(mini_engine), "--data", str(data), "-o", str(tmp_path / "third")]
    for start, layers, error in (
        ("first", "1", "expected kv_layers [7] to go on from, found [5, 7]"),
        ("wider", "2", "expected mask [128] to go on from, found [64]"),
        ("collected", "1", "expected a drafter (config.json, drafter.safetensors), found none"),
    ):
        assert main([*words, "--layers", layers, "--start", str(tmp_path / start)]) == 2
        assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"layers": 5}, "layers: expected 1 to 4, .* found 5"), ({"layers": 0}, "found 0"),
        ({"block_len": 97}, "block_len: expected 1 to 96, the canvas, found 97"),
        ({"num_heads": -1}, "num_heads: expected a multiple of the target's 1 KV heads, found -1"),
        ({"steps": 0}, "steps: expected at least 1, found 0"),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_fit_is_named(mini_engine: Path, change: dict[str, int], error: str) -> None:
    with pytest.raises(DistillError, match=error):
        _shape(replace(SMALL, **change), Target(mini_engine))


def test_nothing_is_replaced_but_a_drafter(mini_engine: Path, data: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("years of work")
    assert main(["distill", str(mini_engine), "--data", str(data), "-o", str(tmp_path / "d")]) == 2
    assert "expected a drafter to replace" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["d"] and (tmp_path / "d" / "thesis.txt").exists()


def test_too_few_prompts_and_a_missing_file_are_told(mini_engine: Path, data: Path, tmp_path: Path, capsys) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(data.read_text().splitlines(keepends=True)[:5]))
    missing = tmp_path / "none.jsonl"
    for path, error in ((few, "at least 20 prompts, found 5"), (missing, "expected a file of JSON lines")):
        assert main(["distill", str(mini_engine), "--data", str(path), "-o", str(tmp_path / "d")]) == 2
        assert error in capsys.readouterr().err


def test_an_engine_without_a_fingerprint_has_to_be_exported_again(mini_engine: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(mini_engine, old)
    manifest = json.loads((old / "manifest.json").read_text())
    manifest["source"].pop("fingerprint", None)
    (old / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DistillError, match="expected an engine with source.fingerprint, found none; export it again"):
        Target(old).fingerprint  # noqa: B018


def test_distill_says_where_it_is(mini_engine: Path, data: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    distill(mini_engine, data, tmp_path / "d", replace(SMALL, max_new_tokens=96), threads=1,
            progress=lambda stage, done, total, _: told.append((stage, done, total)))  # fmt: skip
    assert [stage for stage, done, total in told if done == total][-2:] == ["train", "report"]
    assert ("collect", 1, 22) in told and ("train", 4, 4) in told


@pytest.mark.parametrize(
    ("prefix", "verdict"),
    [(3.0, "weak: 3.5 tokens of a draft hold on average (more prompts or --steps, or go on with --start)"),
     (25.0, "good: 20.0 tokens of a draft hold on average")],
)  # fmt: skip
def test_the_last_line_judges_the_drafter_and_names_the_next_command(capsys, prefix: float, verdict: str) -> None:
    row = {"drafts": 3, "recall": 0.5, "prefix": prefix, "tokens": 40.0, "whole": 0.1}
    tasks = {"json": row, "edit": {**row, "drafts": 1, "prefix": 5.0}}
    held_out = {"first_draft": tasks, "after_a_denoise_pass": {}, "calibration": {"ece": 0.1}}
    summarise("my drafter", {"held_out": held_out})
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{verdict}; next: dgrt export CHECKPOINT -o ENGINE --drafter 'my drafter' --force"
