"""The command line in poor surroundings: closed or full streams, other locales, engines without a template."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
from cases import PROCESS_TIMEOUT_S, QUICK

import dgrt

CLOSED = (
    "import os, sys; os.close(int(sys.argv[1]))\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'dgrt', *sys.argv[2:]])"
)
POSIX = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def no_more_bytes() -> None:
    """Lets this process write nothing into files: what a full disk does, too."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def finish(process: Any) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PROCESS_TIMEOUT_S)
    return process.returncode, (out or b"").decode(), (err or b"").decode()


@pytest.fixture
def without_template(plain_engine: Path, tmp_path: Path) -> Path:
    """A copy of an engine, as an export of a checkpoint without a chat template makes it."""
    return changed(plain_engine, tmp_path / "engine", None)


def changed(engine: Path, copy: Path, template: str | None) -> Path:
    shutil.copytree(engine, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    content = (template or "").encode()
    (copy / "chat_template.jinja").write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["files"] |= {"chat_template.jinja": entry}
    if template is None:
        (copy / "chat_template.jinja").unlink()
        del manifest["files"]["chat_template.jinja"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


@pytest.mark.parametrize("argv", [["generate", "ENGINE", "Hi"], ["doctor"], ["--help"]])
def test_a_closed_stdout_is_one_line_before_any_work(spawn: Any, plain_engine: Path, argv: list[str]) -> None:
    given = [str(plain_engine) if word == "ENGINE" else word for word in argv]
    code, _, err = finish(spawn("1", *given, code=CLOSED))
    assert (code, err) == (2, "error: standard output is closed; send it to a file or to /dev/null\n")


def test_a_closed_stderr_puts_nothing_of_it_on_stdout(spawn: Any) -> None:
    code, out, _ = finish(spawn("2", "generate", "no/engine", "Hi", code=CLOSED))
    assert (code, out) == (2, "")


def test_a_closed_stdin_is_an_empty_prompt(spawn: Any, plain_engine: Path) -> None:
    code, _, err = finish(spawn("0", "generate", plain_engine, code=CLOSED))
    assert (code, err) == (2, "error: the prompt is empty\n")


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["generate", "--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_that_cannot_be_written_is_an_error(
    spawn: Any, tmp_path: Path, argv: list[str], unbuffered: str
) -> None:
    environment = {"PYTHONUNBUFFERED": unbuffered, "PYTHONDONTWRITEBYTECODE": "1"}
    with (tmp_path / "out").open("wb") as out:
        code, _, err = finish(spawn(*argv, stdout=out, env=environment, preexec_fn=no_more_bytes))
    assert code == 2 and err == "error: [Errno 27] File too large\n"


def test_a_text_argument_is_utf8_in_any_locale(spawn: Any, plain_engine: Path) -> None:
    argv = ["generate", plain_engine, "name=José", "--json", *QUICK]
    (code, out, err), (_, expected, _) = finish(spawn(*argv, env=POSIX)), finish(spawn(*argv))
    assert (code, err) == (0, "")
    assert json.loads(out)["tokens"] == json.loads(expected)["tokens"]
    code, _, err = finish(spawn("generate", plain_engine, b"name=\xff".decode(errors="surrogateescape")))
    assert code == 2 and err.startswith("error: argument PROMPT: the text is not UTF-8") and err.count("\n") == 1


def test_a_folder_with_any_name_opens_in_any_locale(spawn: Any, plain_engine: Path, tmp_path: Path) -> None:
    (tmp_path / "модель").symlink_to(plain_engine)
    code, _, err = finish(spawn("generate", tmp_path / "модель", "Hi", "--json", *QUICK, env=POSIX))
    assert (code, err) == (0, "")


def test_an_engine_without_a_template_warns_in_one_line(run: Any, without_template: Path) -> None:
    code, _, err = run("generate", without_template, "Hi", "--json", *QUICK)
    assert code == 0 and err.startswith("warning: this engine has no chat template: ") and err.count("\n") == 1
    code, _, err = run("generate", without_template, "Hi", "--raw", "--json", *QUICK)
    assert (code, err) == (0, "")


def test_an_engine_with_a_broken_template_serves_token_ids(run: Any, plain_engine: Path, tmp_path: Path) -> None:
    engine = changed(plain_engine, tmp_path / "engine", "{% unknown %}")
    assert run("generate", engine, "--tokens", "2,9", *QUICK)[0] == 0
    code, out, err = run("generate", engine, "Hi", *QUICK)
    assert (code, out) == (2, "") and err.startswith("error: the chat template of this engine cannot be compiled: ")
    with dgrt.Runtime(engine) as runtime, pytest.raises(dgrt.Unsupported, match="cannot be compiled"):
        runtime.chat().send("Hi")


def test_an_answer_of_special_tokens_only_says_so(run: Any, mini_engine: Path) -> None:
    code, out, err = run("generate", mini_engine, "Why?", "--seed", "1", "--max-new-tokens", "8")
    assert (code, out) == (0, "\n")
    assert err == "note: no text: 8 tokens, all of them special (--json shows them)\n"


def test_the_thinking_switch_reaches_the_template(run: Any, plain_engine: Path, tmp_path: Path) -> None:
    template = "{% if enable_thinking is defined %}{{ enable_thinking }}{% endif %}{{ messages[0].content }}"
    engine = changed(plain_engine, tmp_path / "engine", template)
    with dgrt.Runtime(engine) as runtime:
        assert runtime.tokenizer is not None
        for argv, options in (([], {}), (["--thinking"], {"thinking": True}), (["--no-thinking"], {"thinking": False})):
            report = json.loads(run("generate", engine, "Hi", "--json", *argv, *QUICK)[1])
            wanted = "".join(map(str, options.values())) + "Hi"
            assert runtime.tokenizer.decode(runtime.encode("Hi", **options)) == wanted  # type: ignore[arg-type]
            assert report["stats"]["prompt_tokens"] == len(wanted)


def test_json_is_the_same_in_every_locale(spawn: Any, plain_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Jos\u00e9"
    folder.symlink_to(plain_engine)
    argv = ["inspect", folder, "--json"]
    documents = [json.loads(finish(spawn(*argv, env=env))[1]) for env in ({}, POSIX, {"PYTHONIOENCODING": "latin-1"})]
    assert documents[0]["engine"] == str(folder) and documents[0] == documents[1] == documents[2]


def test_a_prompt_of_bench_is_utf8_in_any_locale(spawn: Any, plain_engine: Path) -> None:
    code, out, err = finish(
        spawn("bench", plain_engine, "--prompt", "Jos\u00e9", "--runs", 1, "--warmup", 0, "--json", *QUICK, env=POSIX)
    )
    assert code == 0 and json.loads(out)["prompts"] == "Jos\u00e9", err


def test_marks_and_line_ends_of_windows_are_no_part_of_a_prompt(spawn: Any, plain_engine: Path) -> None:
    found = []
    for text in (b"Hi", b"\xef\xbb\xbfHi\r\n"):
        process = spawn("generate", plain_engine, "--json", *QUICK)
        out, _ = process.communicate(text, timeout=PROCESS_TIMEOUT_S)
        found.append(json.loads(out)["stats"]["prompt_tokens"])
    assert found[0] == found[1]


def test_stdin_is_read_for_one_thing(run: Any, plain_engine: Path) -> None:
    for argv in (["--draft-file", "-"], ["--tokens-file", "-", "--draft-file", "-"], ["-", "--draft-file", "-"]):
        code, _, err = run("generate", plain_engine, "--guarantee", "verified", *argv)
        assert code == 2 and err.startswith("error: stdin cannot be both the prompt and the draft")


def test_an_empty_system_turn_counts_as_given(run: Any, plain_engine: Path) -> None:
    code, _, err = run("generate", plain_engine, "--tokens", "2", "--system", "")
    assert (code, err) == (2, "error: --system is for text prompts, not for token ids\n")


@pytest.mark.parametrize("hidden", [None, "rich"])
def test_reports_are_printed_without_rich_and_without_columns(spawn: Any, plain_engine: Path, hidden: Any) -> None:
    hide = f"import sys; sys.modules[{hidden!r}] = sys.modules['rich.text'] = None\n" if hidden else "import sys\n"
    code = f"{hide}from dgrt.cli import main; sys.exit(main(sys.argv[1:]))"
    for argv, says in ((["doctor"], "native extension"), (["inspect", plain_engine], "vocabulary")):
        status, out, err = finish(spawn(*argv, code=code, env={"COLUMNS": "0"}))
        assert (status, err) == (0, "") and says in out
