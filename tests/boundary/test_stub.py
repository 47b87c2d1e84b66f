"""dgrt/_native.pyi says exactly what the extension has: names, parameters, kinds, defaults, bases, properties."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

from dgrt import _native

Parameter = tuple[str, str, str | None]  # name, kind (positional or keyword), default as source


@pytest.fixture(scope="module")
def stub(repository: Path) -> ast.Module:
    return ast.parse((repository / "dgrt/_native.pyi").read_text(encoding="utf-8"))


def public_names(module: Any) -> set[str]:
    return {name for name in vars(module) if not name.startswith("_") or name == "__version__"}


def stub_parameters(function: ast.FunctionDef) -> list[Parameter]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    listed = [(a.arg, "positional", d and ast.unparse(d)) for a, d in zip(positional, defaults, strict=True)]
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return listed + [(a.arg, "keyword", d and ast.unparse(d)) for a, d in keywords]


def native_parameters(function: Any) -> list[Parameter]:
    """From the signature that pybind11 writes as the first line of the docstring; its annotations differ in detail."""
    line = (function.__doc__ or "").splitlines()[0]
    signature = line[line.index("(") : line.rindex(" -> ")]
    parsed = ast.parse(f"def f{signature}: ...").body[0]
    assert isinstance(parsed, ast.FunctionDef)
    return stub_parameters(parsed)


def normal(parameters: list[Parameter]) -> list[Parameter]:
    return [(name, kind, default and str(ast.literal_eval(default))) for name, kind, default in parameters]


def functions(body: list[ast.stmt]) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def is_property(node: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list)


def test_the_same_names(stub: ast.Module) -> None:
    declared = {node.name for node in stub.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    declared |= {ast.unparse(node.target) for node in stub.body if isinstance(node, ast.AnnAssign)}
    assert declared == public_names(_native)


def test_functions_have_the_same_parameters(stub: ast.Module) -> None:
    for name, node in functions(stub.body).items():
        assert normal(native_parameters(getattr(_native, name))) == normal(stub_parameters(node)), name


@pytest.mark.parametrize("name", ["Runtime", "Options", "Session", "Request", "Scheduler"])
def test_classes_have_the_same_members(stub: ast.Module, name: str) -> None:
    declared = next(node for node in stub.body if isinstance(node, ast.ClassDef) and node.name == name)
    members = functions(declared.body)
    native = getattr(_native, name)
    assert {m for m in members if not m.startswith("_")} == {m for m in vars(native) if not m.startswith("_")}
    for member, node in members.items():
        found = inspect.getattr_static(native, member)
        assert isinstance(found, property) == is_property(node), member
        if not isinstance(found, property):
            assert normal(native_parameters(getattr(native, member))) == normal(stub_parameters(node)), member


def test_exceptions_have_the_same_bases(stub: ast.Module) -> None:
    checked = 0
    for node in stub.body:
        if isinstance(node, ast.ClassDef) and node.bases:
            found = getattr(_native, node.name)
            assert [base.__name__ for base in found.__bases__] == [ast.unparse(base) for base in node.bases]
            assert found.__module__ == "dgrt" and found.__doc__
            checked += 1
    assert checked == 10
