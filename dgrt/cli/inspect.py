"""`dgrt inspect`: what an engine package is, what memory it needs, and whether its files are what the manifest says."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dgrt.cli.arguments import add_engine, add_runtime, readable, runtime_keywords

if TYPE_CHECKING:
    from dgrt import EngineInfo, MemoryPlan, Runtime

_EPILOG = """\
examples:
  dgrt inspect engine
  dgrt inspect engine --verify              hash the weights whole, not samples of them
  dgrt inspect engine --memory-limit 2G     does a sequence of the whole context fit?
  dgrt inspect engine --json | jq .memory
"""


_SAMPLED = "graphs and texts match; weights: size and samples match (--verify hashes them whole)"


def add_parser(subparsers: Any) -> None:
    """Adds the verb to the parser of `dgrt`."""
    parser = subparsers.add_parser(
        "inspect",
        help="show the facts of an engine",
        description="Show model facts, context length, memory plan, precision, parity result and files of an engine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_engine(parser)
    parser.add_argument(
        "--verify", action="store_true", help="hash the weight files whole, not samples of them (reads them once)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_runtime(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    with _open(args) as runtime:
        if args.json:
            _print_json(args, runtime)
        else:
            _print_text(args, runtime)
    return 0


def _open(args: argparse.Namespace) -> Runtime:
    from dgrt import Runtime
    from dgrt.cli.display import progress_line

    with progress_line() as show:
        if args.verify:
            show(f"hashing the files of {args.engine}")
        return Runtime(args.engine, verify_weights=args.verify, **runtime_keywords(args))


def _print_json(args: argparse.Namespace, runtime: Runtime) -> None:
    from dgrt.cli.display import print_json

    info, plan = runtime.info, runtime.memory()
    facts = asdict(info)
    facts.pop("manifest")
    print_json(
        {
            "engine": readable(args.engine),
            **facts,
            "memory": {**asdict(plan), "total_bytes": plan.total_bytes},
            "memory_limit": args.memory_limit,
            "fits_memory_limit": None if args.memory_limit is None else plan.session_bytes <= args.memory_limit,
            "execution": runtime.description,
            "threads": runtime.threads,
            "has_tokenizer": runtime.tokenizer is not None,
            "weights_verified": args.verify,
        }
    )


def _print_text(args: argparse.Namespace, runtime: Runtime) -> None:
    from dgrt.cli.display import human_bytes, print_rows, print_title

    info, plan = runtime.info, runtime.memory()
    print_title(f"{info.name} ({info.architecture})")
    print_rows([*_model_rows(info), ("text", "tokenizer" if runtime.tokenizer else "none: token ids only")])
    print_title("Generation defaults")
    print_rows([(key.replace("_", " "), _plain(value)) for key, value in info.generation.items()])
    print_title("Memory")
    print_rows(_memory_rows(info, plan, args.memory_limit))
    print_title("Package")
    print_rows(_package_rows(info, runtime, verified=args.verify))
    print_title("Files")
    print_rows((name, human_bytes(count)) for name, count in sorted(info.files.items()))


def _model_rows(info: EngineInfo) -> list[tuple[str, str]]:
    kinds = Counter((layer.type, layer.num_kv_heads, layer.head_dim) for layer in info.layers)
    layers = ", ".join(f"{n} {kind} ({heads} KV heads x {dim})" for (kind, heads, dim), n in kinds.items())
    return [
        ("context", f"{info.context_len:,} tokens"),
        ("canvas", f"{info.canvas_len} tokens"),
        ("vocabulary", f"{info.vocab_size:,}"),
        ("hidden size", str(info.hidden_size)),
        ("layers", f"{len(info.layers)}: {layers}"),
        ("sliding window", f"{info.sliding_window} tokens"),
        ("query heads", str(info.num_heads)),
        ("experts", f"{info.num_experts}, {info.top_k_experts} per token"),
        ("drafter", _drafter(info)),
        ("images", {"none": "no vision tower", "skipped": "left out of this engine"}.get(info.vision, info.vision)),
    ]


def _drafter(info: EngineInfo) -> str:
    if info.drafter is None:
        return "none"
    layers = ", ".join(map(str, info.drafter.kv_layers))
    return f"{info.drafter.name}: up to {info.drafter.block_len} tokens at once, from the KV of layers {layers}"


def _memory_rows(info: EngineInfo, plan: MemoryPlan, limit: int | None) -> list[tuple[str, str]]:
    from dgrt.cli.display import human_bytes

    rows = [
        ("weights", human_bytes(plan.weight_bytes)),
        ("KV", f"{human_bytes(plan.kv_bytes_full_context)} for one sequence of {info.context_len:,} tokens"),
        ("per token", f"{human_bytes(plan.kv_bytes_per_token)} in full layers"),
        ("windows", f"{human_bytes(plan.kv_window_bytes)} in sliding layers, however long the sequence"),
        ("workspace", human_bytes(plan.workspace_bytes)),
        ("together", human_bytes(plan.total_bytes)),
    ]
    if limit is not None:
        verdict = "enough" if plan.session_bytes <= limit else "too little"
        needs = f"KV of the whole context and workspace, {human_bytes(plan.session_bytes)}"
        rows.append(("limit", f"{human_bytes(limit)}: {verdict} for {needs}"))
    return rows


def _package_rows(info: EngineInfo, runtime: Runtime, *, verified: bool) -> list[tuple[str, str]]:
    tools = ", ".join(f"{name} {version}" for name, version in info.tools.items())
    return [
        ("precision", info.precision),
        ("profile", info.profile),
        ("runs on", runtime.description),
        ("exported by", f"dgrt {info.dgrt_version}" + (f" ({tools})" if tools else "")),
        ("contract", f"version {info.contract_version}"),
        *_parity_rows(info),
        ("files", "all match, hashed whole" if verified else _SAMPLED),
    ]


def _parity_rows(info: EngineInfo) -> list[tuple[str, str]]:
    from dgrt.cli.display import parity_text

    if "limit" not in info.parity:
        return [("parity", "not recorded")]
    place = f"with {info.parity.get('reference')}, layers {_plain(info.parity.get('layers', []))}"
    rows = [("parity", f"{place}: {parity_text(info.parity)}")]
    if "drafter_limit" in info.parity:
        rows.append(("", f"drafter with plain torch: {parity_text(info.parity, 'drafter_')}"))
    return rows


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
