"""Writes unicode_tables.inc: what Python's str says about case and printing, as ranges of code points.

Run it as `python make_unicode_tables.py > unicode_tables.inc`. A test compares the file with what this prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

WIDTH = 118


def code_points() -> Iterator[int]:
    """Beyond ASCII, without surrogates."""
    yield from (point for point in range(0x80, 0x110000) if not 0xD800 <= point < 0xE000)


def not_printable() -> list[str]:
    ranges: list[list[int]] = []
    for point in code_points():
        if chr(point).isprintable():
            continue
        if ranges and ranges[-1][1] == point - 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return [f"{{0x{first:X},0x{last:X}}}" for first, last in ranges]


def mapping(change: Callable[[str], str]) -> list[str]:
    """Ranges of code points, one in `stride`, that change by the same difference into one character."""
    ranges: list[list[int]] = []  # first, last, stride, difference
    for point in code_points():
        changed = change(chr(point))
        if len(changed) != 1 or changed == chr(point):
            continue
        difference = ord(changed) - point
        if ranges and ranges[-1][3] == difference:
            first, last, stride, _ = ranges[-1]
            if point - last == stride or (first == last and point - last == 2):
                ranges[-1][1:3] = [point, point - last]
                continue
        ranges.append([point, point, 1, difference])
    return [f"{{0x{first:X},0x{last:X},{stride},{difference}}}" for first, last, stride, difference in ranges]


def long_upper() -> list[str]:
    """Characters whose capital is several characters."""
    long = [(point, chr(point).upper()) for point in code_points() if len(chr(point).upper()) > 1]
    spelt = [(point, "".join(f"\\x{byte:02X}" for byte in upper.encode())) for point, upper in long]
    return [f'{{0x{point:X},"{text}"}}' for point, text in spelt]


def no_plain_title() -> list[str]:
    """Characters whose form at the start of a title is not their capital."""
    return [f"0x{point:X}" for point in code_points() if chr(point).title() != chr(point).upper()]


def emit(declaration: str, entries: list[str]) -> None:
    print(f"constexpr {declaration}[] = {{")
    line = ""
    for entry in entries:
        if len(line) + len(entry) + 2 > WIDTH:
            print(f"  {line.rstrip()}")
            line = ""
        line += f"{entry}, "
    print(f"  {line.rstrip()}\n}};")


def main() -> None:
    print("// Made by make_unicode_tables.py; do not edit.")
    emit("CodeRange kNotPrintable", not_printable())
    emit("CaseRange kToLower", mapping(str.lower))
    emit("CaseRange kToUpper", mapping(str.upper))
    emit("LongUpper kLongUpper", long_upper())
    emit("uint32_t kNoPlainTitle", no_plain_title())


if __name__ == "__main__":
    main()
