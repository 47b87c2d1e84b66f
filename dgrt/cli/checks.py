"""The checks of `dgrt doctor`: each looks at one thing and says what was found or what to do.

Only here is `onnxruntime` imported, to ask for its providers. Nothing is changed or loaded for good.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from dgrt import _shadowed, errors
from dgrt._version import __version__
from dgrt.cli.display import human_bytes
from dgrt.hints import install_hint
from dgrt.ort import API_VERSION, ENVIRONMENT_VARIABLE, import_onnxruntime, library_candidates

_MIN_PYTHON = (3, 11)
_EXPORT_PACKAGES = ("torch", "onnx", "transformers", "safetensors")
# What the kernels dispatch on, and what later precisions will use; for each, what its absence means.
_CPU_FEATURES = {
    "avx2": "no 256-bit vectors: plain kernels run instead, several times slower",
    "avx512f": "no 512-bit vectors: avx2 kernels run instead, with about half the arithmetic per core",
    "avx512_bf16": "no products of bf16 pairs: bf16 engines multiply in fp32",
    "avx512_vnni": "no sums of products of bytes: int8 and int4 engines multiply int16, at half the rate",
    "amx_bf16": "no matrix tiles of bf16: bf16 engines multiply in vectors, several times slower",
    "amx_int8": "no matrix tiles of int8: int8 and int4 engines multiply in vectors, two to three times slower",
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report.

    Attributes:
        name: What was looked at.
        ok: Whether it is there and will do.
        detail: What was found.
        hint: What to do, or what its absence means; shown if it is not ok.
        required: Whether generation cannot run without it.
    """

    name: str
    ok: bool
    detail: str
    hint: str = ""
    required: bool = False


def all_checks() -> list[tuple[str, list[Check]]]:
    """Returns the checks by section.

    Example:
        >>> [section for section, _ in all_checks()]
        ['Runtime', 'Text', 'Export', 'Machine']
    """
    return [
        ("Runtime", [_python(), _native(), _ort_library(), _ort_providers()]),
        (
            "Text",
            [
                _package("tokenizers", "engines that take text", required=True),
                _package("jinja2", "chat"),
                _package("rich", "colours, --show"),
            ],
        ),
        ("Export", _export_packages()),
        ("Machine", [_cpu(), _threads(), *_cpu_features(), _memory()]),
    ]


def _python() -> Check:
    wanted = ".".join(str(part) for part in _MIN_PYTHON)
    return Check(
        name="Python",
        ok=sys.version_info >= _MIN_PYTHON,
        detail=f"{platform.python_version()} ({sys.executable})",
        hint=f"dgrt needs Python {wanted} or newer",
        required=True,
    )


def _native() -> Check:
    error = errors.native_import_error
    if error is None:
        from dgrt import _native

        detail = f"dgrt {__version__}, ABI {_native.abi_version} ({_native.__file__})"
        if _shadowed.set_aside is not None:
            sources = _shadowed.set_aside
            detail += f", not the sources in {sources}, which have no extension (to use them: pip install -e)"
    else:
        detail = f"cannot be loaded: {error}"
    return Check(
        name="native extension",
        ok=error is None,
        detail=detail,
        hint=install_hint(),
        required=True,
    )


def _ort_library() -> Check:
    """The library that the runtime would take, by the same rules: the first that can be opened decides."""
    detail, ok = [], False
    for path in library_candidates():
        try:
            found = ort_version(path)
        except OSError as error:
            detail.append(str(error))
            continue
        except (AttributeError, ValueError) as error:
            detail.append(f"{path}: not ONNX Runtime ({error})")
            break
        minor = re.match(r"1\.([0-9]+)", found)
        ok = minor is None or int(minor[1]) >= API_VERSION
        detail = [f"{found} ({path})" if ok else f"{path}: expected 1.{API_VERSION} or newer, found {found}"]
        break
    hint = f"pip install 'onnxruntime>=1.{API_VERSION}', or set {ENVIRONMENT_VARIABLE} to a libonnxruntime"
    return Check(name="ONNX Runtime", ok=ok, detail="; ".join(detail), hint=hint, required=True)


