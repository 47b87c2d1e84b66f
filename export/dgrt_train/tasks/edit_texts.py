"""Endless line sources for the edit task: four styles of short code and text.

Lines are stripped-unique only by the caller's choice; every line is short enough
to be quoted in an instruction.
"""
import random
from collections.abc import Iterator

from .words import ADJECTIVE, IDENTIFIER, NOUN, VERB


def code_line(rng: random.Random, style: str, names: list[str] | None = None) -> str:
    """One line in the given style, without indentation."""
    x, y, z = (rng.choice(names) for _ in range(3)) if names else rng.sample(IDENTIFIER, 3)
    n, op = rng.randint(0, 99), rng.choice("+-*")
    if style == "python":
        return rng.choice((f"{x} = {y} {op} {z}", f"{x} = {n}", f"{x} += {y}", f"print({x})", f"{x} = {y}[{z}]",
                           f"{x}.append({y})", f"{x} = len({y})", f"{x} = {y}({z}, {n})"))
    if style == "c":
        return rng.choice((f"int {x} = {n};", f"{x} = {y} {op} {z};", f"{x}++;", f"{x}[{y}] = {z};",
                           f"float {x} = {y};", f"{x} = {y}({z});", f"free({x});"))
    if style == "config":
        return rng.choice((f"{x}: {n}", f"{x}: {rng.choice(NOUN)}", f"{x}_{y}: {n}", f"{x}: true", f"{x}: false",
                           f"{x}: {rng.choice(ADJECTIVE)}"))
    a, b = rng.choice(ADJECTIVE), rng.choice(NOUN)
    return rng.choice((f"{rng.choice(VERB)} the {a} {b}", f"{n} {a} {b}s", f"the {b} is {a}",
                       f"{rng.choice(VERB)} {n} {b}s", f"a {b} and a {rng.choice(NOUN)}"))


def _python(rng: random.Random) -> Iterator[str]:
    names = rng.sample(IDENTIFIER, rng.randint(3, 6))
    indent = ""
    while True:
        roll = rng.random()
        if not indent and roll < 0.5:
            x, y = rng.choice(names), rng.choice(names)
            yield rng.choice((f"def {x}({y}):", f"for {x} in {y}:", f"if {x} > {y}:", f"while {x} < {y}:"))
            indent = "    "
        yield indent + code_line(rng, "python", names)
        if indent and roll < 0.25:
            indent = ""


def _c(rng: random.Random) -> Iterator[str]:
    names = rng.sample(IDENTIFIER, rng.randint(3, 6))
    while True:
        if rng.random() < 0.2:
            x, y = rng.choice(names), rng.choice(names)
            yield rng.choice((f"if ({x} < {y}) {x} = {y};", f"while ({x}) {y}++;", f"return {x};"))
        yield code_line(rng, "c", names)


def _plain(style: str):
    def lines(rng: random.Random) -> Iterator[str]:
        while True:
            yield code_line(rng, style)

    return lines


SOURCES = {"python": _python, "c": _c, "config": _plain("config"), "text": _plain("text")}
