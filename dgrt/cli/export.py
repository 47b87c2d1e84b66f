"""`dgrt export`: checkpoint folder to engine package. Parses, shows progress, turns errors into one line.

torch and onnx come in only when the verb runs. All work is in `dgrt_export`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgrt_export import ExportReport

_EXIT_FAILED, _EXIT_USAGE, _EXIT_INTERRUPTED = 1, 2, 130
_BYTE_STAGES = ("weights", "hash")
_EPILOG = """\
examples:
  dgrt export ./diffusiongemma-26B-A4B-it -o engines/26b
      the checkpoint's own precision: weight files are hard-linked, nothing is copied
  dgrt export dgrt/models/mini -o engines/mini --precision fp32 --force
      converts bf16 weights to fp32 and replaces an existing package
  dgrt export ./checkpoint -o engines/x --json | jq .manifest.parity
      the report on standard output, progress on standard error

exit status: 0 exported; 1 the parity check or the disk failed; 2 the input or the output will not do; 130 interrupted.
A failed or interrupted export leaves nothing behind.
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
    parser.add_argument("-o", "--output", metavar="ENGINE", required=True, help="folder to write")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="how weights are stored (default: as in the checkpoint)"
    )
    parser.add_argument(
        "--moe", choices=("auto", "dense", "unrolled", "loop"), default="auto",
        help="form of the experts in the graphs (default: by size)",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an existing package")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs the verb and returns the exit status."""
    try:
        import dgrt_export
    except ImportError as error:
        print(f"error: export: expected the export extra (pip install 'dgrt[export]'), found {error}", file=sys.stderr)
        return _EXIT_USAGE
    signal.signal(signal.SIGTERM, _raise_interrupt)  # a polite kill cleans up like Ctrl-C
    try:
        with _progress() as progress:
            report = dgrt_export.export(
                args.checkpoint, args.output, precision=args.precision, moe=args.moe, force=args.force,
                progress=progress,
            )  # fmt: skip
    except dgrt_export.ParityError as error:
        return _fail(error, _EXIT_FAILED)
    except dgrt_export.ExportError as error:
        return _fail(error, _EXIT_USAGE)
    except ImportError as error:
        return _fail(f"export: expected the export extra (pip install 'dgrt[export]'), found {error}", _EXIT_USAGE)
    except OSError as error:
        return _fail(error, _EXIT_FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted, nothing written", _EXIT_INTERRUPTED)
    if args.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        _summarise(report)
    return 0


def _fail(error: object, status: int) -> int:
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return status


def _raise_interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _summarise(report: ExportReport) -> None:
    manifest, seconds = report.manifest, sum(report.seconds.values())
    parity = manifest["parity"]
    print(f"{report.output}")
    print(f"  weights   {manifest['precision']}, {_size(report.weight_bytes)} {report.weights}")
    print(f"  experts   {manifest['experts']}")
    print(f"  parity    max error {parity['max_abs_error']:.1e} in layers {parity['layers']} ({parity['reference']})")
    print(f"  time      {seconds:.1f} s")


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


@contextmanager
def _progress() -> Iterator[Any]:
    """A progress callback on standard error: bars on a terminal, one line per finished stage elsewhere."""
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
            amount = f"{_size(done)} / {_size(total)}" if stage in _BYTE_STAGES else ""
            bars.update(tasks[stage], completed=done if total else 1, amount=amount)

        yield show


def _plain_progress() -> Any:
    finished: set[str] = set()

    def show(stage: str, done: int, total: int) -> None:
        if done >= total and stage not in finished:
            finished.add(stage)
            print(
                f"{stage}: {_size(total)}" if stage in _BYTE_STAGES else f"{stage}: done", file=sys.stderr, flush=True
            )

    return show
