"""Templates that nobody wrote: random and damaged ones, native and in transformers; and hostile ones, which end."""

from __future__ import annotations

import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from parity.jinja_oracle import native, reference
from parity.random_templates import Writer, conversation
from parity.test_chat_templates import CONVERSATIONS, FAMILIES, SWITCHES, TOKENS, WEATHER, source_of
from templates import template_cases

NUM_RANDOM = 600
NUM_DAMAGED = 60  # of each family
SNIPPETS = ["{", "}", "%", "{%", "%}", "{{", "}}", "{#", "-", "'", '"', "(", ")", "[", "]", "|", "~", ".", ":", "\\",
            "\n", " ", "else", "endif", "endfor", "loop.", " not ", " is ", "0", "9" * 25, "é", "\x00"]  # fmt: skip


def test_random_templates_render_as_in_transformers(tmp_path: Path) -> None:
    rendered = unsupported = 0
    for seed in range(NUM_RANDOM):
        rng = random.Random(seed)
        template, given = Writer(rng).template(), conversation(rng)
        expected, found = reference(template, given), native(tmp_path, template, given)
        if found.is_unsupported:
            unsupported += expected.text is not None
            continue
        assert found.text == expected.text, (seed, template, found, expected)
        rendered += found.text is not None
    # Most templates work, so that the comparison means something; few are beyond the renderer.
    assert rendered > NUM_RANDOM * 0.45
    assert unsupported < NUM_RANDOM * 0.02


def test_templates_put_together_from_the_field_s_render_as_in_transformers(tmp_path: Path) -> None:
    # Filters and functions outside of the tables, dict.fromkeys, and names like __base__.
    lacking = ("truncate", "wordcount", "urlencode", "center", "cycler", "attributes of a function", 'attribute "__')
    rendered = 0
    for case in template_cases(seed=23, count=NUM_RANDOM):
        source = case.source.replace("strftime_now('%d %B %Y %H:%M')", "'a date'")
        given = {"messages": case.messages, "tools": case.tools, "add_generation_prompt": case.add_generation_prompt,
                 "continue_final_message": case.continued or False, **TOKENS, **case.variables}  # fmt: skip
        expected, found = reference(source, given), native(tmp_path, source, given)
        if found.is_unsupported:
            assert any(name in found.error for name in lacking) or expected.text is None, (found, expected)
        elif "CONTINUE" not in (expected.text or ""):
            assert found.text == expected.text, (case, found, expected)
            rendered += found.text is not None
    assert rendered > NUM_RANDOM * 0.4


def damaged(template: str, rng: random.Random) -> str:
    text = template
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text))
        size = rng.choice([0, 0, 1, 2, 5, 40])
        text = text[:at] + rng.choice(["", rng.choice(SNIPPETS)]) + text[at + size :]
    return text


@pytest.mark.parametrize("family", [*FAMILIES, "mini"])
def test_damaged_templates_render_as_in_transformers_or_are_refused(
    family: str, mini_checkpoint: Path, tmp_path: Path
) -> None:
    rng = random.Random(family)
    template = source_of(family, mini_checkpoint)
    names = list(CONVERSATIONS)
    for _ in range(NUM_DAMAGED):
        text = damaged(template, rng)
        given = {"messages": CONVERSATIONS[rng.choice(names)], **TOKENS, **rng.choice(SWITCHES)}
        found = native(tmp_path, text, given)
        if found.is_unsupported:
            assert "chat_template.jinja line " in found.error
            continue
        expected = reference(text, given)
        assert found.text == expected.text, (text, found, expected)
        assert found.text is not None or "chat_template.jinja line " in found.error, found


def test_bytes_that_are_no_text_are_refused_or_rendered(mini_checkpoint: Path, tmp_path: Path) -> None:
    rng = random.Random(5)
    given = {"messages": CONVERSATIONS["a tool call and its result"], **TOKENS, "tools": [WEATHER]}
    templates = [source_of(family, mini_checkpoint).encode() for family in FAMILIES]
    for _ in range(300):
        content = bytearray(rng.choice(templates))
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        found = native(tmp_path, bytes(content), given)
        assert found.text is not None or "chat_template.jinja" in found.error, found


