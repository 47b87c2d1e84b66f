"""The command line without an engine: help texts, argument parsing, one-line errors, exit codes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from dgrt.cli import VERBS, CommandError, arguments, build_parser, display, main


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0 and "examples:" in out and f"dgrt {verb}" in out


def test_the_help_of_dgrt_lists_every_verb_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["--help"]):
        code, out, _ = run(capsys, *argv)
        assert code == 0 and "examples:" in out and all(verb in out for verb in VERBS)


def test_every_option_has_a_help_text() -> None:
    for parser in build_parser()[1].values():
        for action in parser._actions:
            assert action.help, (parser.prog, action.dest)


def test_version_prints_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    import dgrt

    assert run(capsys, "--version")[:2] == (0, f"dgrt {dgrt.__version__}\n")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["generat"], "did you mean 'generate'"),
        (["--verson"], "unrecognized argument --verson"),
        (["generate"], "ENGINE"),
        (["generate", "e", "p", "--sed", "1"], "did you mean '--seed'"),
        (["generate", "e", "p", "--max-new", "1"], "did you mean '--max-new-tokens'"),
        (["generate", "e", "p", "extra"], "unrecognized argument 'extra'"),
        (["generate", "e", "p", "--seed", "x"], "'x' is not an integer"),
        (["generate", "e", "p", "--seed", "-1"], "seed must be between"),
        (["generate", "e", "p", "--max-new-tokens", "-1"], "max_new_tokens must be at least 1"),
        (["generate", "e", "p", "--t-min", "warm"], "'warm' is not a number"),
        (["generate", "e", "p", "--guarantee", "lossless"], "must be one of exact, causal, verified; got"),
        (["generate", "e", "p", "--drafter", "eagle"], "must be one of none, suffix, model, auto, overlap; got"),
        (["generate", "e", "p", "--drafter", "suffix"], "needs guarantee 'causal'"),
        (["generate", "e", "p", "--drafter", "overlap"], "needs guarantee 'verified', got guarantee 'exact'"),
        (["generate", "e", "p", "--pipeline", "always"], "must be one of auto, off, on; got"),
        (["generate", "e", "p", "--guarantee", "causal", "--pipeline", "on"], "pipeline 'on' needs guarantee 'exact'"),
        (["generate", "e", "p", "--guarantee", "causal", "--logprobs"], "logprobs needs guarantee 'exact'"),
        (["generate", "e", "p", "--pipeline", "on", "--logprobs"], "must be 'auto' or 'off'"),
        (["generate", "e", "p", "--guarantee", "causal", "--t-max", "1"], "t_max needs guarantee 'exact'"),
        (["generate", "e", "p", "--temperature", "1"], "temperature needs guarantee 'causal'"),
        (["generate", "e", "p", "--show", "--json"], "not allowed with"),
        (["generate", "e", "p", "--tokens", "1"], "not several"),
        (["generate", "e", "--tokens", "1,x"], "'x' is not a token id"),
        (["generate", "e", "--tokens", ""], "no token ids"),
        (["generate", "e", "--tokens", "1", "--raw"], "--raw is for text"),
        (["generate", "e", "--tokens", "1", "--system", "s"], "--system is for text"),
        (["generate", "e", "p", "--raw", "--system", "s"], "--system needs the chat template"),
        (["generate", "e", ""], "the prompt is empty"),
        (["generate", "e", "--tokens-file", "/no/such/file"], "No such file"),
        (["generate", "e", "p", "--trace", "/no/such/folder/t.npz"], "no such folder"),
        (["generate", "e", "p", "--trace", "/"], "cannot write"),
        (["generate", "e", "p", "--trace", __file__], "found another kind of file"),
        (["generate", "e", "p", "--trace", "-", "--json"], "writes the trace to stdout"),
        (["generate", "e", "p", "--memory-limit", "much"], "'much' is not a size"),
        (["bench", "e", "--runs", "0"], "--runs must be at least 1"),
        (["bench", "e", "--prompt", "x", "--prompts-file", "y"], "not allowed with"),
        (["bench", "e", "--prompts-file", "/no/such/file"], "No such file"),
        (["inspect"], "ENGINE"),
    ],
)
def test_a_wrong_use_is_one_line_on_stderr_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], argv: list[str], says: str
) -> None:
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and says in err


@pytest.mark.parametrize("verb", ["generate", "inspect", "bench"])
def test_an_engine_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str) -> None:
    prompt = ["x"] if verb == "generate" else []
    code, _, err = run(capsys, verb, str(tmp_path / "none"), *prompt)
    assert code == 2 and str(tmp_path / "none") in err and "no such folder" in err


def test_a_checkpoint_given_as_engine_tells_how_to_export_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    code, _, err = run(capsys, "inspect", str(tmp_path))
    assert code == 2 and "is a checkpoint, not an engine" in err and "dgrt export" in err


def test_an_interrupt_ends_with_130_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("dgrt.cli.doctor.run", interrupted)
    assert run(capsys, "doctor") == (130, "", "interrupted\n")


def test_an_interrupted_verb_may_say_what_it_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_args: argparse.Namespace) -> int:
        raise KeyboardInterrupt("nothing written")

    monkeypatch.setattr("dgrt.cli.doctor.run", interrupted)
    assert run(capsys, "doctor") == (130, "", "interrupted, nothing written\n")


def test_a_command_error_may_choose_its_exit_code_and_is_raised_when_debugging(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(_args: argparse.Namespace) -> int:
        raise CommandError("no\nway", 1)

    monkeypatch.setattr("dgrt.cli.doctor.run", failed)
    monkeypatch.delenv("DGRT_DEBUG", raising=False)
    assert run(capsys, "doctor") == (1, "", "error: no way\n")
    monkeypatch.setenv("DGRT_DEBUG", "1")
    with pytest.raises(CommandError):
        main(["doctor"])


def test_a_defect_is_one_line_unless_debugging(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_args: argparse.Namespace) -> int:
        raise AttributeError("no\nsuch thing")

    monkeypatch.setattr("dgrt.cli.doctor.run", broken)
    monkeypatch.delenv("DGRT_DEBUG", raising=False)
    code, _, err = run(capsys, "doctor")
    assert code == 2 and err == "error: AttributeError: no such thing (DGRT_DEBUG=1 shows where)\n"
    monkeypatch.setenv("DGRT_DEBUG", "1")
    with pytest.raises(AttributeError):
        main(["doctor"])


def test_a_missing_package_is_named_with_the_verb_that_needs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def needs_torch(_args: argparse.Namespace) -> int:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("dgrt.cli.doctor.run", needs_torch)
    code, _, err = run(capsys, "doctor")
    assert code == 2 and "dgrt doctor needs a package that is missing: No module named 'torch'" in err


@pytest.mark.parametrize(
    ("text", "ids"),
    [("1", [1]), ("1,2", [1, 2]), (" [1, 2,\n3 ]\n", [1, 2, 3]), ("1 2\t3", [1, 2, 3]), ("1,2,", [1, 2])],
)
def test_token_ids_may_be_separated_by_commas_and_spaces(text: str, ids: list[int]) -> None:
    assert arguments.token_ids(text) == ids


@pytest.mark.parametrize(
    ("text", "count"),
    [("512", 512), ("1K", 1024), ("1.5M", 1_572_864), ("2GiB", 2**31), ("2 gb", 2**31), ("1T", 2**40)],
)
def test_sizes_have_binary_units(text: str, count: int) -> None:
    assert arguments.size(text) == count


@pytest.mark.parametrize("text", ["", "-1", "G", "1X", "1.2.3", "one"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        arguments.size(text)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2**31, "2.0 GiB"), (3 * 2**50, "3072.0 TiB")]
)
def test_bytes_are_shown_in_the_largest_fitting_unit(count: int, text: str) -> None:
    assert display.human_bytes(count) == text


@pytest.mark.parametrize("verb", ["generate", "bench"])
def test_the_help_states_the_default_length_in_force(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    prompt = ["p"] if verb == "generate" else []
    default = build_parser()[0].parse_args([verb, "e", *prompt]).max_new_tokens
    told = "until a stop id or the context ends" if default is None else str(default)
    assert f"most tokens (default: {told})" in " ".join(run(capsys, verb, "--help")[1].split())


def test_progress_is_lines_on_stderr_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with display.progress_line() as show:
        show("run 1 of 2")
        show("run 2 of 2")
    assert capsys.readouterr() == ("", "run 1 of 2\nrun 2 of 2\n")


def test_every_sampler_option_reaches_the_generation() -> None:
    argv = [
        "generate", "e", "p", "--seed", "3", "--max-new-tokens", "9", "--stop-ids", "1,2", "--max-denoising-steps", "4",
        "--entropy-bound", "0.2", "--t-min", "0.3", "--t-max", "0.7", "--stability-threshold", "2",
        "--confidence-threshold", "0.01",
    ]  # fmt: skip
    options = arguments.generate_options(build_parser()[0].parse_args(argv), trace=True)
    wanted: dict[str, Any] = {
        "seed": 3, "max_new_tokens": 9, "stop_ids": (1, 2), "max_denoising_steps": 4, "entropy_bound": 0.2,
        "t_min": 0.3, "t_max": 0.7, "stability_threshold": 2, "confidence_threshold": 0.01, "trace": True, "raw": False,
    }  # fmt: skip
    assert {name: getattr(options, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("argv", "prompt"),
    [
        (["engine", "--json", "Hi"], "Hi"), (["engine", "--seed", "1", "-"], "-"),
        (["--seed", "1", "engine", "Hi"], "Hi"),
        (["engine", "--json", "--", "-x"], "-x"), (["engine", "--", "-x"], "-x"), (["engine", "--json", ""], ""),
        (["engine", "Hi", "--json"], "Hi"), (["engine", "--json"], None),
    ],
)  # fmt: skip
def test_a_prompt_may_stand_behind_options(argv: list[str], prompt: str | None) -> None:
    parser, _ = build_parser()
    args, unknown = parser.parse_known_args(["generate", *argv])
    assert (args.engine, args.prompt, unknown) == ("engine", prompt, [])


@pytest.mark.parametrize("argv", [["engine", "--sede", "5"], ["engine", "a", "b"], ["engine", "--json", "a", "b"]])
def test_an_argument_too_many_is_still_refused(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert main(["generate", *argv]) == 2
    assert capsys.readouterr().err.startswith("error: unrecognized argument '")
