"""Run by `make wheel-check` in a fresh environment that holds the built wheel and its base dependencies only.

    python wheel_check.py WHEELHOUSE ENGINE
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import dgrt
from dgrt import _native
from dgrt.ort import wheel_library


def check_runtime(engine: Path) -> None:
    """An engine runs, and so does the command line, without anything that exporting needs."""
    assert not [name for name in ("torch", "onnx", "transformers", "safetensors") if find_spec(name)]
    with dgrt.Runtime(engine, threads=1) as runtime:
        assert runtime.generate("json\nname=Ana Silva", max_new_tokens=8).tokens.size > 0
    command = Path(sys.executable).with_name("dgrt")
    subprocess.run([command, "inspect", engine], check=True)
    report = subprocess.run([command, "doctor", "--json"], check=True, capture_output=True, text=True).stdout
    assert json.loads(report)["ok"]


def main(wheelhouse: Path, engine: Path) -> None:
    (wheel,) = wheelhouse.glob("dgrt-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    native = (".h", ".cmake", ".pc", ".cc", ".pyc")
    unwanted = [name for name in names if name.endswith(native) or name.startswith(("tests", "csrc"))]
    assert not unwanted, unwanted
    for part in ("dgrt/libdgrt.so", "dgrt/_native.pyi", "dgrt/py.typed", "dgrt_export/contract.py", "LICENSE"):
        assert any(name.endswith(part) for name in names), part
    assert "site-packages" in _native.__file__ and not {"torch", "onnx", "transformers"} & set(sys.modules)
    library = ctypes.CDLL(str(Path(_native.__file__).parent / "libdgrt.so"))
    library.dgrt_version.restype = ctypes.c_char_p
    assert library.dgrt_version().decode() == dgrt.__version__ and wheel_library() is not None
    check_runtime(engine)
    print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.1f} MB, works")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
