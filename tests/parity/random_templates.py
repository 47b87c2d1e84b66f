"""Random templates from the constructs that chat templates use. Most render; some fail, as templates do."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

TEXTS = [
    "", "a", "Hi", " two words ", "x\ny\n", "é😀", "it's", 'say "x"', "<b>&", "a,b,c", "42", "-1.5", "\tT", "A-b c",
]  # fmt: skip
NUMBERS = ["0", "1", "2", "-3", "7", "10", "1.5", "2.0", "-0.25", "1e3"]
ROLES = ["user", "assistant", "system", "tool"]
VARIABLES = ["messages", "tools", "documents", "flag", "count", "rate", "name", "nothing", "items", "table", "absent"]
NAMES = ["a", "b", "c"]
BINARY = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
TEXT_FILTERS = [
    "upper", "lower", "trim", "capitalize", "title", "length", "string", "list", "first", "last", "reverse", "e",
    "replace('a', 'b')", "replace('', '-', 2)", "indent", "indent(2, true)", "default('d')", "default('d', true)",
    "int", "float", "tojson", "join('-')", "safe", "count", "trim('a ')", "batch(2)", "d",
]  # fmt: skip
LIST_FILTERS = [
    "length", "first", "last", "list", "reverse", "sort", "unique", "join(', ')", "tojson", "tojson(indent=2)", "sum",
    "map('upper')", "map(attribute='role')", "map(attribute='content', default='-')", "select", "reject('none')",
    "selectattr('role', 'equalto', 'user')", "rejectattr('content')", "selectattr('content', 'string')", "max", "min",
    "map('string')", "select('string')", "sort(reverse=true)", "batch(2, 'x')", "default([])", "string",
    "sort(attribute='role')", "map('length')", "join(attribute='role')", "select('in', ['a', 'Hi'])", "items",
]  # fmt: skip
DICT_FILTERS = [
    "items", "dictsort", "length", "list", "tojson", "tojson(sort_keys=true)", "first", "string",
    "tojson(separators=(',', ':'))", "dictsort(by='value')", "dictsort(reverse=true)", "tojson(true)",
]  # fmt: skip
NUMBER_FILTERS = [
    "abs", "round", "round(1)", "round(1, 'floor')", "round(0, 'ceil')", "int", "float", "string", "tojson",
]  # fmt: skip
TESTS = [
    "defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping",
    "iterable", "sequence", "odd", "even", "divisibleby(3)", "divisibleby 2", "eq 1", "in ['a', 1, none]",
    "equalto('a')", "ne('Hi')", "gt 1", "le(2)", "callable", "sameas none", "escaped",
]  # fmt: skip
METHODS = [
    "strip()", "lstrip('a ')", "rstrip()", "split()", "split(',')", "split(',', 1)", "rsplit(' ', 1)", "upper()",
    "lower()", "title()",
    "capitalize()", "startswith('a')", "endswith(('i', '\\n'))", "replace('a', '<a>')", "find('i')",
    "count('a')", "splitlines()", "isdigit()", "isspace()", "format(1, 'b')", "join(['x', 'y'])", "partition(',')",
    "rfind('a')",
    "removeprefix('a')", "removesuffix('c')", "isalpha()", "append('x')", "index('a')", "isupper()", "swapcase",
]  # fmt: skip
DICT_METHODS = ["items()", "keys()", "values()", "get('a')", "get('zz', 'none')", "get('x') ", "copy()", "pop('a')"]
SPACES = ["", " ", "\n", "  \n", "\n    ", " text ", "\n\n  x\n", "\t"]


class Writer:
    """Writes one random template.

    Args:
        rng: Where the choices come from.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.loops = 0
        self.macros: list[str] = []

    def template(self) -> str:
        return "".join(self.statement(2) for _ in range(self.rng.randint(1, 4)))

    def pick(self, options: list[str]) -> str:
        return self.rng.choice(options)

    # ---- expressions, by the kind of value that they most likely have ----

    def text(self, depth: int) -> str:
        options: list[Callable[[], str]] = [
            lambda: self.quoted(self.pick(TEXTS)),
            lambda: self.pick(["name", "messages[0].content", "messages[-1]['role']", "message.content", "loop.index"]),
        ]
        if depth > 0:
            options += [
                lambda: f"{self.text(depth - 1)} ~ {self.any(depth - 1)}",
                lambda: f"({self.text(depth - 1)} + {self.text(depth - 1)})",
                lambda: f"({self.text(depth - 1)}).{self.pick(METHODS)}",
                lambda: f"{self.text(depth - 1)} | {self.pick(TEXT_FILTERS)}",
                lambda: f"({self.text(depth - 1)} ~ name)[{self.slice()}]",
                lambda: f"({self.text(depth - 1)} if {self.any(depth - 1)} else {self.text(depth - 1)})",
                lambda: f"'%s-%s' % ({self.any(depth - 1)}, {self.number(depth - 1)})",
                lambda: f"'{{}}={{}}'.format({self.any(depth - 1)}, {self.text(depth - 1)})",
            ]
        return self.rng.choice(options)()

    def number(self, depth: int) -> str:
        options: list[Callable[[], str]] = [
            lambda: self.pick(NUMBERS),
            lambda: self.pick(["count", "rate", "loop.index0", "loop.revindex", "messages | length", "flag"]),
        ]
        if depth > 0:
            options += [
                lambda: f"({self.number(depth - 1)} {self.pick(['+', '-', '*', '/', '//', '%', '**'])} "
                        f"{self.pick(NUMBERS[1:])})",
                lambda: f"{self.number(depth - 1)} | {self.pick(NUMBER_FILTERS)}",
                lambda: f"-{self.pick(NUMBERS)}",
                lambda: f"({self.any(depth - 1)} | length)",
            ]  # fmt: skip
        return self.rng.choice(options)()

    def list(self, depth: int) -> str:
        options: list[Callable[[], str]] = [
            lambda: self.pick(["messages", "tools", "documents", "items", "range(3)", "range(1, 8, 3)", "[]"]),
            lambda: "[" + ", ".join(self.any(max(depth - 1, 0)) for _ in range(self.rng.randint(1, 3))) + "]",
        ]
        if depth > 0:
            options += [
                lambda: f"{self.list(depth - 1)} | {self.pick(LIST_FILTERS)}",
                lambda: f"{self.list(depth - 1)} | {self.pick(LIST_FILTERS)} | list",
                lambda: f"({self.list(depth - 1)} | list + items)[{self.slice()}]",
                lambda: f"({self.list(depth - 1)} + {self.list(depth - 1)})",
                lambda: f"({self.text(depth - 1)}).split()",
                lambda: f"{self.dict(depth - 1)} | {self.pick(DICT_FILTERS)}",
                lambda: f"({self.any(depth - 1)}, {self.any(depth - 1)})",
            ]
        return self.rng.choice(options)()

    def dict(self, depth: int) -> str:
        options: list[Callable[[], str]] = [
            lambda: self.pick(["table", "messages[0]", "(tools or [{}])[0]", "{}"]),
            lambda: "{" + ", ".join(f"{self.quoted(self.pick(TEXTS))}: {self.any(max(depth - 1, 0))}"
                                    for _ in range(self.rng.randint(1, 3))) + "}",
            lambda: f"dict(a={self.any(max(depth - 1, 0))}, b=1)",
        ]  # fmt: skip
        return self.rng.choice(options)()

    def any(self, depth: int) -> str:
        if depth == 0:
            return self.rng.choice([
                lambda: self.pick(VARIABLES), lambda: self.pick(NUMBERS), lambda: self.quoted(self.pick(TEXTS)),
                lambda: self.pick(["true", "false", "none", "True", "None"]),
                lambda: self.pick(NAMES),
            ])()  # fmt: skip
        return self.rng.choice([
            lambda: self.text(depth), lambda: self.number(depth), lambda: self.list(depth), lambda: self.dict(depth),
            lambda: f"({self.any(depth - 1)} {self.pick(BINARY)} {self.any(depth - 1)})",
            lambda: f"{self.any(depth - 1)} is {self.pick(['', 'not '])}{self.pick(TESTS)}",
            lambda: f"not {self.any(depth - 1)}",
            lambda: f"({self.dict(depth - 1)}).{self.pick(['role', 'content', 'a', 'zz', 'items', 'tool_calls'])}",
            lambda: f"({self.dict(depth - 1)})[{self.any(0)}]",
            lambda: f"({self.dict(depth - 1)}).{self.pick(DICT_METHODS)}",
            lambda: f"({self.any(depth - 1)} if {self.any(depth - 1)})",
            lambda: f"{self.pick(NUMBERS)} < {self.number(0)} <= {self.pick(NUMBERS)}",
            self.call,
        ])()  # fmt: skip

    def call(self) -> str:
        if not self.macros:
            return self.any(0)
        return f"{self.pick(self.macros)}({self.any(0)}{self.pick(['', ', b=2', ', 3'])})"

    def slice(self) -> str:
        return self.pick(["0", "-1", "1:", ":-1", "::-1", "::2", "1:2", "5", "-2:", "'a'", "true"])

    def quoted(self, text: str) -> str:
        escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
        quote = '"' if "'" in escaped else "'"
        return quote + escaped.replace(quote, "\\" + quote) + quote

    # ---- statements ----

    def tag(self, content: str) -> str:
        return f"{{%{self.pick(['', '-', '+', ''])} {content} {self.pick(['', '-', '+', ''])}%}}"

    def body(self, depth: int) -> str:
        return "".join(self.statement(depth) for _ in range(self.rng.randint(1, 2)))

    def statement(self, depth: int) -> str:
        options: list[Callable[[], str]] = [
            lambda: self.pick(SPACES),
            lambda: f"{{{{{self.pick(['', '-'])} {self.any(2)} {self.pick(['', '-'])}}}}}",
            lambda: f"{{{{ {self.text(2)} }}}}",
            lambda: f"{{#{self.pick(['', '-', '+'])} {self.pick(TEXTS)} {self.pick(['', '-', '+'])}#}}",
            lambda: self.tag(f"set {self.pick(NAMES)} = {self.any(2)}"),
            lambda: self.tag(f"set {self.pick(NAMES)}, c = {self.any(1)}, {self.any(1)}"),
        ]
        if depth > 0:
            options += [
                lambda: self.condition(depth - 1), lambda: self.loop(depth - 1), lambda: self.loop(depth - 1),
                lambda: self.macro(depth - 1), lambda: self.block(depth - 1), lambda: self.space(),
            ]  # fmt: skip
        if self.loops > 0:
            options.append(lambda: self.tag("if " + self.any(1)) + self.tag(self.pick(["break", "continue"]))
                           + self.tag("endif"))  # fmt: skip
        return self.pick(SPACES) + self.rng.choice(options)()

    def condition(self, depth: int) -> str:
        text = self.tag(f"if {self.any(2)}") + self.body(depth)
        if self.rng.random() < 0.3:
            text += self.tag(f"elif {self.any(1)}") + self.body(depth)
        if self.rng.random() < 0.5:
            text += self.tag("else") + self.body(depth)
        return text + self.tag("endif")

    def loop(self, depth: int) -> str:
        head = self.rng.choice([
            lambda: f"for message in messages{self.pick(['', ' if message.role == ' + repr(self.pick(ROLES))])}",
            lambda: f"for {self.pick(NAMES)} in {self.list(1)}",
            lambda: f"for a, b in {self.dict(1)}.items()",
            lambda: f"for {self.pick(NAMES)} in {self.any(1)} if {self.any(1)}",
            lambda: f"for a, b in {self.dict(1)} | dictsort",
        ])()  # fmt: skip
        self.loops += 1
        text = self.tag(head) + self.body(depth)
        text += self.pick([
            "", "{{ loop.index }}", "{{ loop.last }}", "{{ loop.length }}/{{ loop.first }}", "{{ loop.previtem }}",
            "{{ loop.nextitem is defined }}", "{{ loop.cycle('x', 'y') }}", "{{ loop.changed(a) }}",
        ])  # fmt: skip
        self.loops -= 1
        if self.rng.random() < 0.3:
            text += self.tag("else") + self.body(depth)
        return text + self.tag("endfor")

    def macro(self, depth: int) -> str:
        name = self.pick(["m", "n"])
        loops, self.loops = self.loops, 0
        text = self.tag(f"macro {name}(a, b={self.any(1)})") + self.body(depth)
        self.loops = loops
        self.macros.append(name)
        return text + self.pick(["{{ a }}", "{{ b }}", "{{ kwargs }}", "{{ varargs }}", ""]) + self.tag("endmacro")

    def block(self, depth: int) -> str:
        loops = self.loops
        kind = self.pick(["set a", "set b | upper", "filter trim", "filter replace('a', 'b') | indent", "generation",
                          "with a = 1, b = count"])  # fmt: skip
        self.loops = 0 if kind == "generation" else loops
        text = self.tag(kind) + self.body(depth) + self.tag("end" + kind.split()[0])
        self.loops = loops
        return text

    def space(self) -> str:
        return (
            "{% set ns = namespace(n=0, t='') %}{% for x in " + self.list(1) + " %}{% set ns.n = ns.n + 1 %}"
            "{% set ns.t = ns.t ~ x %}" + self.body(0) + "{% endfor %}{{ ns.n }}{{ ns.t }}"
        )


