"""The checks of `dgrt doctor` on machines that lack things."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from dgrt import errors
from dgrt.cli import checks, main
from dgrt.hints import install_hint
from dgrt.ort import API_VERSION, find_ort_library, library_candidates, wheel_library


def by_name() -> dict[str, checks.Check]:
    return {check.name: check for _, group in checks.all_checks() for check in group}


def test_a_missing_native_extension_fails_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(errors, "native_import_error", ImportError("no _native"))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "MISSING  native extension" in out and "no _native" in out and "pip install" in out


def test_the_number_of_threads_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from dgrt import _native

    monkeypatch.delenv("DGRT_THREADS", raising=False)
    for limit in ((2, "CPU quota of 2.5 of 16 CPUs (cgroup v2)"), (16, "all 16 CPUs")):
        monkeypatch.setattr(_native, "usable_cpus", lambda limit=limit: limit)
        assert by_name()["threads"].detail == f"{limit[0]}: {limit[1]}"
    monkeypatch.setenv("DGRT_THREADS", "3")
    assert by_name()["threads"].detail == "3: DGRT_THREADS (without it 16: all 16 CPUs)"


def test_the_installed_wheel_is_found_without_importing_it() -> None:
    import onnxruntime

    library = wheel_library()
    assert library is not None and library.parent.parent == Path(onnxruntime.__file__).parent
    assert checks.ort_version(library) == onnxruntime.__version__


def test_the_environment_variable_wins_over_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DGRT_ORT_LIBRARY", str(tmp_path / "none.so"))
    assert find_ort_library() == ""
    check = by_name()["ONNX Runtime"]
    assert not check.ok and check.required and str(tmp_path / "none.so") in check.detail


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DGRT_ORT_LIBRARY", raising=False)
    monkeypatch.setattr("dgrt.ort.wheel_library", lambda: None)


def test_without_a_wheel_the_places_of_the_native_search_are_tried(no_wheel: None, repository: Path) -> None:
    source = (repository / "csrc" / "engine" / "ort_library.cc").read_text()
    names = list(dict.fromkeys(re.findall(r'"(libonnxruntime\.[^"]*)"', source)))
    found = library_candidates()
    assert found[-2:] == names and [Path(path).name for path in found] == names * (len(found) // 2)


def test_no_library_at_all_is_reported_with_what_to_do(no_wheel: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgrt.ort._NATIVE_NAMES", ("libnot-there.so.1", "libnot-there.so"))
    check = by_name()["ONNX Runtime"]
    assert not check.ok and "libnot-there.so.1" in check.detail and "pip install 'onnxruntime>=1." in check.hint


def test_a_system_library_that_the_native_search_finds_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    library = wheel_library()
    monkeypatch.setattr(checks, "library_candidates", lambda: ["libnot-there.so.1", str(library)])
    check = by_name()["ONNX Runtime"]
    assert check.ok and check.detail.endswith(f"({library})")


@pytest.mark.parametrize(("version", "ok"), [("1.20.1", False), (f"1.{API_VERSION}.0", True), ("1.99.0", True)])
def test_a_library_that_is_too_old_is_not_good(monkeypatch: pytest.MonkeyPatch, version: str, ok: bool) -> None:
    monkeypatch.setattr(checks, "ort_version", lambda path: version)
    check = by_name()["ONNX Runtime"]
    assert check.ok == ok and version in check.detail
    assert ok or f"expected 1.{API_VERSION} or newer, found {version}" in check.detail


def test_the_api_version_is_what_the_package_depends_on(repository: Path) -> None:
    assert f'"onnxruntime>=1.{API_VERSION},' in (repository / "pyproject.toml").read_text()


def test_a_library_that_is_something_else_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes.util

    libm = ctypes.util.find_library("m")
    assert libm is not None
    monkeypatch.setenv("DGRT_ORT_LIBRARY", libm)
    assert not by_name()["ONNX Runtime"].ok


def test_a_missing_export_package_does_not_forbid_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_rich(name: str) -> str:
        if name != "rich":
            raise checks.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(checks, "version", only_rich)
    found = by_name()
    assert not found["torch"].ok and not found["torch"].required and "dgrt export" in found["torch"].detail
    assert found["torch"].hint == install_hint("export") and found["jinja2"].hint == "pip install jinja2"
    assert found["rich"].ok


@pytest.mark.parametrize(
    ("installed", "ok"),
    [("2.9.0", True), ("2.14.1+cpu", True), ("2.8.1", False), ("2.15.0", False), ("2.15.0a1", False), ("3", False)],
)
def test_an_export_package_outside_the_tested_range_is_told(
    monkeypatch: pytest.MonkeyPatch, installed: str, ok: bool
) -> None:
    wanted = ["numpy>=1.26", 'torch<2.15,>=2.9; extra == "export"', "onnx>=99; extra == 'other'"]
    monkeypatch.setattr(checks, "requires", lambda name: wanted)
    monkeypatch.setattr(checks, "version", lambda name: installed)
    found = by_name()
    assert found["torch"].ok == ok and found["onnx"].ok
    assert ok or found["torch"].detail == f"expected <2.15,>=2.9 for dgrt export, found {installed}"


def test_each_missing_cpu_feature_says_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        checks, "_lines", lambda path: ["model name : Old CPU", "flags : fpu avx2", "", "flags : other"]
    )
    found = by_name()
    assert found["avx2"].ok and "Old CPU" in found["CPU"].detail
    for name in ("avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"):
        assert not found[name].ok and found[name].hint


def test_the_memory_limit_of_a_container_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/proc/meminfo": ["MemTotal: 4194304 kB", "MemAvailable: 2097152 kB"]}
    for limit, told in (("1073741824", True), ("max", False), (str(2**50), False)):
        files["/sys/fs/cgroup/memory.max"] = [limit]
        monkeypatch.setattr(checks, "_lines", lambda path: files.get(path, []))
        detail = by_name()["memory"].detail
        assert detail.startswith("4.0 GiB, 2.0 GiB available") and ("1.0 GiB" in detail) == told


def test_a_system_without_proc_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_lines", lambda path: [])
    found = by_name()
    assert found["CPU features"].ok and found["memory"].ok


def test_the_json_report_has_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] == (code == 0)
    assert {"section", "name", "ok", "detail", "hint", "required"} == set(report["checks"][0])
    assert {check["name"] for check in report["checks"]} == set(by_name())


@pytest.mark.parametrize("content", ["", "raise SystemExit(9)", "raise ImportError('no library')"])
def test_a_broken_wheel_does_not_end_the_doctor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    check = by_name()["providers"]
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    assert not check.ok and check.detail.startswith("unknown: ")


def test_without_tokenizers_engines_that_take_text_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(checks, "version", missing)
    assert by_name()["tokenizers"].required and not by_name()["tokenizers"].ok
