"""The samples, built as an outside program would be (dgrt.h and libdgrt only), give what Python gives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import nlohmann_json
import numpy as np
import pytest
from boundary import c_api
from cases import LONG_OPTIONS, PROCESS_TIMEOUT_S
from dgrt_train.tokens import decode_answer, encode_prompt

import dgrt
from dgrt import _native

STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1"]


def compile_sample(
    repository: Path, folder: Path, name: str, compiler: str, standard: str, *options: str
) -> Path:
    program = shutil.which(os.environ.get({"cc": "CC", "c++": "CXX"}[compiler], compiler))
    if program is None:
        pytest.skip(f"no {compiler} on this machine")
    source, library = repository / "csrc" / "samples" / name, c_api.library_path()
    output = folder / Path(name).stem
    subprocess.run(
        [program, f"-std={standard}", *STRICT, *options, f"-I{repository / 'csrc/include'}", str(source), str(library),
         f"-Wl,-rpath,{library.parent}", "-pthread", "-o", str(output)],
        check=True,
    )  # fmt: skip
    return output


@pytest.fixture(scope="module")
def c_sample(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_sample(repository, tmp_path_factory.mktemp("c"), "generate.c", "cc", "c11")


@pytest.fixture(scope="module")
def editor(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_sample(repository, tmp_path_factory.mktemp("cpp"), "inline_editor.cc", "c++", "c++20")


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (package,) = nlohmann_json.__path__
    folder = tmp_path_factory.mktemp("server")
    return compile_sample(repository, folder, "json_server.cc", "c++", "c++20", f"-isystem{package}/include")


def run(*command: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    # A draft line is cut after so many bytes, possibly inside a character.
    options = {"text": True, "errors": "replace", "timeout": PROCESS_TIMEOUT_S, **options}
    return subprocess.run(words, capture_output=True, check=False, **options)


def test_the_c_sample_gives_the_tokens_of_python(
    c_sample: Path, mini_engine: Path, ort_library: str, tmp_path: Path
) -> None:
    prompt = [2, 105, 228, 138, 240]
    runtime = _native.Runtime(str(mini_engine), ort_library=ort_library)
    session = _native.Session(runtime, _native.Options(runtime, seed=5, max_new_tokens=96))
    session.prefill(np.array(prompt, np.int32))
    expected = session.next_canvas().tolist()

    arguments = ["--ort", ort_library, "--seed", 5, "--max-new", 96]
    result = run(c_sample, mini_engine, *arguments, *prompt)
    assert result.returncode == 0, result.stderr
    assert [int(line) for line in result.stdout.split()] == expected
    assert f"{len(expected)} tokens in" in result.stderr

    (tmp_path / "ids").write_text("\n".join(map(str, prompt)))
    by_variable = {**os.environ, "DGRT_ORT_LIBRARY": ort_library}
    again = run(c_sample, mini_engine, "--seed", 5, "--max-new", 96, f"@{tmp_path / 'ids'}", env=by_variable)
    assert (again.returncode, again.stdout) == (0, result.stdout)


def test_the_c_sample_reports_errors(c_sample: Path, mini_engine: Path, ort_library: str, tmp_path: Path) -> None:
    assert run(c_sample).returncode == 2
    missing = run(c_sample, tmp_path, "--ort", ort_library, 1)
    assert missing.returncode == 1 and "DGRT_INVALID_ARGUMENT" in missing.stderr and "manifest.json" in missing.stderr
    unknown = run(c_sample, mini_engine, "--ort", ort_library, 99999)
    assert unknown.returncode == 1 and "DGRT_INVALID_ARGUMENT" in unknown.stderr and "99999" in unknown.stderr
    library = run(c_sample, mini_engine, "--ort", "/nonexistent.so", 1)
    assert library.returncode == 1 and "DGRT_UNSUPPORTED" in library.stderr


def test_the_editor_streams_drafts_and_ends_with_the_text(editor: Path, mini_engine: Path, ort_library: str) -> None:
    text = "json\nname=Ana Silva; age=34; active=yes"
    runtime = _native.Runtime(str(mini_engine), ort_library=ort_library)
    session = _native.Session(runtime, _native.Options(runtime, seed=3))
    session.prefill(np.array(encode_prompt(text), np.int32))
    while not session.finish_reason:
        session.next_canvas()

    result = run(editor, mini_engine, text, "--ort", ort_library, "--seed", 3)
    assert result.returncode == 0, result.stderr
    assert result.stdout == decode_answer(session.tokens.tolist()) + "\n"
    drafts = result.stderr.splitlines()
    assert len(drafts) == sum(session.stats()["steps_per_canvas"]) and drafts[0].startswith("48 ")
    assert all("%" in line for line in drafts)


def test_the_editor_cancels_on_request(editor: Path, mini_engine: Path, ort_library: str) -> None:
    result = run(editor, mini_engine, "json\nname=Ana Silva", "--ort", ort_library, "--cancel-after", 1)
    assert (result.returncode, result.stdout) == (130, "")
    assert "cancelled after 1 steps" in result.stderr


@pytest.fixture
def endless_engine(mini_engine: Path, tmp_path: Path) -> Path:
    """`mini` with other defaults: never confident, so many steps that a canvas cannot be done before a test is."""
    folder = tmp_path / "endless"
    shutil.copytree(mini_engine, folder, copy_function=os.link)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["generation"].update(LONG_OPTIONS, max_denoising_steps=60_000)
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_the_editor_cancels_on_ctrl_c(editor: Path, endless_engine: Path, ort_library: str) -> None:
    command = [str(editor), str(endless_engine), "json\nname=Ana Silva", "--ort", ort_library]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    with subprocess.Popen(command, **pipes) as process:
        try:
            assert process.stderr is not None and "%" in process.stderr.readline()  # the first draft
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=PROCESS_TIMEOUT_S)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, "")
    assert "cancelled after" in errors


def serve(
    server: Path, engine: Path, ort_library: str, *lines: Any, options: tuple[Any, ...] = ()
) -> list[dict[str, Any]]:
    """The events that the server answers these lines with, before it ends at the end of its input."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    done = run(server, engine, "--ort", ort_library, "--threads", 2, *options, input=text)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_server_answers_many_requests_with_the_texts_of_python(
    server: Path, mini_engine: Path, ort_library: str
) -> None:
    prompts = ["json\nname=Ana Silva; age=34; active=yes", "json\ncity=Lisboa €; zip=0150"]
    with dgrt.Runtime(mini_engine, ort_library=ort_library) as runtime:
        expected = {f"{i}": runtime.generate(prompts[i % 2], seed=i).text for i in range(6)}
    lines: list[Any] = [{"id": f"{i}", "prompt": prompts[i % 2], "seed": i} for i in range(5)]
    lines.append({"id": "5", "messages": [{"role": "user", "content": prompts[1]}], "seed": 5})
    events = serve(server, mini_engine, ort_library, *lines, {"stats": True})
    pieces = [(e["id"], e["text"]) for e in events if e["event"] == "text"]
    assert {name: "".join(text for id_, text in pieces if id_ == name) for name in expected} == expected
    done = [e for e in events if e["event"] == "done"]
    assert sorted(e["id"] for e in done) == sorted(expected) and {e["finish_reason"] for e in done} == {"stop"}
    assert sum(e["event"] == "stats" for e in events) == 1


