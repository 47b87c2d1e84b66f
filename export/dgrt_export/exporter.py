"""One export from beginning to end: read, trace, lower, weights, parity, hash, publish. The table of contents.

Called by the command line and from Python. Torch and onnx are imported when an export runs, not with the package.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

from . import contract
from .accounting import require_finite
from .checkpoint import open_checkpoint
from .config import parse_config, read_json
from .drafter import open_drafter
from .errors import Unsupported, mismatch, quote
from .files import find_checkpoint
from .fingerprint import fingerprint
from .generation import read_generation, text_notes
from .operators import find_library
from .package import check_output, existing_parent, naming_a_full_disk, require_space, staged, write_manifest
from .quantise import FORMATS
from .text_files import TextFiles, read_text_files
from .weights import Origin, Precision, WeightPlan, plan_weights

PACKAGES = ("torch", "transformers", "safetensors", "tokenizers", "onnx", "onnxruntime")  # what an export imports
STAGES = ("read config", "check weights", "trace", "lower", "weights", "parity", "hash")
MoeChoice = Literal["auto", "dense", "unrolled", "loop"]
_MOST_GRAPH_BYTES = 1 << 20  # of one with hundreds of layers or a thousand experts
ProgressCallback = Callable[[str, int, int], None]


@dataclass
class ExportReport:
    """What an export did."""

    output: Path
    manifest: dict[str, Any]
    weights: Origin = "converted"
    weight_bytes: int = 0  # of all weight files
    drafter_weights: Origin | None = None  # of the drafter's; None without one
    seconds: dict[str, float] = field(default_factory=dict)  # per stage
    template: str | None = None  # file of the checkpoint that the chat template comes from
    notes: tuple[str, ...] = ()  # what an export is not stopped by and its user should know

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "output": str(self.output), "weights": self.weights, "weight_bytes": self.weight_bytes,
            "drafter_weights": self.drafter_weights,
            "seconds": {stage: round(s, 3) for stage, s in self.seconds.items()}, "template": self.template,
            "notes": list(self.notes), "manifest": self.manifest,
        }  # fmt: skip


class _Progress:
    """Reports stages to the caller and times them. Totals are bytes in `weights` and `hash`, else steps or passes."""

    def __init__(self, callback: ProgressCallback | None):
        self._callback = callback or (lambda stage, done, total: None)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, total: int = 1) -> Iterator[Callable[[int], None]]:
        started, done = time.perf_counter(), 0
        self._callback(name, 0, total)

        def advance(amount: int) -> None:
            nonlocal done
            done += amount
            self._callback(name, min(done, total), total)

        yield advance
        self._callback(name, total, total)
        self.seconds[name] = time.perf_counter() - started


def export(
    checkpoint: str | Path,
    output: str | Path,
    *,
    precision: Precision | None = None,
    profile: contract.Profile | None = None,
    moe: MoeChoice = "auto",
    drafter: str | Path | None = None,
    force: bool = False,
    copy: bool = False,
    progress: ProgressCallback | None = None,
) -> ExportReport:
    """Exports a DiffusionGemma checkpoint folder to an engine package.

    Args:
        checkpoint: folder with config.json and safetensors files.
        output: package folder; must not exist or be empty unless `force`.
        precision: how weights are stored; None keeps the checkpoint's own, without copying where links work. `int8` and
            `int4` need the profile `fused`.
        profile: operator profile; `portable` is standard ONNX, in `fused` the heavy nodes are operators that only the
            native library of dgrt has. None: `fused`, or `portable` where `moe` asks for a form of it.
        moe: form of the experts in `portable`; `auto` chooses by size.
        drafter: checkpoint folder of a drafter for this model, which becomes part of the package.
        force: replace a package that is there.
        copy: share no file with the checkpoint, which may then be written to. Where the file system can (reflink), a
            copy takes no space before one of the two is.
        progress: called with (stage, done, total); see `STAGES`.

    Returns:
        The report, with the manifest as written.

    Raises:
        InvalidCheckpoint, Unsupported, OutputError: the input or the output will not do.
        NoSpace: the disk has no room.
        ImportError: packages of the export extra are missing; all of them are named.
        ParityError: the graphs do not compute what transformers, or for the drafter plain torch, computes; nothing is
            left behind.

    Example:
        >>> report = export("checkpoints/mini", "engines/mini")  # doctest: +SKIP
        >>> report.manifest["parity"]["max_abs_error"] < 1e-4  # doctest: +SKIP
        True
    """
    _require_packages()
    profile = _chosen_profile(precision, profile, moe)
    source = find_checkpoint(_path("checkpoint", checkpoint))
    drafter_source = None if drafter is None else Path(_path("drafter", drafter)).absolute()
    sources = [path.resolve() for path in (source, drafter_source) if path is not None]
    target = check_output(_path("output", output), sources, force)

    steps = _Progress(progress)
    with steps.stage("read config"):
        raw = read_json(source / "config.json")
        config = parse_config(raw)
        generation = read_generation(source, config)
        texts = read_text_files(source)
        tensors = open_checkpoint(source, config)
        plan = plan_weights(tensors, precision)
        identity = fingerprint(tensors)
        drafted = None if drafter_source is None else open_drafter(drafter_source, config, identity, plan)
        plans = [plan] if drafted is None else [plan, drafted.weights]
        entries = {name: entry for part in plans for name, entry in part.entries.items()}
        total_bytes = sum(part.total_bytes for part in plans)
        needed = _needed_bytes(plans, texts, target, copy)
        require_space(target, needed)
        notes = (*tensors.notes, *text_notes(source, config, generation["stop_ids"]))
    read = [*tensors.tensors.values(), *(drafted.tensors.values() if drafted is not None else ())]
    with steps.stage("check weights", sum(entry.num_bytes for entry in read)) as advance:
        require_finite(read, advance)

    with naming_a_full_disk(target, needed), staged(target, force) as folder:
        with steps.stage("trace", len(contract.GRAPHS) + (drafted is not None)) as advance:
            import onnx

            from .graphs.target import build_target, reference_config
            from .graphs.trace import trace, trace_drafter

            module = build_target(reference_config(raw))
            traced = []
            for name in contract.GRAPHS:
                traced.append(trace(name, module, config, profile))
                advance(1)
            if drafted is not None:
                traced.append(trace_drafter(module, config, drafted.config, profile))
                advance(1)
        with steps.stage("lower", len(traced)) as advance:
            from .manifest import build_manifest, graph_file, hash_files
            from .to_onnx import moe as experts
            from .to_onnx.lower import lower

            form = None if profile == contract.FUSED else experts.choose(config) if moe == "auto" else moe
            for graph in traced:
                onnx.save(lower(graph, entries, profile, form), folder / graph_file(graph.name))
                advance(1)
        with steps.stage("weights", total_bytes) as advance:
            origins = [part.write(folder, advance, copy) for part in plans]
            texts.write(folder)
            notes = (*notes, *texts.notes, *texts.template_problems())
        from .check import check_parity, num_passes
        from .check_drafter import check_drafter, num_drafter_passes

        passes = num_passes(config) + (0 if drafted is None else num_drafter_passes(drafted.config))
        with steps.stage("parity", passes) as advance:
            parity = check_parity(folder, config, raw, plan.entries, profile, form, advance)
            if drafted is not None:
                parity |= check_drafter(folder, drafted.config, config, raw, entries, profile, advance)
        with steps.stage("hash", sum(path.stat().st_size for path in folder.iterdir())) as advance:
            weight_files = sorted(path.name for part in plans for path in part.sources)
            files = hash_files(folder, weight_files, advance)
        manifest = build_manifest(
            config, tensors, identity, plan, drafted, generation, files, weight_files, parity, profile, form,
            _dgrt_version(),
        )  # fmt: skip
        write_manifest(folder, manifest)
    drafter_origin = origins[1] if drafted is not None else None
    return ExportReport(
        target, manifest, origins[0], total_bytes, drafter_origin, steps.seconds, texts.template, notes
    )


def _require_packages() -> None:
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ImportError(f"no {', no '.join(missing)}")


def _chosen_profile(precision: str | None, profile: contract.Profile | None, moe: str) -> contract.Profile:
    """The profile of an export; refuses options that do not exist or do not go together."""
    if profile is None:
        profile = contract.FUSED if moe == "auto" else contract.PORTABLE
    if profile not in get_args(contract.Profile):
        raise Unsupported(mismatch("profile", "'portable' or 'fused'", repr(profile)))
    if precision not in (None, *get_args(Precision)):
        raise Unsupported(mismatch("precision", "'fp32', 'bf16', 'int8' or 'int4'", repr(precision)))
    if precision in FORMATS and profile != contract.FUSED:
        expected = "'fused' (standard operators do not read quantised weights)"
        raise Unsupported(mismatch(f"profile of precision {precision!r}", expected, repr(profile)))
    if moe not in get_args(MoeChoice):
        raise Unsupported(mismatch("moe", "'auto', 'dense', 'unrolled' or 'loop'", repr(moe)))
    if profile == contract.FUSED:
        if moe != "auto":
            raise Unsupported(mismatch("moe of profile 'fused'", "'auto' (its experts are one operator)", repr(moe)))
        find_library()  # the parity gate needs it: a missing one is told before minutes of work
    return profile


def _needed_bytes(plans: list[WeightPlan], texts: TextFiles, output: Path, copy: bool) -> int:
    """Bytes of disk that the package will take beyond what it shares with the checkpoint."""
    folder = existing_parent(output)
    graphs = _MOST_GRAPH_BYTES * (len(contract.GRAPHS) + len(contract.OPTIONAL_GRAPHS))
    return sum(plan.bytes_to_write(folder, copy) for plan in plans) + sum(map(len, texts.contents.values())) + graphs


def _path(name: str, given: object) -> str:
    """A path that a caller gave. An empty one is the variable that was never set, not the current folder."""
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise Unsupported(mismatch(name, "the path of a folder", quote(given)))
    if any("\ud800" <= char <= "\udfff" for char in path):  # bytes that are no UTF-8; the manifest holds names
        remedy = "rename it, or give a link to it"
        raise Unsupported(mismatch(name, "a path in UTF-8", quote(os.fsencode(path)), remedy))
    return path


def _dgrt_version() -> str:
    """Version of the installed distribution; a source tree without one says so."""
    try:
        return metadata.version("dgrt")
    except metadata.PackageNotFoundError:
        return "0+source"
