"""The exported graphs against transformers' full model, loaded by its own `from_pretrained` in fp32.

Checkpoints follow the calm recipe, so fp32 agrees to a few 1e-6 through all layers; see `tolerances.py`.
"""

from __future__ import annotations

import cases
import models
import numpy as np
import pytest
from compare import assert_close
from graph_runner import GraphRunner
from tolerances import EXACT, tolerance

WINDOW = models.spec("plain").window
# Forms of the experts, each with the options of `export` that make it; the last is the other operator profile.
FORMS = {"dense": {"moe": "dense"}, "unrolled": {"moe": "unrolled"}, "loop": {"moe": "loop"},
         "fused": {"profile": "fused"}}  # fmt: skip


@pytest.fixture(scope="session")
def references(checkpoints):
    done = {}

    def load(name):
        if name not in done:
            done[name] = models.load_reference(checkpoints(name))
        return done[name]

    return load


@pytest.fixture(scope="session")
def runners(engines):
    done = {}

    def load(name, **options):
        key = (name, *options.values())
        if key not in done:
            done[key] = GraphRunner(engines(name, **options))
        return done[key]

    return load


def random_tokens(runner, count, seed=0):
    return np.random.default_rng(seed).integers(0, runner.model["vocab_size"], count)


def reference_cache(model, tokens):
    """transformers' cache after one causal pass over all tokens."""
    import torch
    from transformers import DynamicCache

    text = model.config.get_text_config()
    cache = DynamicCache(config=text)
    with torch.no_grad():
        model.model.encoder.language_model(input_ids=torch.from_numpy(tokens)[None], past_key_values=cache)
    return cache


def assert_same_kv(kv, cache, what):
    """All rows of full layers; in sliding layers the last W - 1, which is what the cache keeps."""
    for index, layer in enumerate(cache.layers):
        for rows, states, kind in ((kv[2 * index], layer.keys, "keys"), (kv[2 * index + 1], layer.values, "values")):
            expected = states[0].transpose(0, 1).flatten(1).numpy()
            assert_close(rows[-len(expected) :], expected, tolerance("kv"), f"{what}, {kind} of layer {index}")


@pytest.mark.parametrize("length", cases.prompt_lengths(WINDOW))
@pytest.mark.parametrize("form", FORMS)
def test_prefill_matches_at_lengths_around_the_window(references, runners, length, form):
    runner = runners("plain", **FORMS[form])
    tokens = random_tokens(runner, length)
    assert_same_kv(runner.prefill(tokens, []), reference_cache(references("plain"), tokens), f"{length} tokens")


@pytest.mark.parametrize("chunks", [
    [1], [WINDOW - 1], [WINDOW], [WINDOW + 1], [1] * 5, [WINDOW - 1, 1, 1], [7, WINDOW, 2], [3 * WINDOW],
])  # fmt: skip
def test_prefill_does_not_depend_on_chunk_borders(references, runners, chunks):
    runner = runners("plain")
    tokens = random_tokens(runner, 4 * WINDOW)
    assert_same_kv(runner.prefill(tokens, chunks), reference_cache(references("plain"), tokens), f"chunks {chunks}")


@pytest.mark.parametrize("spec", models.RANDOM_SPECS, ids=lambda s: s.name)
def test_causal_hidden_states_match_for_every_spec(references, runners, spec):
    """One token, then the rest: short of the window, across it, and far behind it."""
    import torch

    runner, model = runners(spec.name), references(spec.name)
    tokens = random_tokens(runner, 2 * spec.window + 5)
    with torch.no_grad():
        expected = model.model.encoder.language_model(input_ids=torch.from_numpy(tokens)[None]).last_hidden_state[0]
    kv = runner.prefill(tokens, [])
    for first, last in ((0, 1), (1, spec.window + 2), (spec.window + 2, len(tokens))):
        hidden, new = runner.score(tokens[first:last], kv, first)
        assert_close(hidden, expected[first:last], tolerance("hidden"), f"hidden states {first} to {last}")
        for rows, all_rows in zip(new, kv, strict=True):
            assert_close(rows, all_rows[first:last], tolerance("kv"), f"KV rows {first} to {last}")


