"""`dgrt export` as a user types it: one-line errors, exit codes, --json, plain progress without a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dgrt.cli import main
from dgrt.hints import install_hint

STAGES = ["read config", "check weights", "trace", "lower", "weights", "parity", "hash"]


@pytest.fixture
def run(capsys):
    def run(*words):
        status = main(["export", *map(str, words)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_a_good_export_prints_a_summary_and_its_stages(run, checkpoints, tmp_path):
    status, out, err = run(checkpoints("plain"), "-o", tmp_path / "e")
    assert status == 0 and "linked" in out
    figures = r"\S+ absolute, \S+ of the largest value, limit 1.0e-04: passed"
    assert re.search(rf"\n  parity with transformers [\d.]+: {figures}\n", out)
    assert "weights are shared with the checkpoint: writing into its files in place changes the engine" in out
    assert [line.split(":")[0] for line in err.splitlines()] == STAGES


def test_json_is_the_only_thing_on_standard_output(run, checkpoints, tmp_path):
    status, out, _ = run(checkpoints("plain"), "-o", tmp_path / "e", "--precision", "bf16", "--moe", "loop", "--json")
    report = json.loads(out)
    assert status == 0 and report["weights"] == "converted"
    assert report["manifest"]["parity"]["max_rel_error"] < report["manifest"]["parity"]["limit"] == 1e-4
    assert report["manifest"] == json.loads((tmp_path / "e" / "manifest.json").read_text())
    assert list(report["seconds"]) == STAGES


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


def test_debugging_shows_where_an_export_failed(run, tmp_path, monkeypatch):
    from dgrt_export import InvalidCheckpoint

    from dgrt.cli import CommandError

    monkeypatch.setenv("DGRT_DEBUG", "1")
    with pytest.raises(CommandError) as caught:
        run(tmp_path / "none", "-o", tmp_path / "e")
    assert isinstance(caught.value.__cause__, InvalidCheckpoint)


@pytest.mark.parametrize("package", ["torch", "dgrt_export"])
def test_without_the_export_extra_the_last_line_says_what_to_install(repository, checkpoints, tmp_path, package):
    code = f"import sys; sys.modules[{package!r}] = None; from dgrt.cli import main; sys.exit(main())"
    path = os.pathsep.join([str(repository), str(repository / "export")])
    command = [sys.executable, "-c", code, "export", str(checkpoints("plain")), "-o", str(tmp_path / "e")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr
    assert last.startswith(f"error: export: expected the export extra ({install_hint('export')}), found ")
    assert package in last and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("published", "told"), [(True, "but {} is written"), (False, "nothing written")])
@pytest.mark.parametrize("existing", [True, False])
def test_an_interrupted_export_says_whether_the_package_is_there(run, tmp_path, monkeypatch, published, told, existing):
    import dgrt_export
    from dgrt_export.package import staged, write_manifest

    def export(checkpoint, output, **options):
        if published:
            with staged(Path(output), force=True) as folder:
                write_manifest(folder, {"format": "dgrt-engine"})
        raise KeyboardInterrupt

    engine = tmp_path / "e"
    if existing:
        with staged(engine, force=False) as folder:
            write_manifest(folder, {"format": "dgrt-engine"})
    monkeypatch.setattr(dgrt_export, "export", export, raising=False)
    assert run(tmp_path, "-o", engine) == (130, "", f"interrupted, {told.format(engine)}\n")


def test_a_long_stage_says_now_and_then_how_far_it_is(capsys, monkeypatch):
    from dgrt.cli import export

    times = iter([0.0, 1.0, 11.0, 12.0, 22.0, 23.0])
    monkeypatch.setattr(export.time, "monotonic", lambda: next(times))
    show = export._plain_progress()
    for done in range(5):
        show("parity", done, 4)
    show("hash", 0, 2048)
    assert capsys.readouterr().err.splitlines() == ["parity: 0 / 4", "parity: 2 / 4", "hash: 0 B / 2.0 KiB"]