NESTED = 3000
HOSTILE = {
    "brackets": "{{ " + "(" * NESTED + "1" + ")" * NESTED + " }}",
    "lists": "{{ " + "[" * NESTED + "]" * NESTED + " }}",
    "dicts": "{{ " + "{1:" * NESTED + "1" + "}" * NESTED + " }}",
    "subscripts": "{{ x" + "[x" * NESTED + "]" * NESTED + " }}",
    "calls": "{{ x" + "(x" * NESTED + ")" * NESTED + " }}",
    "signs": "{{ " + "- " * NESTED + "1 }}",
    "negations": "{{ " + "not " * NESTED + "1 }}",
    "conditions": "{{ " + "1 if 0 else " * NESTED + "1 }}",
    "tests": "{{ 1" + " is in [1" * NESTED + "]" * NESTED + " }}",
    "a long sum": "{{ 1" + " + 1" * NESTED + " }}",
    "a long product": "{{ 1" + " * 1" * NESTED + " }}",
    "a long power": "{{ 1" + " ** 1" * NESTED + " }}",
    "a long conjunction": "{{ 1" + " and 1" * NESTED + " }}",
    "a long path": "{{ x" + ".a" * NESTED + " }}",
    "many filters": "{{ 'a'" + " | upper" * NESTED + " }}",
    "many calls": "{{ x" + "()" * NESTED + " }}",
    "nested ifs": "{% if 1 %}" * NESTED + "{% endif %}" * NESTED,
    "nested loops": "{% for i in [1] %}" * NESTED + "{% endfor %}" * NESTED,
    "nested targets": "{% set " + "(" * NESTED + "a" + ")" * NESTED + " = 1 %}",
    "nested macros": "{% macro m() %}" * NESTED + "{% endmacro %}" * NESTED,
    "endless recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "recursion of two": "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "recursion of a default": "{% macro m(a=m()) %}{% endmacro %}{{ m() }}",
    "recursion of a caller": "{% macro m() %}{{ caller() }}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}"
    "{% call m() %}x{% endcall %}",
    "deep values": "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}",
    "wide values": "{% set ns = namespace(x=[]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
    "{{ ns.x == ns.x }}{{ ns.x }}",
    "equal wide values": "{% set a = namespace(x=[1]) %}{% set b = namespace(x=[1]) %}{% for i in range(60) %}"
    "{% set a.x = [a.x, a.x] %}{% set b.x = [b.x, b.x] %}{{ a.x == b.x }}{% endfor %}",
    "a cycle": "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x == ns.x }}{{ ns.x }}",
    "deep iterators": "{% set ns = namespace(x=[1]) %}{% for i in range(9999) %}{% set ns.x = ns.x | map('string') %}"
    "{% endfor %}{{ ns.x | list }}",
    "a doubling text": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x * 2 %}{% endfor %}",
    "a doubling list": "{% set ns = namespace(x=[1]) %}{% for i in range(50) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "a replaced text": "{% set ns = namespace(x='a') %}{% for i in range(99) %}"
    "{% set ns.x = ns.x | replace('a', 'aaaa') %}{% endfor %}",
    "a joined text": "{% set ns = namespace(x='a') %}{% for i in range(99) %}"
    "{% set ns.x = [ns.x, ns.x, ns.x] | join(ns.x) %}{% endfor %}",
    "a long repetition": "{{ 'a' * 999999999999 }}",
    "a longer repetition": "{{ [1, 2] * 9223372036854775807 }}",
    "a long range": "{{ range(9223372036854775807) }}",
    "a range to the end": "{{ range(9223372036854775800, 9223372036854775807, 5) | list }}{{ range(10 ** 18) }}",
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops that write": "{% for a in range(999) %}{% for b in range(9999) %}" + "x" * 999 + "{% endfor %}{% endfor %}",
    "kept texts": "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = ns.x + ['a' * 99999 ~ i] %}"
    "{% endfor %}",
    "a huge indent": "{{ 'a\\nb' | indent(999999999) }}{{ 'a\\nb\\n' * 9999 | indent(999) }}",
    "a huge power": "{{ 9 ** 9 ** 9 ** 9 }}",
    "a huge batch": "{{ [1] | batch(999999999999, 0) | list }}",
    "a huge number": "{{ 9 * 9999999999999999999 }}",
    "the lowest number": "{{ -9223372036854775807 - 1 }}{{ (-9223372036854775807 - 1) // -1 }}",
    "its remainder": "{{ (-9223372036854775807 - 1) % -1 }}{{ -(-9223372036854775807 - 1) }}",
    "its size": "{{ (-9223372036854775807 - 1) | abs }}",
    "slices at the ends": "{{ 'abc'[-9223372036854775807:9223372036854775807:9223372036854775807] }}"
    "{{ [1][9223372036854775807::-9223372036854775807] }}",
    "a long comment": "{#" + "-" * 99999,
    "many openings": "{{" * 9999,
    "many blocks": "{%" * 9999,
    "many elifs": "{% if 0 %}" + "{% elif 0 %}" * 20000 + "{% endif %}",
    "many names": "{{ " + " ~ ".join(f"v{i}" for i in range(20000)) + " }}",
    "many parts": "{{ [" + "1," * 99999 + "] | length }}",
    "a large template": "x" * (1 << 20) + "y",
    "a long format": "{{ strftime_now('%c' * 999) }}{{ '%s' * 99999 % 1 }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_end_with_a_status(name: str, tmp_path: Path) -> None:
    found = native(tmp_path, HOSTILE[name], {"messages": [{"role": "user", "content": "x"}], "x": 1})
    assert found.text is not None or "chat_template.jinja" in found.error, found
    assert not found.error.startswith(("DGRT_INTERNAL", "DGRT_OUT_OF_MEMORY")), found


