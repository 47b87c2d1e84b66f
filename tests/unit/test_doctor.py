"""The checks of `dgrt doctor` on machines that lack things."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dgrt import errors
from dgrt.cli import checks, main
from dgrt.ort import find_ort_library, wheel_library


def by_name() -> dict[str, checks.Check]:
    return {check.name: check for _, group in checks.all_checks() for check in group}


def test_a_missing_native_extension_fails_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(errors, "native_import_error", ImportError("no _native"))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "MISSING  native extension" in out and "no _native" in out and "pip install" in out


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


def test_no_wheel_at_all_is_reported_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DGRT_ORT_LIBRARY", raising=False)
    monkeypatch.setattr(checks, "wheel_library", lambda: None)
    check = by_name()["ONNX Runtime"]
    assert not check.ok and "pip install onnxruntime" in check.hint


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
    assert found["rich"].ok


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
