"""The two samples, built as an outside program would be (dgrt.h and libdgrt only), give what Python gives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boundary import c_api
from cases import LONG_OPTIONS, PROCESS_TIMEOUT_S
from dgrt_train.tokens import decode_answer, encode_prompt

from dgrt import _native

STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1"]


def compile_sample(repository: Path, folder: Path, name: str, compiler: str, standard: str) -> Path:
    program = shutil.which(os.environ.get({"cc": "CC", "c++": "CXX"}[compiler], compiler))
    if program is None:
        pytest.skip(f"no {compiler} on this machine")
    source, library = repository / "csrc" / "samples" / name, c_api.library_path()
    output = folder / Path(name).stem
    subprocess.run(
        [program, f"-std={standard}", *STRICT, f"-I{repository / 'csrc/include'}", str(source), str(library),
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
