"""The parity gate at the end of every export: the written weights, through the same lowering, against transformers.

The reference computes in fp32 from the same tensors. Small models are checked whole, with the very graph files of the
package. Large ones are cut to their first sliding and first full layer and to a prefix of vocabulary and experts; a
prefix starts at the same file offset, so the bytes checked are the bytes exported, and memory stays bounded.

Our own operators round activations to bf16 where they meet bf16 weights. That moves a result by a few thousandths,
unless it moves a router to another expert, as happens to one row of 300 per layer: then the row is another one. So a
copy of such a graph gets the reference's choices as an input, and a tolerance of its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from . import contract
from .check_session import CheckSession, take_choices
from .checkpoint import TensorEntry, text_tensors
from .config import ModelConfig
from .difference import Difference, difference, require_small
from .graphs.target import build_target, reference_config
from .graphs.trace import trace
from .manifest import graph_file
from .operators import find_library
from .quantise import SCALE
from .reference import Reference
from .to_onnx.lower import lower
from .to_onnx.moe import Form

# Largest difference allowed, relative to the largest value of the compared tensor (but at least to 1). Both sides are
# fp32 with different summation orders; calm and trained models stay near 1e-6, a wrong graph misses by 1e-2 and more.
TOLERANCE = 1e-4
# The same where activations are rounded to bf16. One product of rounded rows is off by 1.7e-3 of its norm (8 bits: at
# most 2^-9 per activation), 3e-3 of its largest value at the worst place. Layers add to that like a random walk: 6e-3
# after the 8 layers of mini, 7e-3 after 30 calm ones. Two weights, norms or expert scales swapped in one layer, or a
# window off by one, miss by 3e-2 to 3. A subtler mistake shows in packages of fp32 weights: the lowering is the same.
ROUNDED_TOLERANCE = 2e-2
# The same where they are rounded to int8, on both sides. A value within arithmetic noise of a border between integers
# may round the other way: a step, 1/127 of its row's largest value. From then on two rows differ by more than noise,
# more values change sides, and after some layers differences are of the size of the rounding itself: 8e-3 after two
# calm layers, 1.3e-2 after six, 3e-2 after the 8 of mini. A window off by one in one of two layers misses by 4.7e-2. A
# mistake too small for this shows in the tests of the kernels, which compare bits, and in packages of fp32 weights.
INT8_TOLERANCE = 4e-2
_WHOLE_MODEL_PARAMETERS = 48_000_000  # below this nothing is cut
_MAX_VOCAB, _MAX_CHUNK = 4096, 512
_MAX_WINDOW = 8192  # of a longer one, which may be no window at all, the check does not reach the end
_EXPERT_PARAMETERS = 24_000_000  # per layer, in the check
# Two draws of inputs: a router tie that the two summation orders break differently looks like an error but cannot
# follow the exporter from one draw to the next; a real error does.
_SEEDS = (20_240_611, 7)


@dataclass(frozen=True)
class Cut:
    """The part of the model that is checked."""

    layers: tuple[int, ...]
    config: ModelConfig
    raw: dict[str, Any]  # config.json of the cut model
    whole: bool


def plan_cut(config: ModelConfig, raw: dict[str, Any]) -> Cut:
    """Chooses layers, vocabulary rows and experts to check."""
    if sum(math.prod(shape) for _, shape in text_tensors(config)) <= _WHOLE_MODEL_PARAMETERS:
        return Cut(tuple(range(len(config.layers))), config, raw, True)
    types = [layer.type for layer in config.layers]
    # Sliding first, full last: the order the reference insists on.
    picked = tuple(types.index(kind) for kind in ("sliding", "full") if kind in types)
    per_expert = 3 * config.moe_intermediate_size * config.hidden_size
    experts = min(config.num_experts, max(config.top_k_experts + 2, _EXPERT_PARAMETERS // per_expert))
    vocab = min(config.vocab_size, _MAX_VOCAB)
    layers = tuple(config.layers[i] for i in picked)
    ropes = {layer.type: config.rope(layer) for layer in layers}
    small = replace(config, vocab_size=vocab, num_experts=experts, layers=layers, ropes=ropes)

    cut_raw = copy.deepcopy(raw)
    text = cut_raw["text_config"]
    text.update(vocab_size=vocab, num_experts=experts, num_hidden_layers=len(picked), pad_token_id=0)
    text["layer_types"] = [f"{config.layers[i].type}_attention" for i in picked]
    if text.get("per_layer_config"):
        given = {int(index): over for index, over in text["per_layer_config"].items()}
        text["per_layer_config"] = {str(new): given[old] for new, old in enumerate(picked) if old in given}
    return Cut(picked, small, cut_raw, False)


def cut_entries(cut: Cut, entries: Mapping[str, TensorEntry], folder: Path) -> dict[str, TensorEntry]:
    """The written tensors under the names and prefix shapes of the cut model."""
    result = {}
    for name, shape in text_tensors(cut.config):
        head, dot, tail = name.partition(".layers.")
        if dot:
            index, _, rest = tail.partition(".")
            source = entries[f"{head}.layers.{cut.layers[int(index)]}.{rest}"]
        else:
            source = entries[name]
        result[name] = _prefix(source, name, shape[0], folder)
        if (scale := entries.get(source.name + SCALE)) is not None:
            result[name + SCALE] = _prefix(scale, name + SCALE, shape[0], folder)
    return result


def _prefix(entry: TensorEntry, name: str, size: int, folder: Path) -> TensorEntry:
    """The first `size` parts of a written tensor: only first axes are ever cut."""
    shape, num_bytes = (size, *entry.shape[1:]), entry.num_bytes // entry.shape[0] * size
    return replace(entry, name=name, shape=shape, file=folder / entry.file.name, num_bytes=num_bytes)


def num_passes(config: ModelConfig) -> int:
    """Model passes of the comparison, the reference's and the graphs'."""
    chunks, pasts = _lengths(config)
    return 3 * len(chunks) + 2 * len(pasts) + 5 * len(_packed_pasts(pasts))


def check_parity(
    folder: Path, config: ModelConfig, raw: dict[str, Any], entries: Mapping[str, TensorEntry],
    profile: contract.Profile, form: Form | None, advance: Callable[[int], None],
) -> dict[str, Any]:  # fmt: skip
    """Runs the gate on the files in `folder` and returns the manifest's `parity` object.

    Args:
        folder: the package in the making.
        config: the model, as the graphs were made from it.
        raw: config.json, for transformers' own reading.
        entries: the written tensors.
        profile: the operator profile of the graphs.
        form: the form of the experts; None in `fused`.
        advance: called after each pass, `num_passes` times and again if a second draw of inputs is needed.

    Raises:
        ParityError: with the place and size of the worst difference.
    """
    import transformers

    cut = plan_cut(config, raw)
    tensors = cut_entries(cut, entries, folder)
    rounded = profile == contract.FUSED and any(e.dtype == "BF16" for e in tensors.values() if len(e.shape) > 1)
    tolerance = ROUNDED_TOLERANCE if rounded else TOLERANCE
    if any(entry.dtype in ("I8", "I4") for entry in tensors.values()):
        tolerance = INT8_TOLERANCE
    library = find_library() if profile == contract.FUSED else None
    files = {name: folder / graph_file(name) for name in contract.GRAPHS}
    written: list[Path] = []
    if rounded or not cut.whole:
        target = None if cut.whole else build_target(reference_config(cut.raw))
        for name, exported in files.items():
            if target is None:
                model = onnx.load(exported, load_external_data=False)
            else:
                model = lower(trace(name, target, cut.config, profile), tensors, profile, form)
            written.append(folder / f"check_{exported.name}")
            onnx.save(take_choices(model) if rounded else model, written[-1])
        files = dict(zip(files, written, strict=True))
    try:
        worst = _compare(cut, tensors, files, library, _SEEDS[0], advance)
        if worst.relative > tolerance:
            again = _compare(cut, tensors, files, library, _SEEDS[1], advance)
            worst = min((worst, again), key=lambda w: w.relative)
    finally:
        for path in written:
            path.unlink()
    reference = f"transformers {transformers.__version__}"
    return {"layers": list(cut.layers), **require_small(worst, tolerance, reference), "reference": reference}


def _compare(
    cut: Cut, tensors: Mapping[str, TensorEntry], files: Mapping[str, Path], library: Path | None, seed: int,
    advance: Callable[[int], None],
) -> Difference:  # fmt: skip
    """Worst difference over chunked prefill and score, and over the other graphs with no past and a long one.

    `denoise` also has a past that is shorter than the window.
    """
    config = cut.config
    chunks, pasts = _lengths(config)
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, config.vocab_size, sum(chunks))
    canvas, following = rng.integers(0, config.vocab_size, (2, config.canvas_len))
    soft, next_soft = rng.standard_normal((2, config.canvas_len, config.hidden_size), dtype=np.float32)

    reference = Reference(cut.raw, tensors)
    expected_kv, expected_causal = reference.prefill(tokens, chunks, advance)
    causal_choices = reference.take_choices()
    expected_hidden, expected_next, choices, next_choices = {}, {}, {}, {}
    expected_checked, checked_choices = {}, {}
    for past in pasts:
        expected_hidden[past] = reference.denoise(canvas, soft, expected_kv, past)
        choices[past] = reference.take_choices()
        advance(1)
    for past in _packed_pasts(pasts):
        expected_next[past] = reference.denoise(following, next_soft, expected_kv, past + config.canvas_len)
        next_choices[past] = reference.take_choices()
        advance(1)
        expected_checked[past] = []
        for checked, checked_soft in ((canvas, soft), (following, np.zeros_like(soft))):
            expected_checked[past].append(reference.denoise(checked, checked_soft, expected_kv, past))
            advance(1)
        checked_choices[past] = reference.take_choices()
    del reference  # its fp32 weights go before the sessions come

    differences = []
    for name, expected in ((contract.PREFILL_GRAPH, None), (contract.SCORE_GRAPH, expected_causal)):
        session = CheckSession(files[name], library)
        differences += _causal_differences(
            name, session, config, tokens, chunks, expected_kv, expected, causal_choices, advance
        )
    session = CheckSession(files[contract.DENOISE_GRAPH], library)
    for past in pasts:
        feeds = {contract.CANVAS.name: canvas[None], contract.SOFT.name: soft[None],
                 contract.DENOISE_POSITIONS.name: np.arange(past, past + config.canvas_len)[None],
                 **_past_feeds(config, expected_kv, past)}  # fmt: skip
        hidden = session.run(feeds, choices[past])[0][0]
        advance(1)
        differences.append(difference(hidden, expected_hidden[past], f"denoise hidden states with {past} past tokens"))
    session = CheckSession(files[contract.PACKED_GRAPH], library)
    for past in _packed_pasts(pasts):
        end = past + config.canvas_len  # the candidate is what the prompt holds there
        places = [np.arange(past, end), np.arange(end, end + config.canvas_len), np.arange(past, end)]
        feeds = {contract.PACKED_TOKENS.name: np.concatenate((canvas, following, tokens[past:end]))[None],
                 contract.PACKED_POSITIONS.name: np.concatenate(places)[None],
                 contract.SOFT.name: soft[None], contract.NEXT_SOFT.name: next_soft[None],
                 **_past_feeds(config, expected_kv, past),
                 **_past_feeds(config, expected_kv, past, ahead=config.canvas_len)}  # fmt: skip
        parts = zip(choices[past], next_choices[past], (rows[past:end] for rows in causal_choices), strict=True)
        packed_choices = [np.concatenate(rows) for rows in parts]
        packed_choices[-1] = packed_choices[-1][: 2 * config.canvas_len]  # the candidate ends at its last K and V
        found = [tensor[0] for tensor in session.run(feeds, packed_choices)]
        advance(1)
        wanted = [expected_hidden[past], expected_next[past], *(rows[past:end] for rows in expected_kv)]
        places = ["hidden states", "hidden states of the next canvas", *_kv_places(config)]
        differences += [
            difference(actual, expected, f"packed {place} with {past} past tokens")
            for actual, expected, place in zip(found, wanted, places, strict=True)
        ]
    session = CheckSession(files[contract.CHECK_GRAPH], library)
    for past in _packed_pasts(pasts):
        end = past + max(1, config.canvas_len - 1)  # a draft that does not fill the canvas
        own = np.arange(past, past + config.canvas_len)
        feeds = {contract.CHECK_CANVASES.name: np.stack((canvas, following)),
                 contract.TOKENS.name: tokens[None, past:end],
                 contract.CHECK_POSITIONS.name: np.concatenate((own, own, np.arange(past, end)))[None],
                 contract.SOFT.name: soft[None],
                 **_past_feeds(config, expected_kv, past)}  # fmt: skip
        parts = zip(checked_choices[past], (rows[past:end] for rows in causal_choices), strict=True)
        checked, *found = session.run(feeds, [np.concatenate(rows) for rows in parts])
        advance(1)
        wanted = [*expected_checked[past], expected_causal[past:end], *(rows[past:end] for rows in expected_kv)]
        places = ["hidden states of the canvas", "hidden states of the draft", "causal hidden states",
                  *_kv_places(config)]  # fmt: skip
        differences += [
            difference(actual, expected, f"check {place} with {past} past tokens")
            for actual, expected, place in zip([*checked, *(t[0] for t in found)], wanted, places, strict=True)
        ]
    return max(differences, key=lambda w: w.relative)


def _lengths(config: ModelConfig) -> tuple[list[int], list[int]]:
    """Chunk lengths of the prefill, and the past of each denoise pass: none, half a window, more than a window.

    Chunks start with a single token, so that borders fall on odd places. The last is the candidate of a packed pass.
    """
    window = min(config.sliding_window, _MAX_WINDOW)
    total = window + 9
    chunks = [1]
    while (left := total - sum(chunks)) > 0:
        chunks.append(min(left, _MAX_CHUNK, max(1, total // 2)))
    return [*chunks, config.canvas_len], sorted({0, window // 2, total})


def _packed_pasts(pasts: list[int]) -> list[int]:
    """No past and the longest: where the rows that leave the window of the next canvas differ most."""
    return [pasts[0], pasts[-1]]


def _kv_places(config: ModelConfig) -> list[str]:
    return [f"{kind} of layer {layer}" for layer in range(len(config.layers)) for kind in ("keys", "values")]


def _past_feeds(config: ModelConfig, kv: list[np.ndarray], past: int, ahead: int = 0) -> dict[str, np.ndarray]:
    """past_k.N and past_v.N for `past` committed tokens, from rows [T, K] of every layer.

    With `ahead`: next_past_k.N and next_past_v.N for a canvas that starts so many tokens later.
    """
    tensors = (contract.NEXT_PAST_K, contract.NEXT_PAST_V) if ahead else (contract.PAST_K, contract.PAST_V)
    feeds = {}
    for index, layer in enumerate(config.layers):
        first = max(0, past + ahead - (config.sliding_window - 1)) if layer.type == "sliding" else 0
        for tensor, rows in zip(tensors, kv[2 * index : 2 * index + 2], strict=True):
            feeds[contract.layer_tensor(tensor, index)] = rows[None, min(first, past) : past]
    return feeds


def _causal_differences(
    graph: str,
    session: CheckSession,
    config: ModelConfig,
    tokens: np.ndarray,
    chunks: list[int],
    kv: list[np.ndarray],
    hidden: np.ndarray | None,
    choices: list[np.ndarray],
    advance: Callable[[int], None],
) -> list[Difference]:
    """Differences of a causal graph fed in chunks with its own KV rows; of its hidden states too where it has them."""
    done = 0
    expected = [*([] if hidden is None else [hidden]), *kv]
    collected: list[list[np.ndarray]] = [[np.empty((0, rows.shape[1]), np.float32)] for rows in expected]
    for size in chunks:
        own = [np.concatenate(rows) for rows in collected[-len(kv) :]]
        feeds = {contract.TOKENS.name: tokens[None, done : done + size],
                 contract.PREFILL_POSITIONS.name: np.arange(done, done + size)[None],
                 **_past_feeds(config, own, done)}  # fmt: skip
        experts = [rows[done : done + size] for rows in choices]
        for rows, new in zip(collected, session.run(feeds, experts), strict=True):
            rows.append(new[0])
        advance(1)
        done += size
    places = [*([] if hidden is None else ["hidden states"]), *_kv_places(config)]
    return [
        difference(np.concatenate(rows), wanted, f"{graph} {place}")
        for rows, wanted, place in zip(collected, expected, places, strict=True)
    ]