def conversation(rng: random.Random) -> dict[str, Any]:
    """Returns what `dgrt_chat_template_render` takes, with variables that the templates use."""
    content: list[Any] = [*TEXTS, [{"type": "text", "text": "part"}, {"type": "image"}], None, "plain"]
    messages: list[dict[str, Any]] = [
        {"role": rng.choice(ROLES), "content": rng.choice(content)} for _ in range(rng.randint(1, 4))
    ]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"é": {}}}}}
    if rng.random() < 0.3:
        arguments = {"x": 1.5, "b": [True, None]}
        messages[-1]["tool_calls"] = [{"id": "1", "function": {"name": "f", "arguments": arguments}}]
    table = {rng.choice(["a", "b", "role", "zz", "items"]): rng.choice([1, "x", [1], {"q": 0.5}]) for _ in range(3)}
    return {
        "messages": messages,
        "tools": rng.choice([None, [tool], [tool, tool]]),
        "documents": rng.choice([None, [{"title": "t", "text": "x"}]]),
        "add_generation_prompt": rng.random() < 0.5,
        "flag": rng.random() < 0.5,
        "count": rng.randint(-2, 5),
        "rate": rng.choice([0.0, 0.1, -2.5, 1e20, 3.0]),
        "name": rng.choice(TEXTS),
        "nothing": None,
        "items": [rng.choice([1, "a", None, True, 2.5, "Hi"]) for _ in range(rng.randint(0, 4))],
        "table": table,
    }
