"""Who may use whom. The tables are the rule: a new edge means changing them in the same commit."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

# csrc: folder -> folders whose headers it may include (its own and the standard library always).
NATIVE_EDGES: dict[str, set[str]] = {
    "common": set(),
    "kernels": {"common"},
    "memory": {"common"},
    "drafting": set(),
    "text": {"common"},
    "engine": {"common", "kernels"},  # kernels: the operators of the fused profile
    "runtime": {"common", "drafting", "kernels", "memory", "engine", "text"},
    "serving": {"common", "runtime"},
    # Siblings over the facade. Only the four shared headers of common, the facade, and (python, for tests of kernels)
    # the kernels' entry points: see FACADE_ONLY.
    "capi": {"common", "runtime", "serving", "text", "dgrt"},
    "python": {"common", "runtime", "serving", "kernels", "text", "dgrt"},
    "samples": {"dgrt"},
    "include": set(),
}
# Files of a folder that capi and python may include.
FACADE_ONLY = {
    "runtime": {"runtime.h", "options.h", "stats.h", "sink.h"},
    "kernels": {"kernels.h", "params.h"},
    "text": {"tokenizer.h", "detokenizer.h", "chat_template.h"},
}
# Third-party headers and the only files that may include them.
THIRD_PARTY = {
    r"onnxruntime_": {
        "ort_contract.cc", "ort_contract.h", "ort_engine.cc", "ort_error.h", "ort_executor.h", "ort_library.cc",
        "ort_operator.h", "ort_operators.cc", "ort_operators.h",
    },
    r"nlohmann/": {"json_reader.h", "json_server.cc"},
    r"pybind11/": {"folder python"},
    r"Python\.h": set(),
    r"cuda|cublas|cutlass": set(),
}  # fmt: skip

# Python package -> top-level modules it may import, beside the standard library and itself. None of them at import of
# `dgrt`: see test_imports in tests/unit for what `import dgrt` loads.
PYTHON_EDGES: dict[str, set[str]] = {
    "dgrt": {"numpy", "tokenizers", "jinja2", "rich", "onnxruntime", "dgrt_export", "dgrt_train"},
    "dgrt/reference": {"numpy", "torch", "transformers", "safetensors"},
    "export/dgrt_export": {"numpy", "torch", "onnx", "onnxruntime", "transformers", "safetensors", "tokenizers"},
    "export/dgrt_train": {"numpy", "torch", "transformers", "safetensors", "tokenizers", "dgrt", "dgrt_export"},
}
# Submodules that nobody else in the package may import.
PRIVATE_PARTS = {"dgrt.reference": ("dgrt/reference",)}


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(encoding="utf-8"), re.MULTILINE)


def native_files(repository: Path) -> list[Path]:
    suffixes = {".h", ".cc", ".c", ".inc", ".cu", ".cuh"}
    files = [path for path in sorted((repository / "csrc").rglob("*")) if path.suffix in suffixes]
    assert len(files) > 30
    return files


def test_every_native_folder_is_in_the_table(repository: Path) -> None:
    folders = {p.relative_to(repository / "csrc").parts[0] for p in native_files(repository)}
    assert folders <= NATIVE_EDGES.keys()


def test_native_includes_follow_the_table(repository: Path) -> None:
    root = repository / "csrc"
    broken = []
    for path in native_files(repository):
        folder = path.relative_to(root).parts[0]
        for name in includes(path):
            target = name.split("/")[0] if "/" in name else folder
            if not (root / name).is_file() and not (root / "include" / name).is_file():
                continue  # standard or third-party
            allowed = target == folder or target in NATIVE_EDGES[folder]
            if folder in {"capi", "python"} and target in FACADE_ONLY and target != folder:
                allowed = allowed and Path(name).name in FACADE_ONLY[target]
            if not allowed:
                broken.append(f"{path.relative_to(repository)}: {name}")
    assert not broken


def test_third_party_headers_stay_in_their_files(repository: Path) -> None:
    broken = []
    for path in native_files(repository):
        folder = path.relative_to(repository / "csrc").parts[0]
        for name in includes(path):
            for pattern, users in THIRD_PARTY.items():
                if re.match(pattern, name) and path.name not in users and f"folder {folder}" not in users:
                    broken.append(f"{path.relative_to(repository)}: {name}")
    assert not broken


def test_the_environment_is_read_in_one_place(repository: Path) -> None:
    readers = [p.relative_to(repository).as_posix() for p in native_files(repository) if "getenv(" in p.read_text()]
    assert readers == ["csrc/common/env.cc"]


def test_internal_headers_have_no_feature_switches(repository: Path) -> None:
    for path in native_files(repository):
        if path.suffix == ".h" and "include" not in path.parts:
            assert not re.search(r"^\s*#\s*if(n?def)?\b", path.read_text(), re.MULTILINE), path


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", PYTHON_EDGES)
def test_python_imports_follow_the_table(repository: Path, package: str) -> None:
    import sys

    nested = [other for other in PYTHON_EDGES if other.startswith(package + "/")]
    own = package.split("/")[-1] if package.startswith("export") else "dgrt"
    allowed = PYTHON_EDGES[package] | set(sys.stdlib_module_names) | {own}
    broken = []
    for path in sorted((repository / package).rglob("*.py")):
        if any((repository / other) in path.parents for other in nested):
            continue
        where = path.relative_to(repository)
        broken += [f"{where}: {name}" for name in imported(path) if name.split(".")[0] not in allowed]
    assert not broken


def test_private_parts_are_imported_by_themselves_only(repository: Path) -> None:
    for part, homes in PRIVATE_PARTS.items():
        for folder in ("dgrt", "export"):
            for path in sorted((repository / folder).rglob("*.py")):
                inside = any(repository / home in path.parents for home in homes)
                assert inside or not any(n == part or n.startswith(part + ".") for n in imported(path)), path
