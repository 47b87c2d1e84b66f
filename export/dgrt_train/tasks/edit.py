"""Instructed edits of short code and text; the answer is the whole edited text.

Operations: rename an identifier, replace a word or number, change a line, insert a
line after a given one, delete a line. Lines are named by their content and are
unique in the text, so every instruction has exactly one meaning. Answers have
30 to 256 bytes: "short" fits one canvas of 96, "medium" two, "long" three.
"""
import random
import re

from .case import Case, case_rng
from .edit_texts import SOURCES, code_line
from .words import ADJECTIVE, IDENTIFIER, NOUN

# Largest prompt and smallest and largest answer, in bytes, per size.
SIZES = {"short": (112, 30, 95), "medium": (240, 96, 190), "long": (304, 191, 256)}
_WEIGHTS = (40, 40, 20)


def generate(seed: int, index: int, size: str | None = None) -> Case:
    """Builds edit number `index` of the stream `seed`.

    Args:
        seed: Stream number; training and held-out streams differ.
        index: Position in the stream.
        size: One of `SIZES`; None draws one, mostly short and medium.
    """
    rng = case_rng("edit-" + (size or "any"), seed, index)
    size = size or rng.choices(tuple(SIZES), _WEIGHTS)[0]
    max_prompt, low, high = SIZES[size]
    while True:
        style = rng.choice(tuple(SOURCES))
        target = rng.randint(low, high)
        lines: list[str] = []
        for line in SOURCES[style](rng):
            if len("\n".join([*lines, line])) > target:
                break
            if line.strip() not in map(str.strip, lines):
                lines.append(line)
        operation = rng.choice(tuple(OPERATIONS))
        edited = OPERATIONS[operation](rng, lines, style) if lines else None
        if edited is None:
            continue
        instruction, answer = edited[0], "\n".join(edited[1])
        prompt = f"edit: {instruction}\n" + "\n".join(lines)
        if len(prompt) <= max_prompt and low <= len(answer) <= high:
            return Case(prompt, answer, {"task": "edit", "operation": operation, "style": style, "size": size})


def check(case: Case, output_text: str) -> bool:
    """True if the output is exactly the edited text."""
    return output_text == case.answer


def _rename(rng: random.Random, lines: list[str], style: str):
    text = "\n".join(lines)
    present = [w for w in dict.fromkeys(re.findall(r"[A-Za-z_]+", text)) if w in IDENTIFIER]
    unused = [w for w in IDENTIFIER if not re.search(rf"\b{w}\b", text)]
    if not present:
        return None
    old, new = rng.choice(present), rng.choice(unused)
    return f"rename {old} to {new}", re.sub(rf"\b{old}\b", new, text).split("\n")


def _replace(rng: random.Random, lines: list[str], style: str):
    text = "\n".join(lines)
    counts: dict[str, int] = {}
    for word in re.findall(r"\w+", text):
        counts[word] = counts.get(word, 0) + 1
    words = [w for w, n in counts.items() if n == 1 and (w in NOUN or w in ADJECTIVE or w.isdigit())]
    if not words:
        return None
    old = rng.choice(words)
    pool = NOUN if old in NOUN else ADJECTIVE
    new = str(rng.randint(0, 999)) if old.isdigit() else rng.choice(pool)
    if new == old:
        return None
    return f"replace {old} with {new}", re.sub(rf"\b{old}\b", new, text).split("\n")


def _new_line(rng: random.Random, lines: list[str], style: str, like: str) -> str | None:
    indent = like[: len(like) - len(like.lstrip())]
    line = indent + code_line(rng, style).strip()
    return line if line.strip() not in map(str.strip, lines) else None


def _change(rng: random.Random, lines: list[str], style: str):
    i = rng.randrange(len(lines))
    new = _new_line(rng, lines, style, lines[i])
    if new is None:
        return None
    return f"change {lines[i].strip()} to {new.strip()}", [*lines[:i], new, *lines[i + 1 :]]


def _insert(rng: random.Random, lines: list[str], style: str):
    i = rng.randrange(len(lines))
    new = _new_line(rng, lines, style, lines[i])
    if new is None:
        return None
    return f"after {lines[i].strip()} insert {new.strip()}", [*lines[: i + 1], new, *lines[i + 1 :]]


def _delete(rng: random.Random, lines: list[str], style: str):
    if len(lines) < 2:
        return None
    i = rng.randrange(len(lines))
    return f"delete {lines[i].strip()}", [*lines[:i], *lines[i + 1 :]]


OPERATIONS = {"rename": _rename, "replace": _replace, "change": _change, "insert": _insert, "delete": _delete}