@pytest.mark.parametrize("depth", [50, 99, 100, 101, 5000])
def test_deep_conversations_end_with_a_status(depth: int, tmp_path: Path) -> None:
    value = b'{"messages": [{}], "x": ' + b"[" * depth + b"]" * depth + b"}"
    found = native(tmp_path, "{{ x == x }}{{ x | tojson }}{{ x }}", value)
    assert (found.text is not None) == (depth < 100), found
    assert found.text is not None or "levels deep" in found.error


def test_letters_change_and_print_as_in_python(tmp_path: Path) -> None:
    if unicodedata.unidata_version != "14.0.0":
        pytest.skip(f"the tables are those of Unicode 14.0.0, this Python has {unicodedata.unidata_version}")
    letters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000 and chr(code) != "Σ"]
    for begin in range(0, len(letters), 100_000):
        text = "".join(letters[begin : begin + 100_000])
        found = native(tmp_path, "{{ x | upper }}|{{ x | lower }}|{{ [x] }}", {"messages": [{}], "x": text})
        assert found.text == f"{text.upper()}|{text.lower()}|{[text]}"
    spaces = [letter for letter in letters if letter.isspace()]
    found = native(tmp_path, "{{ (x ~ 'a' ~ x).split() }}", {"messages": [{}], "x": "".join(spaces)})
    assert found.text == "['a']"


def test_the_tables_of_letters_are_those_that_their_maker_makes(repository: Path) -> None:
    if unicodedata.unidata_version != "14.0.0":
        pytest.skip(f"the tables are those of Unicode 14.0.0, this Python has {unicodedata.unidata_version}")
    folder = repository / "csrc/text/jinja/values"
    command = [sys.executable, folder / "make_unicode_tables.py"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert made.stdout == (folder / "unicode_tables.inc").read_text(encoding="utf-8")