@pytest.mark.parametrize("spec", models.RANDOM_SPECS, ids=lambda s: s.name)
def test_two_steps_of_denoising_match_for_every_spec(references, runners, spec):
    """Logits of a first step (no self-conditioning) and of a second one conditioned on the first."""
    import torch

    runner, model = runners(spec.name), references(spec.name)
    length = 2 * spec.window + 5
    tokens, canvas = random_tokens(runner, length), random_tokens(runner, spec.canvas_len, 1)
    table = model.model.decoder.embed_tokens.weight.detach().numpy()

    def logits(hidden):
        return spec.softcap * np.tanh(hidden @ table.T / spec.softcap)

    kv = runner.prefill(tokens, [3, spec.window])
    assert_same_kv(kv, reference_cache(model, tokens), "prompt")
    soft = np.zeros((spec.canvas_len, spec.hidden_size), np.float32)
    conditioning = None
    for step in range(2):
        with torch.no_grad():
            out = model(
                past_key_values=reference_cache(model, tokens), decoder_input_ids=torch.from_numpy(canvas)[None],
                self_conditioning_logits=conditioning,
            )  # fmt: skip
        hidden = runner.denoise(canvas, soft, kv, length)
        assert_close(logits(hidden), out.logits[0], tolerance("logits"), f"logits of step {step}")
        conditioning = out.logits / 0.6
        soft = conditioning[0].softmax(-1).numpy() @ table * np.float32(spec.hidden_size**0.5)


@pytest.mark.parametrize("past", [1, WINDOW - 2, WINDOW - 1, WINDOW, WINDOW + 1, 4 * WINDOW])
@pytest.mark.parametrize("form", FORMS)
def test_denoise_sees_exactly_the_kept_past(references, runners, past, form):
    """In sliding layers every canvas row sees the last W - 1 tokens, in full layers all of them."""
    from dgrt.reference.denoise_step import decoder_hidden

    runner, model, spec = runners("plain", **FORMS[form]), references("plain"), models.spec("plain")
    tokens, canvas = random_tokens(runner, past, 2), random_tokens(runner, spec.canvas_len, 3)
    soft = np.random.default_rng(4).standard_normal((spec.canvas_len, spec.hidden_size)).astype(np.float32)
    expected = decoder_hidden(model, reference_cache(model, tokens), canvas, soft)
    hidden = runner.denoise(canvas, soft, runner.prefill(tokens, []), past)
    assert_close(hidden, expected, tolerance("hidden"), f"hidden states after {past} tokens")


def test_one_token_more_or_less_of_the_past_would_be_noticed(runners):
    """The tolerance is far below the effect of a window that is off by one."""
    runner, spec = runners("plain"), models.spec("plain")
    tokens, canvas = random_tokens(runner, 4 * WINDOW, 2), random_tokens(runner, spec.canvas_len, 3)
    soft, kv = np.zeros((spec.canvas_len, spec.hidden_size), np.float32), runner.prefill(tokens, [])
    right = runner.denoise(canvas, soft, kv, len(tokens))
    runner.model["sliding_window"] += 1
    try:
        wrong = runner.denoise(canvas, soft, kv, len(tokens))
    finally:
        runner.model["sliding_window"] -= 1
    assert np.abs(right - wrong).max() > 20 * tolerance("hidden").absolute


def test_positions_at_the_end_of_a_long_context_rotate_like_the_reference(references, runners):
    import torch
    from transformers import DynamicCache

    runner, model, first = runners("plain"), references("plain"), 262_100
    tokens = random_tokens(runner, 9)
    cache = DynamicCache(config=model.config.get_text_config())
    with torch.no_grad():
        model.model.encoder.language_model(
            input_ids=torch.from_numpy(tokens)[None], past_key_values=cache,
            position_ids=torch.arange(first, first + 9)[None],
        )  # fmt: skip
    assert_same_kv(runner.prefill(tokens, [], first_position=first), cache, f"positions from {first}")


@pytest.mark.parametrize("fused", [False, True])
def test_wrappers_in_torch_compute_what_their_onnx_form_computes(checkpoints, runners, fused):
    """The operators' eager form and their lowering are two implementations; they must be one function."""
    import torch
    from dgrt_export.checkpoint import open_checkpoint
    from dgrt_export.config import parse_config, read_json
    from dgrt_export.graphs.denoise import Denoise
    from dgrt_export.graphs.prefill import Prefill
    from dgrt_export.graphs.target import build_target, reference_config
    from dgrt_export.reference import read_tensors

    runner, spec, folder = runners("plain"), models.spec("plain"), checkpoints("plain")
    raw = read_json(folder / "config.json")
    config = parse_config(raw)
    target = build_target(reference_config(raw))
    tensors = read_tensors(open_checkpoint(folder, config).tensors)
    target.load_state_dict(tensors, assign=True)
    tokens, canvas = random_tokens(runner, WINDOW + 5), random_tokens(runner, spec.canvas_len, 1)
    soft = np.random.default_rng(4).standard_normal((1, spec.canvas_len, spec.hidden_size)).astype(np.float32)
    empty = [torch.from_numpy(rows)[None] for rows in runner.empty()]
    with torch.no_grad():
        new = Prefill(target, config, fused)(torch.from_numpy(tokens)[None], torch.arange(len(tokens))[None], empty)
        past = [t if i >= 2 else t[:, -(WINDOW - 1) :] for i, t in enumerate(new)]  # layer 0 slides
        positions = torch.arange(len(tokens), len(tokens) + spec.canvas_len)[None]
        hidden = Denoise(target, config, fused)(torch.from_numpy(canvas)[None], positions, torch.from_numpy(soft), past)
    kv = runner.prefill(tokens, [])
    for rows, expected in zip(kv, new, strict=True):
        assert_close(rows, expected[0], tolerance("wrapper"), "KV")
    assert_close(runner.denoise(canvas, soft[0], kv, len(tokens)), hidden[0], tolerance("wrapper"), "hidden")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "shape",
    [
        {"layers": "f", "num_experts": 1, "top_k": 1, "canvas_len": 1, "num_heads": 1, "num_kv_heads": 1},
        {"layers": "sf", "num_experts": 3, "top_k": 3, "canvas_len": 2, "window": 2, "vocab_size": 10},
    ],
    ids=["one of everything", "smallest window, all experts"],
)
def test_the_smallest_shapes_pass_the_gate(tmp_path, shape, form):
    from dgrt_export import export

    folder = models.build_checkpoint(models.ModelSpec("extreme", **shape), tmp_path / "c")
    assert export(folder, tmp_path / "e", **FORMS[form]).manifest["parity"]["max_abs_error"] < tolerance("kv").absolute


