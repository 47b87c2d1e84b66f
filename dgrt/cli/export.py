"""`dgrt export`: checkpoint folder to engine package. Parses, shows progress, gives each failure its exit status.

torch and onnx come in only when the verb runs. All work is in `dgrt_export`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dgrt.cli.display import human_bytes, parity_text, print_json
from dgrt.hints import install_hint

if TYPE_CHECKING:
    from dgrt_export import ExportReport

_EXIT_FAILED = 1
_INPUT_STAGES = ("read config", "check weights")  # an input that will not do is one line: the error
_BYTE_STAGES = ("check weights", "weights", "hash")
_PLAIN_PERIOD_S = 10.0  # between two lines of one stage, without a terminal
_SHARED = (
    "weights are shared with the checkpoint: writing into its files in place changes the engine "
    "(--copy makes it independent)"
)
_EPILOG = """\
examples:
  dgrt export ./diffusiongemma-26B-A4B-it -o engines/26b
      the checkpoint's own precision: weight files are hard-linked, nothing is copied. Writing into the checkpoint's
      files in place changes the engine then, which notices; --copy makes an engine of its own
  dgrt export dgrt/models/mini -o engines/mini --precision fp32 --force
      converts bf16 weights to fp32 and replaces an existing package
  dgrt export dgrt/models/mini -o engines/mini-portable --profile portable
      standard ONNX operators only, for any ONNX Runtime
  dgrt export ./diffusiongemma-26B-A4B-it -o engines/26b-int4 --precision int4
      experts of 4.25 bits per weight, the rest of the layers of 8: a third of the memory, and faster
  dgrt export dgrt/models/mini -o engines/mini --drafter dgrt/models/mini-drafter
      the package also has a drafter, which was trained for exactly this checkpoint
  dgrt export ./checkpoint -o engines/x --json | jq .manifest.parity
      the report on standard output, progress on standard error

