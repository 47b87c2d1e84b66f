"""Run by `make wheel-check` in a fresh environment that holds the built wheel and its base dependencies only.

    python wheel_check.py CLONE
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import dgrt
from dgrt import _native
from dgrt.ort import wheel_library

PROBE = "import dgrt; rt = dgrt.Runtime({!r}); print(dgrt.__file__, rt.generate('json\\nn=2', max_new_tokens=96).text)"


def check_files(wheel: Path) -> int:
    """The wheel holds what it should, and no weights twice; returns the number of its files."""
    infos = zipfile.ZipFile(wheel).infolist()
    names = [info.filename for info in infos]
    native = (".h", ".cmake", ".pc", ".cc", ".pyc")
    unwanted = [name for name in names if name.endswith(native) or name.startswith(("tests", "csrc"))]
    assert not unwanted, unwanted
    wanted = (
        "dgrt/libdgrt.so", "dgrt/_native.pyi", "dgrt/py.typed", "dgrt_export/contract.py", "LICENSE",
        "dgrt/models/mini-engine/manifest.json", "dgrt/models/README.md",
    )  # fmt: skip
    for part in wanted:
        assert any(name.endswith(part) for name in names), part
    contents = Counter((info.CRC, info.file_size) for info in infos if info.file_size > 100_000)
    assert max(contents.values()) == 1, "a large file is there twice"
    return len(names)


def check_commands() -> None:
    """The command line works without anything that exporting needs."""
    assert not [name for name in ("torch", "onnx", "transformers", "safetensors") if find_spec(name)]
    command = Path(sys.executable).with_name("dgrt")

    def output(*arguments: str) -> str:
        return subprocess.run([command, *arguments], check=True, capture_output=True, text=True).stdout

    demo = json.loads(output("demo", "--json"))
    assert demo["solved"] and "site-packages" in demo["engine"]
    assert "solved: " in output("demo") and "mini" in output("inspect", output("demo", "--path").strip())
    assert json.loads(output("doctor", "--json"))["ok"]


def check_inside(clone: Path) -> None:
    """Python that starts inside the clone uses the installed package, not the sources without an extension."""
    assert not list((clone / "dgrt").glob("_native*.so"))
    engine = str(Path(dgrt.__file__).parent / "models" / "mini-engine")
    for command in (["-c", PROBE.format(engine)], ["-m", "dgrt", "demo"]):
        done = subprocess.run([sys.executable, *command], cwd=clone, check=True, capture_output=True, text=True)
        assert 'site-packages/dgrt/__init__.py {"n":2}' in done.stdout or "solved: " in done.stdout, done.stdout


def main(clone: Path) -> None:
    (wheel,) = (clone / "build" / "wheelhouse").glob("dgrt-*.whl")
    count = check_files(wheel)
    assert "site-packages" in _native.__file__ and not {"torch", "onnx", "transformers"} & set(sys.modules)
    library = ctypes.CDLL(str(Path(_native.__file__).parent / "libdgrt.so"))
    library.dgrt_version.restype = ctypes.c_char_p
    assert library.dgrt_version().decode() == dgrt.__version__ and wheel_library() is not None
    check_commands()
    check_inside(clone)
    print(f"{wheel.name}: {count} files, {wheel.stat().st_size / 1e6:.1f} MB, works")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
