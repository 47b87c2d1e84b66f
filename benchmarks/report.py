"""Turns results files into the tables of README.md and the model card: python benchmarks/report.py [--check]

The tables stand between `<!-- table NAME -->` and `<!-- end -->`; this script rewrites what is between. With --check it
changes nothing and exits 1 if a table is stale.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TARGETS = {"sudoku_4x4": 99.5, "sudoku_6x6": 97.0, "sudoku_9x9": 80.0, "json": 98.0, "edit": 92.0}


def source_line(report: dict) -> str:
    env = report["environment"]
    return f"{env['date']}, {env['cpu']}, {env['cores']} cores ({', '.join(env['isa'])}): `{env['command']}`"


def speed_table() -> str:
    report = json.loads((RESULTS / "e2e.json").read_text())
    lines = [
        "| model | runtime | ms/step | of it the pass | prompt and commits, ms | tokens/s | steps/canvas | peak RSS MB "
        "| parity |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        setting = row["hf_setting"]
        names = {
            "hf": f"Hugging Face ({setting['dtype']}, {setting['experts']})",
            "dgrt": f"**dgrt** ({row['profile']}, {row['precision']})",
        }
        for side, name in names.items():
            r = row[side]
            lines.append(
                f"| {row['scenario']} | {name} | {r['ms_per_step']:.2f} | {_engine(r, 'ms_per_pass', 2)} | "
                f"{_engine(r, 'encoder_ms', 0)} | {r['tokens_per_s']:.0f} | {r['steps_per_canvas']:.1f} | "
                f"{r['peak_rss_mb']:.0f} | {row['parity'] if side == 'dgrt' else 'reference'} |"
            )
        if "mlx" in row:
            r = row["mlx"]
            lines.append(
                f"| {row['scenario']} | mlx-vlm {r['versions']['mlx-vlm']} ({r['dtype']}, one prompt) | "
                f"{r['ms_per_step']:.0f} | | | {r['tokens_per_s']:.1f} | {r['steps_per_canvas']:.1f} | "
                f"{r['peak_rss_mb']:.0f} | not compared |"
            )
        lines.append(
            f"| {row['scenario']} | dgrt / Hugging Face | **{row['speedup_step']:.2f}x** | "
            f"{_ratio(row, 'ms_per_pass')} | {_ratio(row, 'encoder_ms')} | **{row['speedup_end_to_end']:.2f}x** | | | |"
        )
    return "\n".join([*lines, "", *row_sources(report["rows"], "scenario")])


def _engine(side: dict, what: str, digits: int) -> str:
    """Time of engine passes; rows of before it was taken have none."""
    return f"{side[what]:.{digits}f}" if what in side else ""


def _ratio(row: dict, what: str) -> str:
    return f"{row['hf'][what] / row['dgrt'][what]:.2f}x" if what in row["hf"] else ""


def accuracy_table() -> str:
    report = json.loads((RESULTS / "accuracy-mini.json").read_text())
    lines = [
        "| task | held-out cases | exact | 95 % interval | target | steps/canvas | canvases/case |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        low, high = row["interval_95"]
        lines.append(
            f"| {row['task']} | {row['cases']} | {100 * row['rate']:.1f} % | {100 * low:.1f} to {100 * high:.1f} % | "
            f"{TARGETS[row['task']]:.1f} % | {row['steps_per_canvas']:.1f} | {row['canvases_per_case']:.1f} |"
        )
    return "\n".join([*lines, "", *row_sources(report["rows"], "task")])


def precision_table() -> str:
    rows = json.loads((RESULTS / "accuracy-precision.json").read_text())["rows"]
    cells = {(row["task"], row["precision"]): row for row in rows}
    precisions = {row["precision"]: row["weight_bytes"] for row in rows}
    lines = [
        "| task | cases | " + " | ".join(f"{name}, {size / 1e6:.1f} MB" for name, size in precisions.items()) + " |",
        "|---" * (2 + len(precisions)) + "|",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [cells.get((task, precision)) for precision in precisions]
        cases = ", ".join(dict.fromkeys(str(row["cases"]) for row in own if row))
        lines.append(f"| {task} | {cases} | " + " | ".join(map(_precision_cell, own)) + " |")
    return "\n".join([*lines, "", *row_sources(rows, "precision_task")])


def _precision_cell(row: dict | None) -> str:
    if row is None:
        return ""
    low, high = row["interval_95"]
    return (
        f"{100 * row['rate']:.1f} % ({100 * low:.1f} to {100 * high:.1f}), {row['steps_per_canvas']:.1f} steps/canvas"
    )


def row_sources(rows: list[dict], key: str) -> list[str]:
    """One line per run that rows come from, with the names of its rows where there are several runs."""
    runs: dict[str, list[str]] = {}
    for row in rows:
        source = source_line(row) if row["environment"] else "environment and command not recorded"
        runs.setdefault(source, []).append(row[key])
    return list(runs) if len(runs) == 1 else [f"- {', '.join(names)}: {source}" for source, names in runs.items()]


def export_table() -> str:
    report = json.loads((RESULTS / "export-rss.json").read_text())
    return "\n".join([
        "| synthetic bf16 checkpoint, released widths | weights | peak RSS of the export | limit | parity error |",
        "|---|---|---|---|---|",
        f"| {report['checkpoint_bytes'] / 1e9:.2f} GB, {report['layers']} layers | {report['weights']} | "
        f"{report['peak_rss_bytes'] / 1e9:.2f} GB | {report['limit_bytes'] / 1e9:.0f} GB | "
        f"{report['parity']['max_abs_error']:.1e} |",
        "",
        source_line(report) if "environment" in report else f"`{report['command']}`",
    ])


def speculation_table() -> str:
    report = json.loads((RESULTS / "speculation.json").read_text())
    lines = [
        "| task | mode | exact answers | target passes/case | rows/case | drafter: passes, rows | tokens/s "
        "| to plain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        cases = row["cases"]
        lines.append(
            f"| {row['task']} | {row['mode']} | {100 * row['correct'] / cases:.1f} % | {row['passes'] / cases:.1f} | "
            f"{row['row_tokens'] / cases:.0f} | {_of_network(row)} | {row['tokens_per_s']:.0f} | "
            f"{row['speedup']:.2f}x |"
        )
    return "\n".join([*lines, "", source_line(report)])


def _of_network(row: dict) -> str:
    """What the drafter's network ran per case, beside the target's passes and rows."""
    if not row["draft_passes"]:
        return ""
    return f"{row['draft_passes'] / row['cases']:.1f}, {row['draft_rows'] / row['cases']:.0f}"


def verified_table() -> str:
    report = json.loads((RESULTS / "verified.json").read_text())
    lines = [
        "| task | mode | exact answers | target passes/case | rows/case | tokens/s | to plain | committed / refined / "
        "discarded | wrong character: by checks alone, in the output | draft retention | "
        "right: plain only, mode only |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        cases = row["cases"]
        drafts = " / ".join(str(row[f"draft_{what}"]) for what in ("commits", "refines", "discards"))
        wrong = str(row["false_commits"]) if "foreign" in row["mode"] or "stale" in row["mode"] else ""
        if "wrong" in row["mode"]:
            wrong = f"{row['false_commits']}, {row['kept_wrong']} of {cases} (plain loop {row['plain_wrong']})"
        lines.append(
            f"| {row['task']} | {row['mode']} | {100 * row['correct'] / cases:.1f} % | {row['passes'] / cases:.1f} | "
            f"{row['row_tokens'] / cases:.0f} | {row['tokens_per_s']:.0f} | {row['speedup']:.2f}x | "
            f"{drafts if row['mode'].startswith('verified') else ''} | {wrong} | "
            f"{_retention(row)} | {_discordant(row)} |"
        )
    return "\n".join([*lines, "", source_line(report)])


def _retention(row: dict) -> str:
    """P(output = draft) - P(plain loop = draft) where the draft is wrong, in points, and over how many tokens."""
    count = row.get("wrong_positions", 0)  # results of before it was counted have none
    return f"{100 * (row['retained'] - row['plain_retained']) / count:+.2f} of {count:,}" if count else ""


def _discordant(row: dict) -> str:
    """McNemar's counts."""
    return f"{row['only_plain_right']}, {row['only_mode_right']}" if "only_plain_right" in row else ""


