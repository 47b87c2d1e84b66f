"""`dgrt generate` on real engines: prompts, outputs, wrong inputs."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import QUICK, QUICK_OPTIONS

import dgrt

OPTIONS: dict[str, Any] = QUICK_OPTIONS


def test_the_text_of_the_command_line_is_the_text_of_python(run: Any, mini_engine: Path, mini: dgrt.Runtime) -> None:
    code, out, err = run("generate", mini_engine, "Hi there", "--seed", "3", *QUICK)
    text = mini.generate("Hi there", seed=3, **OPTIONS).text
    assert text is not None
    assert code == 0 and (not err or not text)  # a note, where there is no text
    assert out == (text if text.endswith("\n") else text + "\n")


def test_json_has_everything_a_script_needs(run: Any, mini_engine: Path, mini: dgrt.Runtime) -> None:
    code, out, _ = run("generate", mini_engine, "Hi", "--seed", "3", "--json", *QUICK)
    report, result = json.loads(out), mini.generate("Hi", seed=3, **OPTIONS)
    assert code == 0
    assert set(report) == {"engine", "text", "tokens", "finish_reason", "seed", "options", "stats"}
    assert (report["engine"], report["seed"]) == (str(mini_engine), 3)
    assert (report["text"], report["tokens"]) == (result.text, result.tokens.tolist())
    assert report["finish_reason"] == result.finish_reason
    assert set(report["options"]) == {field.name for field in dataclasses.fields(dgrt.GenerateOptions)}
    assert set(report["stats"]) == {field.name for field in dataclasses.fields(dgrt.Stats)} | {"tokens_per_second"}
    assert report["options"]["stop_ids"] == list(mini.info.generation["stop_ids"])


def test_an_expected_output_comes_as_text_or_from_a_file(run: Any, mini_engine: Path, tmp_path: Path) -> None:
    prompt, answer = "json\nname=Ana Silva", '{"name":"Ana Silva"}'
    (tmp_path / "expected.json").write_text(answer + "\n")
    tier = ["generate", mini_engine, prompt, "--guarantee", "verified"]
    reports = [
        json.loads(run(*tier, *draft, "--json")[1])
        for draft in (["--draft", answer], ["--draft-file", tmp_path / "expected.json"])
    ]
    for report in reports:
        assert report["text"] == answer and report["options"]["draft"] == answer
        stats = report["stats"]
        assert stats["draft_calls"] >= 1 and stats["verify_passes"] == 4
        assert stats["draft_commits"] + stats["draft_refines"] + stats["draft_discards"] == 1
        assert len(report["origins"]) == len(report["tokens"])
        assert report["origins"].count(1) == stats["accepted_drafts"]
    assert reports[0]["tokens"] == reports[1]["tokens"]
    err = run(*tier, "--draft", answer, "--stats")[2]
    assert "verify" in err and "tokens drafted right" in err
    both = run(*tier, "--draft", answer, "--draft-file", tmp_path / "expected.json")
    assert both[0] == 2 and "not both" in both[2]
    missing = run(*tier, "--draft-file", tmp_path / "nowhere")
    assert missing[0] == 2 and "nowhere" in missing[2]


def test_token_ids_in_and_out(run: Any, token_engine: Path, tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("[2, 9,\n 17]\n")
    outs = [
        run("generate", token_engine, *source, *QUICK)[:2]
        for source in (["--tokens", "2,9,17"], ["--tokens-file", file], ["--tokens", "2 9 17"])
    ]
    assert outs[0] == outs[1] == outs[2]
    with dgrt.Runtime(token_engine, threads=1) as runtime:
        assert [int(word) for word in outs[0][1].split()] == runtime.generate([2, 9, 17], **OPTIONS).tokens.tolist()


def test_an_engine_without_a_tokenizer_refuses_text_and_gives_null(run: Any, token_engine: Path) -> None:
    code, _, err = run("generate", token_engine, "Hi", *QUICK)
    assert code == 2 and "no tokenizer; give token ids" in err
    assert json.loads(run("generate", token_engine, "--tokens", "2", "--json", *QUICK)[1])["text"] is None


def test_the_prompt_may_come_from_stdin(spawn: Any, mini_engine: Path, mini: dgrt.Runtime) -> None:
    wanted = mini.generate("Grüße", **OPTIONS).tokens.tolist()
    for argv in ([], ["-"]):
        out, err = spawn("generate", mini_engine, *argv, "--json", *QUICK).communicate("Grüße\n".encode())
        assert json.loads(out)["tokens"] == wanted and err == b""


def test_a_system_turn_and_raw_text_change_the_prompt(run: Any, mini_engine: Path, mini: dgrt.Runtime) -> None:
    def tokens(*argv: str) -> int:
        return int(json.loads(run("generate", mini_engine, "Hi", "--json", *argv, *QUICK)[1])["stats"]["prompt_tokens"])

    turns = [{"role": "system", "content": "Short."}, {"role": "user", "content": "Hi"}]
    assert tokens("--system", "Short.") == mini.encode(turns).size
    assert tokens("--raw") == mini.encode("Hi", raw=True).size < tokens()


def test_statistics_go_to_stderr_and_leave_stdout_alone(run: Any, mini_engine: Path) -> None:
    _, plain_out, _ = run("generate", mini_engine, "Hi", *QUICK)
    code, out, err = run("generate", mini_engine, "Hi", "--stats", *QUICK)
    assert (code, out) == (0, plain_out)
    assert all(word in err for word in ("finished by", "tokens per pass", "prefill", "denoise", "head", "peak KV"))


def test_the_trace_file_holds_every_step(run: Any, mini_engine: Path, mini: dgrt.Runtime, tmp_path: Path) -> None:
    code, _, _ = run("generate", mini_engine, "Hi", "--trace", tmp_path / "t.npz", *QUICK)
    trace = mini.generate("Hi", trace=True, **OPTIONS).trace
    assert code == 0 and trace is not None
    with np.load(tmp_path / "t.npz") as file:
        assert file["step"].tolist() == [step.step for step in trace]
        assert np.array_equal(file["canvas_in"], np.stack([step.canvas_in for step in trace]))
        assert np.array_equal(file["entropy"], np.stack([step.entropy for step in trace]))


def test_a_trace_replaces_nothing_but_a_trace_without_force(run: Any, mini_engine: Path, tmp_path: Path) -> None:
    pipe, mine = tmp_path / "pipe", tmp_path / "mine.txt"
    os.mkfifo(pipe)
    mine.write_text("a text of mine")
    for path in (pipe, mine, tmp_path):  # refused before the engine is opened
        code, out, err = run("generate", tmp_path / "no engine", "Hi", "--trace", path)
        assert (code, out, err.count("\n")) == (2, "", 1) and "cannot write: expected" in err
    assert mine.read_text() == "a text of mine" and pipe.is_fifo()
    for _ in range(2):
        assert run("generate", mini_engine, "Hi", "--trace", mine, "--force", *QUICK)[0] == 0
    with np.load(mine) as file:
        assert file["tokens"].size > 0
    assert run("generate", tmp_path / "no engine", "Hi", "--trace", pipe, "--force")[0] == 2 and pipe.is_fifo()


def test_a_trace_may_go_to_standard_output(spawn: Any, mini_engine: Path, mini: dgrt.Runtime) -> None:
    out, err = spawn("generate", mini_engine, "json\ncolour=red", "--trace", "-", *QUICK).communicate(b"")
    expected = mini.generate("json\ncolour=red", **OPTIONS)
    with np.load(io.BytesIO(out)) as file:
        assert file["tokens"].tolist() == expected.tokens.tolist()
    assert expected.text and err.decode() == expected.text + "\n"


def test_show_without_a_terminal_prints_plain_text(run: Any, mini_engine: Path) -> None:
    wanted = run("generate", mini_engine, "Hi", *QUICK)
    assert wanted[0] == 0 and run("generate", mini_engine, "Hi", "--show", *QUICK) == wanted


def test_no_stop_ids_runs_to_the_limit(run: Any, mini_engine: Path) -> None:
    report = json.loads(run("generate", mini_engine, "Hi", "--stop-ids", "none", "--json", *QUICK)[1])
    assert (len(report["tokens"]), report["finish_reason"], report["options"]["stop_ids"]) == (40, "length", [])


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--tokens", "2,999999"], "999999 at position 1 is outside the vocabulary"),
        (["--tokens", ",".join(["2"] * 5000)], "leaves no room for one canvas"),
        (["x", "--t-min", "0.9"], "t_max"),
        (["x", "--entropy-bound", "0"], "entropy_bound"),
        (["x", "--stop-ids", "999999"], "stop_ids"),
        (["x", "--memory-limit", "1K"], "memory limit of 1024 bytes"),
        (["x", "--threads", "0"], "threads must be at least 1"),
        (["x", "--threads", "5000"], "threads"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_a_request_the_engine_cannot_serve_is_one_line(run: Any, mini_engine: Path, argv: list[str], says: str) -> None:
    code, out, err = run("generate", mini_engine, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and says in err


def test_a_library_that_cannot_be_loaded_is_named(spawn: Any, mini_engine: Path) -> None:
    process = spawn("generate", mini_engine, "x", "--ort-library", "/no/such/lib.so")
    _, err = process.communicate()
    assert process.returncode == 2 and b"/no/such/lib.so" in err and err.count(b"\n") == 1


def test_a_damaged_package_says_what_was_expected(run: Any, mini_engine: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(mini_engine, broken)
    (broken / "denoise.onnx").write_bytes(b"short")
    code, _, err = run("generate", broken, "x")
    assert code == 2 and "denoise.onnx" in err and err.count("\n") == 1


def test_a_reader_that_leaves_early_causes_no_traceback(spawn: Any, mini_engine: Path) -> None:
    process = spawn("generate", mini_engine, "x", "--stop-ids", "none", *QUICK)
    process.stdout.close()
    process.stdin.close()
    process.wait()
    assert b"Traceback" not in process.stderr.read()
