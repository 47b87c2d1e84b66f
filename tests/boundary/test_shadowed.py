"""A clone beside an installed package: sources without the native extension step aside, whatever starts Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import dgrt
from dgrt import _native

PROBE = "import dgrt, dgrt.cli; print(dgrt.__file__, dgrt.cli.__file__, dgrt._native.__file__, dgrt.Runtime.__module__)"
SITE_PACKAGES = Path(numpy.__file__).parents[1]  # numpy, pytest, rich: no .pth file of it is read


def copy_sources(to: Path) -> Path:
    shutil.copytree(Path(dgrt.__file__).parent, to, ignore=shutil.ignore_patterns("models", "__pycache__", "*.so"))
    return to


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("clone") / "dgrt").parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = copy_sources(tmp_path_factory.mktemp("installed") / "dgrt")
    for library in Path(_native.__file__).parent.glob("*.so"):
        (package / library.name).symlink_to(library)
    return package.parent


def python(folder: Path, *arguments: str, path: list[Path]) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder, without the editable installation that the tests themselves use."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, SITE_PACKAGES]))}
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("how", ["code", "script", "pytest"])
def test_sources_without_an_extension_step_aside(clone: Path, installed: Path, tmp_path: Path, how: str) -> None:
    (clone / "script.py").write_text(PROBE)
    (clone / "test_probe.py").write_text(f"def test_probe():\n    {PROBE}\n")
    arguments = {"code": ["-c", PROBE], "script": ["script.py"], "pytest": ["-m", "pytest", "-qsp", "no:cacheprovider"]}
    done = python(clone, *arguments[how], path=[installed])
    assert done.returncode == 0, done.stdout + done.stderr
    found = done.stdout.splitlines()[0].removesuffix(".").split()
    assert [Path(one).is_relative_to(installed / "dgrt") for one in found[:3]] == [True] * 3, found
    assert found[3] == "dgrt.runtime"


def test_the_command_of_a_clone_says_which_package_it_uses(clone: Path, installed: Path) -> None:
    done = python(clone, "-m", "dgrt", "doctor", "--json", path=[installed])
    (check,) = (one for one in json.loads(done.stdout)["checks"] if one["name"] == "native extension")
    assert check["ok"] and str(installed) in check["detail"]
    assert f"not the sources in {clone / 'dgrt'}" in check["detail"]


def test_an_installed_package_of_another_python_is_not_taken(clone: Path, tmp_path: Path) -> None:
    other = copy_sources(tmp_path / "dgrt")
    (other / "_native.cpython-27-none.so").touch()
    done = python(clone, "-c", "import dgrt; print(dgrt.__file__)", path=[tmp_path])
    assert done.returncode == 0 and Path(done.stdout.strip()).is_relative_to(clone)


def test_without_an_installed_package_the_error_names_folder_and_remedy(clone: Path) -> None:
    done = python(clone, "-c", "from dgrt.errors import native_module; native_module()", path=[])
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("dgrt.errors.Unsupported: the native extension cannot be loaded")
    assert f"{clone / 'dgrt'} has none" in last and "; pip install " in last


def test_a_package_with_an_extension_stays(installed: Path, clone: Path) -> None:
    done = python(installed, "-c", PROBE, path=[clone])
    assert done.returncode == 0 and Path(done.stdout.split()[0]).is_relative_to(installed)


def test_a_working_folder_that_is_gone_does_no_harm(clone: Path, installed: Path, tmp_path: Path) -> None:
    gone = "import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"
    code = f"{gone}; sys.path.insert(1, {str(clone)!r})\n{PROBE}"
    done = python(tmp_path, "-c", code, path=[installed])
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.split()[0]).is_relative_to(installed)
