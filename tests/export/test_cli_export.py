"""`dgrt export` as a user types it: one-line errors, exit codes, --json, plain progress without a terminal."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import pytest

_VERB = Path(__file__).resolve().parents[2] / "dgrt" / "cli" / "export.py"


@pytest.fixture(scope="module")
def verb():
    spec = importlib.util.spec_from_file_location("export_verb", _VERB)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(verb, capsys):
    def run(*words):
        parser = argparse.ArgumentParser(prog="dgrt")
        verb.add_parser(parser.add_subparsers(required=True))
        status = verb.run(parser.parse_args(["export", *map(str, words)]))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_a_good_export_prints_a_summary_and_its_stages(run, checkpoints, tmp_path):
    status, out, err = run(checkpoints("plain"), "-o", tmp_path / "e")
    assert status == 0 and "parity    max error" in out and "linked" in out
    assert [line.split(":")[0] for line in err.splitlines()] == [
        "read config",
        "trace",
        "lower",
        "weights",
        "parity",
        "hash",
    ]


def test_json_is_the_only_thing_on_standard_output(run, checkpoints, tmp_path):
    status, out, _ = run(checkpoints("plain"), "-o", tmp_path / "e", "--precision", "bf16", "--moe", "loop", "--json")
    report = json.loads(out)
    assert status == 0 and report["weights"] == "converted"
    assert report["manifest"] == json.loads((tmp_path / "e" / "manifest.json").read_text())
    assert set(report["seconds"]) == {"read config", "trace", "lower", "weights", "parity", "hash"}


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "wrong architecture", "broken json"])
def test_a_wrong_input_is_one_line_and_status_two(run, tmp_path, kind):
    source = tmp_path / "c"
    if kind == "file":
        source.write_text("x")
    elif kind != "missing":
        source.mkdir()
    if kind == "wrong architecture":
        (source / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    if kind == "broken json":
        (source / "config.json").write_text("{")
    status, out, err = run(source, "-o", tmp_path / "e")
    assert status == 2 and out == "" and len(err.splitlines()) == 1
    assert err.startswith("error: ") and "expected" in err and "found" in err
    assert not (tmp_path / "e").exists()


def test_a_failed_parity_check_is_status_one(run, checkpoints, tmp_path, monkeypatch):
    from dgrt_export import check

    monkeypatch.setattr(check, "TOLERANCE", 1e-12)
    status, out, err = run(checkpoints("plain"), "-o", tmp_path / "e")
    assert status == 1 and out == "" and err.splitlines()[-1].startswith("error: parity of ")
    assert not (tmp_path / "e").exists()


def test_help_has_examples(verb, capsys):
    parser = argparse.ArgumentParser(prog="dgrt")
    verb.add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["export", "--help"])
    assert "examples:" in capsys.readouterr().out
