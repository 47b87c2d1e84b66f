"""The exported symbols of libdgrt are exactly the functions of dgrt.h, and the extension exports its entry only."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from boundary import c_api

from dgrt import _native


def exported(library: Path) -> set[str]:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm (binutils) is not installed")
    output = subprocess.check_output([nm, "-D", "--defined-only", str(library)], text=True)
    return {line.split()[-1].split("@")[0] for line in output.splitlines()}


def declared(repository: Path) -> set[str]:
    header = (repository / "csrc/include/dgrt/dgrt.h").read_text(encoding="utf-8")
    return set(re.findall(r"^DGRT_API [^(]*?\b(dgrt_\w+)\(", header, re.MULTILINE))


def test_header_list_and_library_name_the_same_functions(repository: Path) -> None:
    listed = set(re.findall(r"^ +(dgrt_\w+);", (repository / "csrc/capi/exports.map").read_text(), re.MULTILINE))
    assert len(listed) == 50
    assert declared(repository) == listed
    assert exported(c_api.library_path()) == listed


def test_the_ctypes_view_covers_every_function(repository: Path) -> None:
    assert all(hasattr(c_api.LIB, name) for name in declared(repository))


def test_the_extension_exports_its_entry_and_its_operators_only() -> None:
    assert exported(Path(_native.__file__)) == {"PyInit__native", "RegisterCustomOps"}


def test_versions_agree(repository: Path) -> None:
    import dgrt

    assert c_api.LIB.dgrt_version().decode() == _native.__version__ == dgrt.__version__
    assert c_api.LIB.dgrt_abi_version() == _native.abi_version


def test_nothing_links_onnx_runtime_or_python() -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf (binutils) is not installed")
    output = subprocess.check_output([readelf, "-d", str(c_api.library_path())], text=True)
    needed = re.findall(r"NEEDED.*\[(.*?)\]", output)
    assert needed and not [name for name in needed if "onnxruntime" in name or "python" in name]