def ort_version(library: str | Path) -> str:
    """Returns the version an ONNX Runtime library reports about itself.

    Raises:
        OSError: If it cannot be loaded.
        AttributeError: If it is another library.

    Example:
        >>> ort_version(library_candidates()[0])[:2]
        '1.'
    """

    class ApiBase(ctypes.Structure):  # OrtApiBase of onnxruntime_c_api.h
        _fields_ = [("get_api", ctypes.c_void_p), ("get_version_string", ctypes.CFUNCTYPE(ctypes.c_char_p))]

    get_base = ctypes.CDLL(str(library)).OrtGetApiBase
    get_base.restype = ctypes.POINTER(ApiBase)
    text: bytes = get_base().contents.get_version_string()
    return text.decode()


def _ort_providers() -> Check:
    try:
        providers = ", ".join(import_onnxruntime().get_available_providers())
    except (Exception, SystemExit) as error:  # a broken wheel may raise anything
        return Check(name="providers", ok=False, detail=f"unknown: {error}", hint="only the wheel can list them")
    return Check(name="providers", ok=True, detail=providers)


def _package(name: str, purpose: str, hint: str = "", wanted: str = "", *, required: bool = False) -> Check:
    hint = hint or f"pip install {name}"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name=name, ok=False, detail=f"needed for {purpose}", hint=hint, required=required)
    ok = _within(found, wanted)
    detail = found if ok else f"expected {wanted} for {purpose}, found {found}"
    return Check(name=name, ok=ok, detail=detail, hint=hint, required=required)


def _within(found: str, wanted: str) -> bool:
    """Whether a version lies in a range such as ">=2.9,<2.15"; only its numbers count, not the end of "2.9+cpu"."""
    release = _numbers(found)
    bounds = [(operator, _numbers(bound)) for operator, bound in re.findall(r"(>=|<)\s*([\d.]+)", wanted)]
    return all(release >= bound if operator == ">=" else release < bound for operator, bound in bounds)


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _export_packages() -> list[Check]:
    ranges, hint = _export_ranges(), install_hint("export")
    return [_package(name, "dgrt export", hint, ranges.get(name, "")) for name in _EXPORT_PACKAGES]


def _export_ranges() -> dict[str, str]:
    """The versions that the `export` extra of the installed dgrt asks for; empty for a bare checkout."""
    try:
        lines = requires("dgrt") or []
    except PackageNotFoundError:
        return {}
    ranges = (re.match(r"([\w.-]+)\s*([<>=][^;]*?)\s*;.*extra\s*==\s*.export\b", line) for line in lines)
    return {found[1]: found[2] for found in ranges if found}


def cpu_model() -> str:
    """Returns the name of the CPU, as far as the system tells it.

    Example:
        >>> bool(cpu_model())
        True
    """
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _cpu() -> Check:
    return Check(name="CPU", ok=True, detail=cpu_model())


def _threads() -> Check:
    """The number that `Runtime` takes by default, and what decided it."""
    if errors.native_import_error is not None:
        return Check(name="threads", ok=True, detail="unknown without the native extension")
    count, reason = errors.native_module().usable_cpus()
    if given := os.environ.get("DGRT_THREADS"):
        return Check(name="threads", ok=True, detail=f"{given}: DGRT_THREADS (without it {count}: {reason})")
    return Check(name="threads", ok=True, detail=f"{count}: {reason}")


def _cpu_features() -> list[Check]:
    flags = _cpuinfo().get("flags", "").split()
    if not flags:
        return [Check(name="CPU features", ok=True, detail="not reported by this system")]
    return [
        Check(name=name, ok=name in flags, detail="present" if name in flags else "absent", hint=meaning)
        for name, meaning in _CPU_FEATURES.items()
    ]


def _memory() -> Check:
    amounts = {}
    for line in _lines("/proc/meminfo"):
        key, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            amounts[key] = int(words[0]) * 1024
    if "MemTotal" not in amounts:
        return Check(name="memory", ok=True, detail="not reported by this system")
    detail = f"{human_bytes(amounts['MemTotal'])}, {human_bytes(amounts.get('MemAvailable', 0))} available"
    limit = "".join(_lines("/sys/fs/cgroup/memory.max")[:1])
    if limit.isdecimal() and int(limit) < amounts["MemTotal"]:
        detail += f", this container may use {human_bytes(int(limit))}"
    return Check(name="memory", ok=True, detail=detail)


def _cpuinfo() -> dict[str, str]:
    """Returns the fields of the first CPU in /proc/cpuinfo; empty where there is none."""
    fields: dict[str, str] = {}
    for line in _lines("/proc/cpuinfo"):
        key, colon, value = line.partition(":")
        if not colon and fields:
            break
        fields[key.strip()] = value.strip()
    return fields


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
