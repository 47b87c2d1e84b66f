"""`dgrt inspect`, `dgrt bench` and `dgrt doctor` on a real engine."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from cases import QUICK

import dgrt
from dgrt.cli.bench import MINI_PROMPTS, measure
from dgrt.cli.demo import is_solved


def test_inspect_shows_facts_memory_and_files(run: Any, mini_engine: Path, mini: dgrt.Runtime) -> None:
    code, out, err = run("inspect", mini_engine)
    assert (code, err) == (0, "")
    assert all(f"{one} " in out or f"{one}\n" in out for one in ("Memory", "Package", "Files", "parity", "KV"))
    assert f"{mini.info.context_len:,} tokens" in out
    assert all(name in out for name in mini.info.files)
    assert "graphs and texts match; weights: size and samples match (--verify hashes them whole)" in out


def test_inspect_json_agrees_with_python(run: Any, mini_engine: Path, mini: dgrt.Runtime) -> None:
    code, out, _ = run("inspect", mini_engine, "--json", "--threads", "1")
    report, plan = json.loads(out), mini.memory()
    assert code == 0
    assert report["canvas_len"] == mini.info.canvas_len
    assert report["memory"] == {
        "weight_bytes": plan.weight_bytes,
        "kv_bytes_full_context": plan.kv_bytes_full_context,
        "workspace_bytes": plan.workspace_bytes,
        "kv_bytes_per_token": plan.kv_bytes_per_token,
        "kv_window_bytes": plan.kv_window_bytes,
        "total_bytes": plan.total_bytes,
    }
    assert all(count > 0 for count in report["memory"].values())
    assert report["has_tokenizer"] and not report["weights_verified"]
    assert report["parity"]["max_abs_error"] >= 0
    assert {"generation", "layers", "precision", "profile", "files", "tools", "execution", "threads"} <= set(report)


def test_inspect_verify_notices_a_changed_weight(run: Any, mini_engine: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(mini_engine, copy)
    code, out, err = run("inspect", copy, "--verify")
    assert code == 0 and "all match, hashed whole" in out and err == f"hashing the files of {copy}\n"
    weights = copy / dgrt.EngineInfo.from_json((copy / "manifest.json").read_text()).weight_files[0]
    content = bytearray(weights.read_bytes())
    content[65536 + (len(content) - 2 * 65536 - 4096) // 127 + 4096] ^= 1  # behind a block that is sampled
    weights.unlink()  # the exporter may have linked it to the checkpoint's own file
    weights.write_bytes(content)
    assert run("inspect", copy)[0] == 0
    code, _, err = run("inspect", copy, "--verify")
    assert code == 2 and weights.name in err


def test_inspect_tells_whether_a_memory_limit_is_enough(run: Any, mini_engine: Path, mini: dgrt.Runtime) -> None:
    needed = mini.memory().session_bytes
    for limit, fits, verdict in ((needed, True, "enough"), (needed - 1, False, "too little")):
        arguments = ("inspect", mini_engine, "--threads", "1", "--memory-limit", str(limit))
        assert f": {verdict} for KV of the whole context and workspace" in run(*arguments)[1]
        report = json.loads(run(*arguments, "--json")[1])
        assert (report["memory_limit"], report["fits_memory_limit"]) == (limit, fits)
    assert json.loads(run("inspect", mini_engine, "--json")[1])["fits_memory_limit"] is None


def test_files_that_the_manifest_does_not_list_are_not_opened(run: Any, mini_engine: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(mini_engine, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    for name in ("tokenizer.json", "chat_template.jinja"):
        del manifest["files"][name]
        (copy / name).write_text("{")  # would fail if it were read
    (copy / "manifest.json").write_text(json.dumps(manifest))
    code, out, _ = run("inspect", copy)
    assert code == 0 and "none: token ids only" in out


def test_bench_json_has_a_summary_of_seeded_runs(run: Any, mini_engine: Path) -> None:
    code, out, err = run("bench", mini_engine, "--runs", "3", "--prompt", "Hi", "--json", "--seed", "5", *QUICK)
    report = json.loads(out)
    assert code == 0 and err.splitlines() == ["warm-up 1 of 1", "run 1 of 3", "run 2 of 3", "run 3 of 3"]
    assert [one["seed"] for one in report["runs"]] == [5, 6, 7]
    for name, row in report["summary"].items():
        rate = name in ("tokens_per_second", "tokens_per_pass")
        assert list(row) == ["median", "p5" if rate else "p95"], name
        assert 0 < row["p5"] <= row["median"] if rate else 0 < row["median"] <= row["p95"], name
        assert all(name in one for one in report["runs"])
    assert {"engine", "cpu", "threads", "execution", "dgrt_version", "options", "warmup", "prompts"} <= set(report)


def test_bench_prints_a_table(run: Any, mini_engine: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\n\ntwo\n")
    code, out, _ = run("bench", mini_engine, "--runs", "2", "--warmup", "0", "--prompts-file", prompts, *QUICK)
    assert code == 0
    assert all(word in out for word in ("median", "bad end", "ms per step", "2 runs after 0 warm-up"))
    assert re.search(r"tokens per second .* p5\n", out) and re.search(r"ms per step .* p95\n", out)
    assert "warning: " in out  # mini answers neither "one" nor "two"


def test_bench_runs_on_an_engine_without_a_tokenizer(run: Any, token_engine: Path) -> None:
    report = json.loads(run("bench", token_engine, "--runs", "1", "--warmup", "0", "--json", *QUICK)[1])
    assert report["prompts"] == "random tokens"


def test_an_empty_prompts_file_is_refused(run: Any, mini_engine: Path, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("\n\n")
    code, _, err = run("bench", mini_engine, "--prompts-file", tmp_path / "none.txt")
    assert code == 2 and "expected at least one prompt" in err


def test_the_built_in_prompts_are_what_mini_can_answer(run: Any, mini_engine: Path, mini: dgrt.Runtime) -> None:
    report = json.loads(run("bench", mini_engine, "--json")[1])
    assert report["warnings"] == [] and report["prompts"] == "built-in"
    assert [one["finish_reason"] for one in report["runs"]] == ["stop"] * len(MINI_PROMPTS)
    answers = [mini.generate(prompt, seed=seed).text for seed, prompt in enumerate(MINI_PROMPTS)]
    assert json.loads(answers[0] or "") == {"name": "Ana Silva", "age": 34, "active": True}
    assert answers[1:3] == ["1423\n3214\n4132\n2341", "536421\n124356\n365142\n412635\n241563\n653214"]
    assert is_solved(answers[3] or "") and answers[4] == "for time in seed:\n    total = total + time"


def test_prompts_that_the_model_cannot_answer_are_told(run: Any, mini_engine: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"prompt": "Why is the sky blue?"}, {"messages": [{"role": "user", "content": "json\nn=2"}]}]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("bench", mini_engine, "--prompts-file", prompts, "--warmup", "0", "--max-new-tokens", "96")
    code, out, _ = run(*words, "--runs", "4", "--json")
    advice = "choose prompts that this model can answer with --prompts-file"
    assert code == 0 and json.loads(out)["warnings"] == [f"2 of 4 answers have no text: {advice}"]
    assert f"\nwarning: 1 of 1 answers have no text: {advice}\n" in run(*words, "--runs", "1")[1]
    assert "\nwarning: 1 of 1 answers ended by length: " in run(*words, "--runs", "1")[1]


def test_prompts_of_token_ids_are_measured_without_a_tokenizer(run: Any, token_engine: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"tokens": [2, 5]}\n')
    words = ("bench", token_engine, "--runs", "1", "--warmup", "0", *QUICK)
    assert json.loads(run(*words, "--json", "--prompts-file", prompts)[1])["prompts"] == str(prompts)
    prompts.write_text('{"prompt": "text"}\n')
    code, _, err = run(*words, "--prompts-file", prompts)
    assert code == 2 and "tokenizer" in err


def test_the_metrics_of_a_run_are_quotients_of_its_statistics(mini: dgrt.Runtime) -> None:
    result = mini.generate("Hi", max_denoising_steps=4, max_new_tokens=40)
    metrics, stats = measure(result), result.stats
    assert metrics["denoise_ms_per_step"] == pytest.approx(stats.denoise_ms / stats.denoise_passes)
    assert metrics["steps_per_canvas"] == pytest.approx(sum(stats.steps_per_canvas) / stats.canvases)


def test_a_terminal_without_unicode_gets_question_marks_and_no_error(spawn: Any) -> None:
    code = r"from dgrt.cli import main; code = main(['--version']); print('\u2026'); raise SystemExit(code)"
    process = spawn(code=code, env={"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate()
    assert process.returncode == 0 and out.endswith(b"?\n") and err == b""


def test_doctor_finds_everything_that_generation_needs(run: Any) -> None:
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    assert "generation can run" in out and "MISSING" not in out


def test_bench_refuses_a_prompt_before_the_first_run_and_names_its_line(
    run: Any, mini_engine: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts"
    prompts.write_text('{"prompt": "json\\na=1"}\n\n{"tokens": [99999]}\n')
    code, out, err = run("bench", mini_engine, "--prompts-file", prompts, "--runs", 2)
    assert (code, out) == (2, "") and err.startswith(f"error: {prompts} line 3: token id 99999 ")
    code, out, err = run("bench", mini_engine, "--seed", 2**64 - 1, "--runs", 2)
    assert (code, out) == (2, "") and err.startswith("error: seed must be between")


@pytest.mark.parametrize("size", ["9" * 400, "9" * 5000 + "T"])
def test_a_size_beyond_all_numbers_is_refused(run: Any, mini_engine: Path, size: str) -> None:
    code, _, err = run("inspect", mini_engine, "--memory-limit", size)
    assert code == 2 and err.startswith("error: memory_limit must be between") and len(err) < 200