exit status: 0 exported; 1 the parity check or the disk failed; 2 the input or the output will not do; 130 interrupted.
A failed or interrupted export leaves nothing behind. What a killed one left, a hidden folder beside ENGINE, is removed
by the next export to ENGINE.
"""


def add_parser(subparsers: Any) -> None:
    """Adds the verb to the command line."""
    parser = subparsers.add_parser(
        "export",
        help="export a checkpoint to an engine package",
        description="Exports a DiffusionGemma checkpoint (safetensors, Hugging Face layout) to an engine package, "
        "and checks its first layers against transformers before the package appears.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="folder with config.json and *.safetensors")
    parser.add_argument("-o", "--output", metavar="ENGINE", required=True, help="folder to write; a link stays one")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "int8", "int4"),
        help="how weights are stored (default: as in the checkpoint); int8 and int4, for the profile fused, quantise "
        "linear layers, MLPs and experts, of which int4 makes experts 4 bits and the rest 8, and when the model runs "
        "their inputs too",
    )  # fmt: skip
    parser.add_argument(
        "--profile", choices=("portable", "fused"),
        help="portable: standard ONNX operators; fused: linear layers, MLPs, experts and attention are operators of "
        "dgrt's native library, on weights as they are stored (default: fused, or portable with --moe)",
    )  # fmt: skip
    parser.add_argument(
        "--moe", choices=("auto", "dense", "unrolled", "loop"), default="auto",
        help="form of the experts in portable graphs (default: by size)",
    )  # fmt: skip
    parser.add_argument(
        "--drafter", metavar="FOLDER", help="checkpoint of a drafter for this model, with config.json and "
        "drafter.safetensors; it becomes part of the package",
    )  # fmt: skip
    parser.add_argument(
        "--force", action="store_true", help="replace an existing package, and nothing that is not one"
    )
    parser.add_argument(
        "--copy", action="store_true", help="share no file with the checkpoint (a reflink where the file system can, "
        "else a copy), so that it may be written to",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from dgrt.cli import CommandError

    try:
        import dgrt_export
    except ImportError as error:
        raise CommandError(_missing(error)) from error
    signal.signal(signal.SIGTERM, _raise_interrupt)  # a polite kill cleans up like Ctrl-C
    before = _identity(args.output)
    try:
        with _progress() as progress:
            report = dgrt_export.export(
                args.checkpoint, args.output, precision=args.precision, profile=args.profile, moe=args.moe,
                drafter=args.drafter, force=args.force, copy=args.copy, progress=progress,
            )  # fmt: skip
    except (dgrt_export.ParityError, dgrt_export.NoSpace) as error:
        raise CommandError(str(error), _EXIT_FAILED) from error
    except dgrt_export.ExportError as error:
        raise CommandError(str(error)) from error
    except ImportError as error:
        raise CommandError(_missing(error)) from error
    except OSError as error:
        raise CommandError(str(error), _EXIT_FAILED) from error
    except KeyboardInterrupt:
        written = _identity(args.output) != before
        raise KeyboardInterrupt(f"but {args.output} is written" if written else "nothing written") from None
    if args.json:
        print_json(report.to_json())
    else:
        _summarise(report)
    return 0


def _missing(error: ImportError) -> str:
    return f"export: expected the export extra ({install_hint('export')}), found {error}"


def _identity(engine: str) -> tuple[int, int] | None:
    """What tells a package from the one that replaces it; None where there is none."""
    from dgrt_export.contract import MANIFEST_FILE

    try:
        facts = os.stat(os.path.join(engine, MANIFEST_FILE))
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _raise_interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _summarise(report: ExportReport) -> None:
    manifest, seconds = report.manifest, sum(report.seconds.values())
    parity = manifest["parity"]
    print(f"{report.output}")
    print(f"  weights   {manifest['precision']}, {human_bytes(report.weight_bytes)} {report.weights}")
    first, *others = manifest["weight_files"]
    print(f"  files     {first}" + (f" and {len(others)} more" if others else ""))
    print(f"  profile   {manifest['profile']}")
    print(f"  experts   {manifest['experts']}")
    if (drafter := manifest.get("drafter")) is not None:
        print(f"  drafter   {drafter['name']}, {report.drafter_weights}")
    print(f"  parity with {parity['reference']}: {parity_text(parity)}")
    if drafter is not None:
        print(f"  parity of the drafter with plain torch: {parity_text(parity, 'drafter_')}")
    print(f"  template  {report.template or 'none'}")
    print(f"  time      {seconds:.1f} s")
    if "linked" in (report.weights, report.drafter_weights):
        print(f"  {_SHARED}")
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)


@contextmanager
def _progress() -> Iterator[Any]:
    """A progress callback on standard error: bars on a terminal, lines elsewhere."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
    except ImportError:
        console = None
    if console is None or not console.is_terminal:
        yield _plain_progress()
        return
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=max(total, 1), amount="")
            bars.update(tasks[stage], completed=done if total else 1, amount=_amount(stage, done, total))

        yield show


def _plain_progress() -> Any:
    """A line when a stage begins, and now and then while it lasts; not at once for those that judge the input."""
    current, printed = "", 0.0

    def show(stage: str, done: int, total: int) -> None:
        nonlocal current, printed
        now = time.monotonic()
        if stage in _INPUT_STAGES and done < total:
            printed = printed or now
            if now - printed < _PLAIN_PERIOD_S:
                return
        if stage != current or (done < total and now - printed >= _PLAIN_PERIOD_S):
            current, printed = stage, now
            print(": ".join(filter(None, (stage, _amount(stage, done, total)))), file=sys.stderr, flush=True)

    return show


def _amount(stage: str, done: int, total: int) -> str:
    if stage in _BYTE_STAGES:
        return f"{human_bytes(done)} / {human_bytes(total)}"
    return f"{done} / {total}" if total > 1 else ""
