"""`mini` answers: held-out cases of every task through the native runtime, as `benchmarks/accuracy.py` asks them. Its
drafter fits it, changes no token and saves passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cases import MINI_FLOORS
from dgrt_train.tasks import HELD_OUT_SEED, Case, edit, json_record, sudoku

import dgrt

TASKS: dict[str, tuple[Callable[[int, int], Case], Callable[[Case, str], bool]]] = {
    "sudoku_4x4": (lambda seed, i: sudoku.generate(seed, i, "4x4"), sudoku.check),
    "sudoku_6x6": (lambda seed, i: sudoku.generate(seed, i, "6x6"), sudoku.check),
    "sudoku_9x9": (lambda seed, i: sudoku.generate(seed, i, "9x9"), sudoku.check),
    "json": (json_record.generate, json_record.check),
    "edit_short": (lambda seed, i: edit.generate(seed, i, "short"), edit.check),
}


@pytest.mark.parametrize("task", MINI_FLOORS)
def test_mini_answers_held_out_cases(mini: dgrt.Runtime, task: str) -> None:
    generate, check = TASKS[task]
    cases, floor = MINI_FLOORS[task]
    wrong = []
    for index in range(cases):
        case = generate(HELD_OUT_SEED, index)
        # An answer takes one canvas; the limit keeps one that never ends short.
        text = mini.generate(case.prompt, seed=index, max_new_tokens=2 * mini.info.canvas_len).text
        if not check(case, text or ""):
            wrong.append((index, text))
    assert cases - len(wrong) >= floor * cases, f"{len(wrong)} of {cases} wrong, such as {wrong[:3]}"


@pytest.fixture(scope="module")
def drafted(mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dgrt.Runtime]:
    """mini with the drafter that the package ships."""
    from dgrt_export import export

    folder = tmp_path_factory.mktemp("drafted") / "engine"
    export(mini_checkpoint, folder, drafter=mini_checkpoint.with_name("mini-drafter"))
    with dgrt.Runtime(folder, threads=1) as runtime:
        yield runtime


@pytest.mark.parametrize("task", TASKS)
def test_the_bundled_drafter_changes_no_token(drafted: dgrt.Runtime, task: str) -> None:
    for index in range(3):
        prompt = TASKS[task][0](HELD_OUT_SEED, index).prompt
        options = {"guarantee": "causal", "seed": index, "max_new_tokens": 96}
        expected = drafted.generate(prompt, **options).tokens.tolist()
        for drafter in ("model", "auto"):
            assert drafted.generate(prompt, drafter=drafter, **options).tokens.tolist() == expected, drafter


@pytest.mark.parametrize(("task", "factor"), [("json", 5), ("sudoku_4x4", 3)])
def test_the_bundled_drafter_saves_passes(drafted: dgrt.Runtime, task: str, factor: int) -> None:
    passes = dict.fromkeys(("none", "model"), 0)
    for index in range(10):
        prompt = TASKS[task][0](HELD_OUT_SEED, index).prompt
        for drafter in passes:
            stats = drafted.generate(prompt, drafter=drafter, guarantee="causal", temperature=0.0, seed=index).stats
            passes[drafter] += stats.causal_passes
            assert drafter == "none" or stats.accepted_drafts > 0
    assert passes["none"] > factor * passes["model"]


@pytest.mark.parametrize("task", ["json", "sudoku_4x4"])
def test_the_bundled_drafter_is_asked_again_after_each_step(drafted: dgrt.Runtime, task: str) -> None:
    """The same tokens packed and not; packed, fewer passes than the plain loop; a refused draft leaves no trace."""
    plain_passes = passes = in_the_middle = 0
    for index in range(10):
        prompt = TASKS[task][0](HELD_OUT_SEED, index).prompt
        plain = drafted.generate(prompt, seed=index, max_new_tokens=96)
        packed, alone = (
            drafted.generate(
                prompt, seed=index, max_new_tokens=96, guarantee="verified", drafter="model",
                verify=dgrt.VerifyOptions(packing=packing, redraft="on", always=True),
            )
            for packing in ("on", "off")
        )  # fmt: skip
        assert packed.tokens.tolist() == alone.tokens.tolist()
        stats, others = packed.stats, alone.stats
        assert (stats.draft_commits, stats.steps_per_canvas) == (others.draft_commits, others.steps_per_canvas)
        if stats.draft_commits + stats.draft_refines == 0:
            assert packed.tokens.tolist() == plain.tokens.tolist()
        in_the_middle += stats.draft_commits > 0 and stats.steps_per_canvas[0] > 1
        plain_passes += plain.stats.denoise_passes
        passes += stats.denoise_passes + stats.verify_passes
    assert passes < 0.9 * plain_passes and in_the_middle > 0
