"""Generation options: defaults, checks, suggestions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dgrt import GenerateOptions, InvalidArgument, VerifyOptions
from dgrt.options import GenerateKeywords, make_options


def test_options_are_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GenerateOptions().seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        GenerateOptions(7)  # type: ignore[misc]


def test_the_keywords_of_generate_are_the_fields_of_the_options() -> None:
    assert set(GenerateKeywords.__annotations__) == {field.name for field in dataclasses.fields(GenerateOptions)}


@pytest.mark.parametrize(
    ("given", "meant"),
    [("sed", "seed"), ("max_token", "max_new_tokens"), ("stop_id", "stop_ids"), ("drafters", "drafter")],
)
def test_an_unknown_option_names_the_nearest_one(given: str, meant: str) -> None:
    with pytest.raises(InvalidArgument, match=f"'{given}'; did you mean '{meant}'"):
        make_options(None, {given: 1})


def test_an_unknown_option_like_nothing_known_lists_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match=r"unknown option 'zzzzz' \(known: .*seed.*\)"):
        make_options(None, {"zzzzz": 1})


@pytest.mark.parametrize("name", ["guarantee", "drafter", "pipeline"])
def test_a_mode_that_is_none_names_what_is(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} must be one of (exact|none|auto), .*; got 'lossless'"):
        make_options(None, {name: "lossless"})


@pytest.mark.parametrize(
    ("given", "meant"),
    [({"guarantee": "Exact"}, "exact"), ({"guarantee": "verify"}, "verified"), ({"drafter": "sufix"}, "suffix")],
)
def test_a_misspelt_mode_names_the_nearest_one(given: dict[str, str], meant: str) -> None:
    with pytest.raises(InvalidArgument, match=f"did you mean '{meant}'"):
        make_options(None, given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("max_tokens", "'max_new_tokens'"),
        ("stop", "'stop_ids' takes token ids"),
        ("top_p", "'entropy_bound'"),
        ("n", "several seeds"),
        ("enable_thinking", "'thinking'"),
        ("documents", "template_arguments"),
    ],
)
def test_a_name_of_other_libraries_gets_a_sentence(given: str, says: str) -> None:
    for make in (lambda: make_options(None, {given: 1}), lambda: GenerateOptions(**{given: 1})):  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match=f"unknown option '{given}': .*{says}"):
            make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draft": "yes"}, "draft needs guarantee 'verified', got guarantee 'exact'"),
        ({"draft": "yes", "guarantee": "causal"}, "draft needs guarantee 'verified'"),
        ({"draft": "", "guarantee": "verified"}, "the draft is empty"),
        ({"draft": [1, -1], "guarantee": "verified"}, r"draft\[1\]"),
        ({"drafter": "suffix"}, "needs guarantee 'causal' or 'verified'"),
        ({"drafter": "model"}, "needs guarantee 'causal' or 'verified'"),
        ({"drafter": "overlap"}, "drafter 'overlap' needs guarantee 'verified', got guarantee 'exact'"),
        ({"drafter": "overlap", "guarantee": "causal"}, "needs guarantee 'verified', got guarantee 'causal'"),
        ({"draft": "yes", "guarantee": "verified", "drafter": "overlap"}, "copy from it, got drafter 'overlap'"),
        ({"draft": "yes", "guarantee": "verified", "drafter": "model"}, "draft needs drafter 'suffix' or 'auto'"),
        ({"guarantee": "verified", "pipeline": "on"}, "does not compute ahead"),
        ({"guarantee": "verified", "temperature": 1.0}, "temperature needs guarantee 'causal'"),
        ({"guarantee": "verified", "logprobs": True}, "logprobs needs guarantee 'exact'"),
        ({"guarantee": "verified", "verify": {"folds": 2}}, "verify must be a VerifyOptions"),
    ],
)
def test_options_of_the_verified_tier_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        make_options(None, options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"folds": 17},
        {"folds": -1},
        {"trust": 1.1},
        {"causal_floor": -1},
        {"min_confirmed": 2},
        {"always": 1},
        {"expected_steps": 0},
    ],
)
def test_thresholds_out_of_range_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match=f"verify.{next(iter(wrong))}"):
        VerifyOptions(**wrong)  # type: ignore[arg-type]


def test_packing_is_one_of_three() -> None:
    with pytest.raises(InvalidArgument, match=r"verify.packing must be one of auto, off, on; got 'always'"):
        VerifyOptions(packing="always")


def test_drafts_are_text_or_a_tuple_of_ids() -> None:
    assert make_options(None, {"guarantee": "verified", "draft": np.array([5, 1])}).draft == (5, 1)
    assert make_options(None, {"guarantee": "verified", "draft": "five"}).draft == "five"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("seed", 2**64),
        ("seed", 1.0),
        ("seed", True),
        ("seed", "7"),
        ("seed", None),
        ("request", None),
        ("verify", None),
        ("deadline_s", -3),
        ("deadline_s", 0),
        ("thinking", "yes"),
        ("continue_final_message", None),
        ("continue_final_message", 1),
        ("tools", "f"),
        ("tools", [len]),
        ("tools", {"name": "f"}),
        ("template_arguments", [1]),
        ("template_arguments", {"messages": []}),
        ("template_arguments", {1: 2}),
        ("template_arguments", {"documents": "x"}),
        ("request", 2**24),
        ("max_new_tokens", -1),
        ("max_new_tokens", 2.5),
        ("max_new_tokens", False),
        ("max_denoising_steps", 0),
        ("stability_threshold", -1),
        ("entropy_bound", -0.1),
        ("entropy_bound", float("nan")),
        ("entropy_bound", "0.1"),
        ("t_min", float("inf")),
        ("confidence_threshold", True),
        ("stop_ids", "1,2"),
        ("stop_ids", [1, -2]),
        ("stop_ids", [1.0]),
        ("stop_ids", 1),
        ("trace", 1),
        ("raw", None),
        ("guarantee", 3),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidArgument, match=name):
        make_options(None, {name: value})


def test_numpy_numbers_are_taken_as_plain_ones() -> None:
    options = make_options(None, {"seed": np.uint64(2**64 - 1), "stop_ids": np.array([1, 2]), "t_min": np.float32(0.5)})
    assert (options.seed, options.stop_ids, options.t_min) == (2**64 - 1, (1, 2), 0.5)
    assert type(options.seed) is int


def test_resolving_fills_only_what_is_not_set() -> None:
    options = GenerateOptions(t_min=0.5, stop_ids=()).resolved({"t_min": 0.4, "t_max": 0.8, "stop_ids": [1]})
    assert (options.t_min, options.t_max, options.stop_ids) == (0.5, 0.8, ())


def test_keywords_override_the_given_options() -> None:
    assert make_options(GenerateOptions(seed=1, request=2), {"seed": 3}) == GenerateOptions(seed=3, request=2)


def test_options_of_another_type_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="GenerateOptions"):
        make_options({"seed": 1}, {})  # type: ignore[arg-type]