PACKED = [(spec, form) for form in ("dense", "fused") for spec in models.RANDOM_SPECS] + [
    (models.spec(name), "unrolled") for name in ("many_experts", "few_experts")  # loop: Engine::can_pack is false
]


@pytest.mark.parametrize(("spec", "form"), PACKED, ids=lambda value: getattr(value, "name", value))
def test_a_packed_pass_equals_its_three_passes(runners, spec, form):
    """Bit for bit: with no past, with a past that the window cuts, with canvases longer than the window, and with
    experts that get one row in a pass of one canvas and three in a packed one."""
    runner = runners(spec.name, **FORMS[form])
    rng = np.random.default_rng(3)
    canvases = rng.integers(0, spec.vocab_size, (2, spec.canvas_len))
    candidate = random_tokens(runner, spec.canvas_len, 1)
    softs = rng.standard_normal((2, spec.canvas_len, spec.hidden_size), dtype=np.float32)
    for past in (0, 1, spec.window - 1, 2 * spec.window + 3):
        kv = runner.prefill(random_tokens(runner, past, 2), []) if past else runner.empty()
        hidden, next_hidden, new = runner.packed(canvases, softs, candidate, kv, past)
        _, wanted_new = runner.score(candidate, kv, past)
        assert_close(hidden, runner.denoise(canvases[0], softs[0], kv, past), EXACT, f"canvas, {past} past tokens")
        behind = [np.concatenate((rows, more)) for rows, more in zip(kv, wanted_new, strict=True)]
        wanted = runner.denoise(canvases[1], softs[1], behind, past + spec.canvas_len)
        assert_close(next_hidden, wanted, EXACT, f"next canvas, {past} past tokens")
        for rows, wanted_rows in zip(new, wanted_new, strict=True):
            assert_close(rows, wanted_rows, EXACT, f"KV rows, {past} past tokens")


@pytest.mark.parametrize(("spec", "form"), PACKED, ids=lambda value: getattr(value, "name", value))
def test_a_checking_pass_equals_the_passes_that_it_stands_for(runners, spec, form):
    """Bit for bit: one canvas and several, a draft of the whole canvas and of a part of it."""
    runner = runners(spec.name, **FORMS[form])
    canvases = np.random.default_rng(3).integers(0, spec.vocab_size, (3, spec.canvas_len))
    draft = random_tokens(runner, spec.canvas_len, 1)
    soft = np.zeros((3, spec.canvas_len, spec.hidden_size), np.float32)
    soft[0] = np.random.default_rng(4).standard_normal(soft[0].shape, dtype=np.float32)
    for past in (0, 1, spec.window - 1, 2 * spec.window + 3):
        kv = runner.prefill(random_tokens(runner, past, 2), []) if past else runner.empty()
        for groups, drafted in ((3, spec.canvas_len), (1, spec.canvas_len), (2, spec.canvas_len // 2 + 1)):
            where = f"{groups} canvases, {drafted} drafted, {past} past tokens"
            hidden, causal, new = runner.check(canvases[:groups], soft[0], draft[:drafted], kv, past)
            for canvas, own, found in zip(canvases, soft, hidden, strict=False):
                assert_close(found, runner.denoise(canvas, own, kv, past), EXACT, f"canvas of {where}")
            wanted_causal, wanted_new = runner.score(draft[:drafted], kv, past)
            assert_close(causal, wanted_causal, EXACT, f"causal pass of {where}")
            for rows, wanted_rows in zip(new, wanted_new, strict=True):
                assert_close(rows, wanted_rows, EXACT, f"KV rows of {where}")