def proof_table() -> str:
    """The verified tier against the plain loop over so many cases that a point shows; counts only."""
    report = json.loads((RESULTS / "verified-proof.json").read_text())
    lines = [
        "| task | mode | exact answers | right: plain only, mode only (p) | false commits | draft retention "
        "| tokens/case | ended by a stop id | 8-grams that occurred before | passes/case |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        cases = row["cases"]
        lost, won = row["only_plain_right"], row["only_mode_right"]
        repeated = 100 * row["repeated_grams"] / max(row["grams"], 1)
        is_plain = not row["mode"].startswith("verified")
        lines.append(
            f"| {row['task']} | {row['mode']} | {100 * row['correct'] / cases:.1f} % of {cases:,} | "
            f"{'' if is_plain else f'{lost}, {won} ({_mcnemar(lost, won):.2g})'} | "
            f"{row['false_commits'] if 'draft' in row['mode'] else ''} | {_retention(row)} | "
            f"{row['tokens'] / cases:.1f} | {100 * row['stopped'] / cases:.1f} % | {repeated:.2f} % | "
            f"{row['passes'] / cases:.1f} |"
        )
    return "\n".join([*lines, "", source_line(report)])


def _mcnemar(lost: int, won: int) -> float:
    """Exact two-sided p: as many or more on one side of lost + won fair coins."""
    count, least = lost + won, min(lost, won)
    return min(1.0, 2 * sum(math.comb(count, i) for i in range(least + 1)) / 2**count)


def outputs_table() -> str:
    """What outputs are like with and without drafts; empty for results of before it was counted."""
    report = json.loads((RESULTS / "verified.json").read_text())
    lines = [
        "| task | mode | tokens/case | ended by a stop id | 8-grams that occurred before |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        if "grams" not in row:
            continue
        repeated = 100 * row["repeated_grams"] / max(row["grams"], 1)
        lines.append(
            f"| {row['task']} | {row['mode']} | {row['tokens'] / row['cases']:.1f} | "
            f"{100 * row['stopped'] / row['cases']:.1f} % | {repeated:.2f} % |"
        )
    return "\n".join(lines)


def serving_table() -> str:
    report = json.loads((RESULTS / "serving.json").read_text())
    lines = [
        "| engine | one by one | together | ratio (range) | outside passes | short alone | among seven long | bar |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        t, w = row["throughput"], row["latency"]
        lines.append(
            f"| {row['engine'].split(', CPU, ')[1]} "
            f"| {t['alone_tokens_per_s']:.0f} tokens/s | {t['together_tokens_per_s']:.0f} tokens/s "
            f"| **{t['ratio']:.2f}x** ({t['ratio_low']:.2f} to {t['ratio_high']:.2f}) "
            f"| {100 * row['scheduling']['overhead_share']:.1f} % | {w['solo_p50_ms']:.0f} ms "
            f"| {w['loaded_p50_ms']:.0f} ms, p95 {w['loaded_p95_ms']:.0f} ms | {w['bar_ms']:.0f} ms |"
        )
        if "hugging_face" in row:
            hf = row["hugging_face"]
            alone, batch = hf["alone_tokens_per_s"], hf["batch_tokens_per_s"]
            lines.append(
                f"| Hugging Face ({hf['setting']['dtype']}, {hf['setting']['experts']}) | {alone:.0f} tokens/s "
                f"| {batch:.0f} tokens/s | {batch / alone:.2f}x | | | | |"
            )
    return "\n".join([*lines, "", *row_sources(report["rows"], "engine")])


def soak_line() -> str:
    report = json.loads((RESULTS / "soak.json").read_text())
    counts = dict(report["counts"])
    refused = counts.pop("QueueFull", 0)
    kinds = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    return (
        f"{report['clients']} clients for {report['minutes']:g} minutes: {sum(counts.values()):,} requests ran "
        f"({kinds}), {refused:,} more were refused by the queue, {len(report['problems'])} problems; "
        f"{report['rss_warm_bytes'] / 2**20:.0f} MB resident after the first minute, "
        f"{report['rss_end_bytes'] / 2**20:.0f} MB at the end, {report['live_handles']} handles left. "
        f"{source_line(report)}"
    )


def context_table() -> str:
    report = json.loads((RESULTS / "long-context.json").read_text())
    lines = [
        "| context, tokens | prefill, us/token | denoise, ms/step | KV, MB | by the formula | resident memory |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        lines.append(
            f"| {row['tokens']:,} | {row['prefill_us_per_token']:.1f} | {row['denoise_ms_per_step']:.1f} | "
            f"{row['peak_kv_bytes'] / 2**20:.1f} | {row['formula_bytes'] / 2**20:.1f} | "
            f"+{row['rss_growth_bytes'] / 2**20:.1f} MB |"
        )
    return "\n".join([*lines, "", source_line(report)])


def prefix_table() -> str:
    report = json.loads((RESULTS / "prefix.json").read_text())
    lines = [
        "| model | prompt, of it cached | prefill ms | first draft ms | first final canvas ms |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        times = [row[metric] for metric in ("prefill_ms", "first_draft_ms", "first_canvas_ms")]
        lines.append(
            f"| {row['scenario']} | {row['prompt_tokens']}, {row['prefix_tokens']} | "
            + " | ".join(f"{t['cold']:.0f} -> {t['warm']:.1f} (**{t['ratio']:.1f}x**)" for t in times)
            + " |"
        )
    return "\n".join([*lines, "", source_line(report)])


def scale_table() -> str:
    report = json.loads((RESULTS / "scale.json").read_text())
    lines = [
        "| released widths | weights | export: time, peak RSS | load | prefill | denoise, ms/step | head, ms/step "
        "| GFLOP/s (PyTorch fp32) | weights read (machine) | memory beside weights and KV |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        machine, export = row["machine"], row["export"]
        beside = row.get("beyond_weights_and_kv_bytes")  # withdrawn where it was read when KV had been given back
        beside = "-" if beside is None else f"{beside / 1e6:.0f} MB"
        lines.append(
            f"| {row['name']} | {row['weight_bytes'] / 1e9:.2f} GB | {export['total_seconds']:.0f} s, "
            f"{export['peak_rss_bytes'] / 1e9:.2f} GB | {row['load_seconds']:.1f} s | "
            f"{row['prefill_ms'] / row['prompt_tokens']:.2f} ms/token | {row['denoise_ms']:.0f} | {row['head_ms']:.0f} "
            f"| {row['gflops']:.0f} ({machine['fp32_gflops']:.0f}) | {row['weights_gb_per_s']:.1f} GB/s "
            f"({machine['read_gb_per_s']:.1f}) | {beside} |"
        )
    return "\n".join([*lines, "", *row_sources(report["rows"], "name")])


def head_line() -> str:
    report = json.loads((RESULTS / "head.json").read_text())
    pairs = [("bfloat16", "dgrt_bf16_s", "products of bf16"), ("float32", "dgrt_s", "of fp32")]
    sides = [
        f"{what}: dgrt {report[ours]:.2f} s, PyTorch {report[f'{dtype}_s']:.2f} s "
        f"(**{report[f'{dtype}_s'] / report[ours]:.1f}x**)"
        for dtype, ours, what in pairs
        if f"{dtype}_s" in report
    ]
    return f"{'; '.join(sides)}. {source_line(report)}"


def curves_table() -> str:
    """Milliseconds per size with one thread, and how much faster the most threads are."""
    report = json.loads((RESULTS / "curves.json").read_text())
    times: dict[tuple[str, str], dict[int, dict[int, float]]] = {}
    for row in report["rows"]:
        times.setdefault((row["kernel"], row["axis"]), {}).setdefault(row["size"], {})[row["threads"]] = row["ms"]
    lines = ["| kernel | grows with | size: ms with one thread (times faster with two) |", "|---|---|---|"]
    for (kernel, axis), sizes in times.items():
        cells = [f"{size:,}: {ms[1]:.2f} ({ms[1] / ms[2]:.1f})" for size, ms in sizes.items()]
        lines.append(f"| {kernel} | {axis} | {', '.join(cells)} |")
    return "\n".join([*lines, "", source_line(report)])


TABLES = {
    "speed": speed_table, "accuracy": accuracy_table, "precision": precision_table, "export": export_table,
    "speculation": speculation_table,
    "verified": verified_table,
    "proof": proof_table,
    "outputs": outputs_table,
    "serving": serving_table,
    "soak": soak_line,
    "context": context_table,
    "prefix": prefix_table,
    "scale": scale_table,
    "head": head_line,
    "curves": curves_table,
}  # fmt: skip
DOCUMENTS = ("README.md", "benchmarks/README.md", "dgrt/models/mini/README.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a table is stale")
    args = parser.parse_args()
    stale = []
    for document in DOCUMENTS:
        path = ROOT / document
        text = path.read_text()
        fresh = re.sub(
            r"(<!-- table (\w+) -->\n).*?(<!-- end -->)",
            lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[3]}",
            text,
            flags=re.DOTALL,
        )
        if fresh != text:
            stale.append(document)
            if not args.check:
                path.write_text(fresh)
    if args.check and stale:
        sys.exit(f"stale tables in {', '.join(stale)}: run python benchmarks/report.py")


if __name__ == "__main__":
    main()
