"""Records such as "name=Ana Silva; age=34; active=yes" to compact JSON.

Types follow the value: digits give an int, digits with a point a float, yes/no a
bool, none a null, all else a string. Fields keep their order. The answer has at
most 95 bytes, so that it and its end-of-turn token fit one canvas of 96.
"""
import json
import random

from .case import Case, case_rng
from .words import ADJECTIVE, CITY, FIRST, LAST, NOUN

MAX_BYTES = 95


def _person(r: random.Random) -> str:
    return f"{r.choice(FIRST)} {r.choice(LAST)}"


def _decimal(r: random.Random, high: int, places: int) -> str:
    # The last digit is never 0, so the text and the shortest float form agree.
    digits = [str(r.randint(0, 9)) for _ in range(places - 1)] + [str(r.randint(1, 9))]
    return f"{r.randrange(high)}.{''.join(digits)}"


FIELDS = {
    "name": _person,
    "owner": _person,
    "author": lambda r: r.choice(LAST),
    "age": lambda r: str(r.randint(1, 99)),
    "city": lambda r: r.choice(CITY),
    "active": lambda r: r.choice(("yes", "no")),
    "paid": lambda r: r.choice(("yes", "no")),
    "in_stock": lambda r: r.choice(("yes", "no")),
    "item": lambda r: f"{r.choice(ADJECTIVE)} {r.choice(NOUN)}",
    "product": lambda r: r.choice(NOUN),
    "color": lambda r: r.choice(("red", "blue", "green", "black", "white", "yellow", "none")),
    "price": lambda r: _decimal(r, 1000, 2),
    "weight": lambda r: _decimal(r, 100, 1),
    "score": lambda r: _decimal(r, 10, 2),
    "count": lambda r: str(r.randint(0, 9999)),
    "year": lambda r: str(r.randint(1950, 2030)),
    "id": lambda r: str(r.randint(1, 999_999)),
    "code": lambda r: "".join(r.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=3)) + "-" + str(r.randint(10, 999)),
    "email": lambda r: f"{r.choice(FIRST).lower()}@{r.choice(NOUN)}.{r.choice(('com', 'org', 'net', 'io'))}",
    "note": lambda r: r.choice(("none", f"{r.choice(ADJECTIVE)} {r.choice(NOUN)}", r.choice(NOUN))),
    "manager": lambda r: r.choice(("none", _person(r))),
}


def generate(seed: int, index: int) -> Case:
    """Builds record number `index` of the stream `seed`."""
    rng = case_rng("json", seed, index)
    while True:
        fields = [(key, FIELDS[key](rng)) for key in rng.sample(list(FIELDS), rng.randint(2, 6))]
        answer = json.dumps({k: typed(v) for k, v in fields}, separators=(",", ":"))
        if len(answer) <= MAX_BYTES:
            record = "; ".join(f"{k}={v}" for k, v in fields)
            return Case("json\n" + record, answer, {"task": "json_record", "fields": len(fields)})


def typed(value: str) -> str | int | float | bool | None:
    """The JSON value that a field's text stands for."""
    words = {"yes": True, "no": False, "none": None}
    if value in words:
        return words[value]
    if value.isdigit():
        return int(value)
    whole, _, fraction = value.partition(".")
    return float(value) if whole.isdigit() and fraction.isdigit() else value


def check(case: Case, output_text: str) -> bool:
    """True if the output is exactly the expected JSON."""
    return output_text == case.answer
