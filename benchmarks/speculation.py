"""Passes and speed of each way to generate per task, on held-out cases of the bundled model.

    python benchmarks/speculation.py engines/mini --cases 100 --out benchmarks/results/speculation.json

The modes take turns on every case, so a slow moment of the machine is shared. Prints, per task and mode: the share of
exact answers, target passes and token rows per case (prefill, denoise, commit, packed and causal passes), tokens/s from
token ids to token ids, and its ratio to the plain refinement loop in the same run. Stops if a mode of the exact tier
emits other tokens than the plain loop.

Drafters: the suffix drafter, the engine's own network ("model"; left out where the engine has none), or whichever pays
("auto"). Passes and rows of the network are counted apart. The modes of the verified tier also draft from an expected
output: the right answer, the right answer with one letter or digit replaced by another, the answer to another prompt
("foreign"), or what the prompt gives to work on, unchanged ("stale"). "no folds" is without the leave-out check.
"each step": the network is asked after each step too, and what it says checked beside the next, as where rows are free.
"packed" holds all checks in one pass; the run stops if that emits other tokens than checks on their own. "overlap"
begins a canvas before the last one is done; left out where the engine cannot pack.

What drafts do to the output, beside exact answers: how often a wrong character was committed by the checks alone (false
commits); over all token positions where a draft differs from the right answer, how often the output has the drafted
token, and that of the plain loop (the difference is the draft-retention coefficient); cases that only the plain loop or
only the mode gets right (McNemar); tokens per case, cases that end with a stop id, and 8-grams of tokens that occurred
before in the same output.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

from accuracy import TASKS
from dgrt_train.tasks.case import HELD_OUT_SEED
from environment import environment

import dgrt

PLAIN = "exact, pipeline off"
MODES = {
    PLAIN: {"pipeline": "off"},
    "exact, pipeline auto": {},
    "exact, pipeline on": {"pipeline": "on"},
    "causal, none": {"guarantee": "causal", "temperature": 0.0},
    "causal, suffix": {"guarantee": "causal", "temperature": 0.0, "drafter": "suffix"},
    "causal, model": {"guarantee": "causal", "temperature": 0.0, "drafter": "model"},
    "causal, auto": {"guarantee": "causal", "temperature": 0.0, "drafter": "auto"},
    "verified, suffix": {"guarantee": "verified", "drafter": "suffix"},
    "verified, model": {"guarantee": "verified", "drafter": "model"},
    "verified, model, no folds": {"guarantee": "verified", "drafter": "model", "verify": dgrt.VerifyOptions(folds=0)},
    "verified, model, each step": {
        "guarantee": "verified",
        "drafter": "model",
        "verify": dgrt.VerifyOptions(packing="on", redraft="on", always=True),
    },
    "verified, auto": {"guarantee": "verified", "drafter": "auto"},
    "verified, overlap": {"guarantee": "verified", "drafter": "overlap"},
    "verified, right draft": {"guarantee": "verified"},
    "verified, right draft, no folds": {"guarantee": "verified", "verify": dgrt.VerifyOptions(folds=0)},
    "verified, wrong draft": {"guarantee": "verified"},
    "verified, wrong draft, no folds": {"guarantee": "verified", "verify": dgrt.VerifyOptions(folds=0)},
    "verified, foreign draft": {"guarantee": "verified"},
    "verified, stale draft": {"guarantee": "verified"},
    "verified, right draft, packed": {"guarantee": "verified", "verify": dgrt.VerifyOptions(packing="on")},
    "verified, wrong draft, packed": {"guarantee": "verified", "verify": dgrt.VerifyOptions(packing="on")},
}
PACKED = ", packed"
NGRAM = 8
SUMS = ("correct", "passes", "seconds", "false_commits", "kept_wrong", "plain_wrong", "only_plain_right",
        "only_mode_right", "stopped", "repeated_grams", "grams", "wrong_positions", "retained",
        "plain_retained")  # fmt: skip
COUNTS = ("tokens", "row_tokens", "accepted_drafts", "draft_calls", "draft_passes", "draft_rows", "draft_commits",
          "draft_refines", "draft_discards", "verify_passes", "draft_ms")  # fmt: skip


def spoil(answer: str, index: int) -> tuple[str, int]:
    """The answer with one digit or letter replaced by another of its kind, and where."""
    choose = random.Random(index)
    place = choose.choice([i for i, character in enumerate(answer) if character in "123456789" or character.islower()])
    others = "123456789" if answer[place].isdigit() else "abcdefghijklmnopqrstuvwxyz"
    other = choose.choice(others.replace(answer[place], ""))
    return answer[:place] + other + answer[place + 1 :], place


def repeats(tokens: list[int]) -> tuple[int, int]:
    """How many of the 8-grams occurred before in these tokens, and how many there are."""
    grams = [tuple(tokens[i : i + NGRAM]) for i in range(len(tokens) - NGRAM + 1)]
    return len(grams) - len(set(grams)), len(grams)


def count_output(row: dict, result: dgrt.GenerateResult, right: bool, plain_right: bool) -> None:
    """What the output is like, whatever was drafted."""
    row["correct"] += right
    row["only_plain_right"] += plain_right and not right
    row["only_mode_right"] += right and not plain_right
    row["stopped"] += result.finish_reason == "stop"
    repeated, grams = repeats(result.tokens.tolist())
    row["repeated_grams"] += repeated
    row["grams"] += grams


def count_retained(row: dict, draft: list[int], answer: list[int], tokens: list[int], plain: list[int]) -> None:
    """Token positions where the draft is wrong, and how often it is in the outputs there."""
    wrong = [i for i, token in enumerate(draft) if answer[i : i + 1] != [token]]
    row["wrong_positions"] += len(wrong)
    row["retained"] += sum(tokens[i : i + 1] == [draft[i]] for i in wrong)
    row["plain_retained"] += sum(plain[i : i + 1] == [draft[i]] for i in wrong)


def measure(runtime: dgrt.Runtime, task: str, cases: int, modes: dict[str, dict]) -> list[dict]:
    """Runs one task in the plain loop and these modes and returns a row per mode."""
    generate, check = TASKS[task]
    assert runtime.tokenizer is not None
    encode = runtime.tokenizer.encode
    rows = {mode: {"task": task, "mode": mode, "cases": cases, **dict.fromkeys(SUMS + COUNTS, 0)} for mode in modes}
    for index in range(cases):
        case = generate(HELD_OUT_SEED, index)
        prompt = runtime.encode(case.prompt)
        wrong, place = spoil(case.answer, index)
        drafts = {"right": case.answer, "wrong": wrong, "foreign": generate(HELD_OUT_SEED, index + cases).answer,
                  "stale": case.prompt.partition("\n")[2]}  # fmt: skip
        outputs: dict[str, list[int]] = {}
        for mode, options in modes.items():
            draft = next((text for kind, text in drafts.items() if f"{kind} draft" in mode), None)
            if draft is not None:
                options = {**options, "draft": draft}
            start = time.perf_counter()
            result = runtime.generate(prompt, seed=index, max_new_tokens=384, **options)
            row, stats = rows[mode], result.stats
            row["seconds"] += time.perf_counter() - start
            tokens = outputs[mode] = result.tokens.tolist()
            same_as = PLAIN if mode.startswith("exact") else mode.removesuffix(PACKED)
            if tokens != outputs[same_as]:
                sys.exit(f"{task} {index}: {mode} emitted other tokens than {same_as}")
            right = check(case, result.text or "")
            if mode == PLAIN:
                plain_text, plain_right = result.text or "", right
            count_output(row, result, right, plain_right)
            if draft is not None:
                count_retained(row, encode(draft), encode(case.answer), tokens, outputs[PLAIN])
            if draft == wrong:
                kept = (result.text or "")[place : place + 1] == wrong[place]
                row["kept_wrong"] += kept
                row["plain_wrong"] += plain_text[place : place + 1] == wrong[place]
                row["false_commits"] += kept and stats.draft_commits == stats.canvases
            elif draft in (drafts["foreign"], drafts["stale"]):
                row["false_commits"] += not right and stats.draft_commits == stats.canvases
            row["passes"] += stats.prefill_passes + stats.denoise_passes + stats.commit_passes
            row["passes"] += stats.packed_passes + stats.causal_passes + stats.verify_passes
            for name in COUNTS:
                row[name] += getattr(stats, name)
        if sys.stderr.isatty():
            print(f"{task:11} {index + 1} of {cases}", end="\r", file=sys.stderr, flush=True)
    plain = rows[PLAIN]["tokens"] / rows[PLAIN]["seconds"]
    for row in rows.values():
        row["tokens_per_s"] = row["tokens"] / row["seconds"]
        row["speedup"] = row["tokens_per_s"] / plain
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engine", help="engine package folder")
    parser.add_argument("--cases", type=int, default=100, help="held-out cases per task (default 100)")
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), default=list(TASKS))
    parser.add_argument("--tiers", nargs="+", choices=("exact", "causal", "verified"), help="default: all")
    parser.add_argument("--modes", nargs="+", choices=sorted(MODES), metavar="MODE", help="default: all of the tiers")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, help="write the rows as JSON, after each task")
    args = parser.parse_args()
    runtime = dgrt.Runtime(args.engine, threads=args.threads)
    modes = {m: o for m, o in MODES.items() if m == PLAIN or args.tiers is None or m.split(",")[0] in args.tiers}
    modes = {m: o for m, o in modes.items() if m == PLAIN or args.modes is None or m in args.modes}
    if "drafter" not in runtime.info.manifest:
        modes = {mode: options for mode, options in modes.items() if options.get("drafter") != "model"}
    # Loading of graphs and first touch of weights; several canvases, so all graphs.
    for mode, options in list(modes.items()):
        tokens = 3 * runtime.info.canvas_len
        if "draft" in mode:
            verify = replace(options.get("verify", dgrt.VerifyOptions()), always=True)
            options = {**options, "verify": verify, "draft": range(5, 5 + runtime.info.canvas_len)}
        try:
            runtime.generate("json\nname=Ana Silva", max_new_tokens=tokens, stop_ids=(), **options)
        except dgrt.Unsupported:
            if options.get("drafter") != "overlap":
                raise
            del modes[mode]
    rows = []
    for task in args.tasks:
        for row in measure(runtime, task, args.cases, modes):
            rows.append(row)
            wrong = row["wrong_positions"]
            print(
                f"{task:11} {row['mode']:32} {100 * row['correct'] / row['cases']:6.1f} %  "
                f"{row['passes'] / row['cases']:6.1f} passes  {row['row_tokens'] / row['cases']:7.0f} rows  "
                f"{row['tokens_per_s']:7.0f} tokens/s  {row['speedup']:5.2f}x"
                + (f"  drafter {row['draft_passes'] / row['cases']:.1f} passes, {row['draft_rows'] / row['cases']:.0f} "
                   f"rows" if row["draft_passes"] else "")
                + (f"  {row['draft_commits']}/{row['draft_refines']}/{row['draft_discards']} committed/refined/"
                   f"discarded" if row["mode"].startswith("verified") else "")
                + (f"  {row['false_commits']} false commits" if "draft" in row["mode"] else "")
                + (f", kept {row['kept_wrong']} (plain {row['plain_wrong']})" if "wrong" in row["mode"] else "")
                + (f"  retention {(row['retained'] - row['plain_retained']) / wrong:+.4f} of {wrong}" if wrong else "")
                + f"  only right: plain {row['only_plain_right']}, mode {row['only_mode_right']}",
                flush=True,
            )
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps({"rows": rows, **environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