def test_the_server_tells_what_is_wrong_and_goes_on(server: Path, mini_engine: Path, ort_library: str) -> None:
    endless = {"max_new_tokens": 4000}
    events = serve(
        server, mini_engine, ort_library,
        {"id": 1, "prompt": "x", **endless}, {"id": 2, "prompt": "x"}, {"id": 1, "prompt": "x"},
        "not json", {"prompt": "no id"}, {"id": 3}, {"id": 4, "prompt": "x", "max_new_tokens": 0},
        {"id": 5, "messages": [{"role": "poet", "content": "x"}]}, {"cancel": 1}, {"cancel": 2}, {"cancel": 99},
        options=("--max-running", 1, "--max-queued", 0),
    )  # fmt: skip
    errors = [(e["id"], e["status"]) for e in events if e["event"] == "error"]
    invalid = "DGRT_INVALID_ARGUMENT"
    assert errors[0] == (2, "DGRT_QUEUE_FULL")
    assert errors[1:6] == [(id_, invalid) for id_ in (1, None, None, 3, 4)]
    assert len(errors) == 7 and errors[6][0] == 5
    assert [(e["id"], e["finish_reason"]) for e in events if e["event"] == "done"] == [(1, "cancelled")]

    assert run(server).returncode == 2 and run(server, mini_engine, "--wrong", 1).returncode == 2
    missing = run(server, "/nonexistent")
    assert missing.returncode == 1 and "DGRT_" in missing.stderr
