"""`dgrt doctor`: what this machine has for dgrt, what it lacks, and what to do about it.

The checks are in `dgrt/cli/checks.py`; this file prints them. Exit code 0 if generation can work, else 1.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

_EPILOG = """\
examples:
  dgrt doctor
  dgrt doctor --json | jq .ok
"""


def add_parser(subparsers: Any) -> None:
    """Adds the verb to the parser of `dgrt`."""
    parser = subparsers.add_parser(
        "doctor",
        help="check this machine",
        description="Check Python, the native extension, ONNX Runtime, export tools, CPU and memory.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from dgrt.cli.checks import Check, all_checks

    sections = all_checks()
    checks: list[Check] = [check for _, group in sections for check in group]
    works = all(check.ok for check in checks if check.required)
    if args.json:
        from dgrt.cli.display import print_json

        print_json({"ok": works, "checks": [{"section": s, **asdict(c)} for s, group in sections for c in group]})
    else:
        for section, group in sections:
            _print_section(section, group)
        print("\ngeneration can run" if works else "\ngeneration cannot run: see the lines marked MISSING")
    return 0 if works else 1


def _print_section(section: str, group: list[Any]) -> None:
    from dgrt.cli.display import print_line, print_title

    print_title(section)
    width = max(len(check.name) for check in group)
    for check in group:
        mark, style = ("ok", "green") if check.ok else ("MISSING", "red") if check.required else ("missing", "yellow")
        print_line(("  ", ""), (f"{mark:<7}", style), (f"  {check.name:<{width}}  {check.detail}", ""))
        if check.hint and not check.ok:
            print_line((" " * (width + 13) + check.hint, "dim"))
