"""Quantised packages: what the numbers are, what lies on disk, the gate, and what the operators refuse.

Kernels are tested in tests/cpp/layers_test.cc, a whole generation in tests/parity/test_fused.py.
"""

from __future__ import annotations

import json
import math

import models
import numpy as np
import onnx
import pytest
from one_operator import run_operator
from onnx import TensorProto, helper

from dgrt.cli import main

# Rows that no width in use divides: groups of I4 end short, and bytes half empty.
ODD = models.ModelSpec("odd", intermediate_size=45, expert_width=13, seed=11)


def export(*args, **options):
    from dgrt_export import export

    return export(*args, **options, profile=options.pop("profile", "fused"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return models.build_checkpoint(ODD, tmp_path_factory.mktemp("odd") / "checkpoint")


# The numbers


def weights(seed, shape):
    """Rows as a checkpoint may have them: of all sizes, with outliers, zeros and tiny ones."""
    import torch

    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(shape, generator=random) * torch.logspace(-4, 1, shape[0])[:, None]
    rows[0, ::3] *= 20
    rows[-1] = 0
    rows[shape[0] // 2] = 1e-38
    return rows


@pytest.mark.parametrize("dtype", ["I8", "I4"])
@pytest.mark.parametrize("width", [1, 31, 32, 33, 64, 101])
def test_a_weight_moves_by_half_a_step_at_most(dtype, width):
    import torch
    from dgrt_export.quantise import GROUP, dequantise, quantise, scale_shape, stored_shape

    rows = weights(width, (24, width))
    stored, scale = quantise(rows, dtype)
    assert tuple(stored.shape) == stored_shape(dtype, tuple(rows.shape))
    assert tuple(scale.shape) == scale_shape(tuple(rows.shape)) and scale.dtype == torch.bfloat16
    found = dequantise(stored, scale, dtype, tuple(rows.shape))
    integers = found / torch.where(scale == 0, 1, scale).float()
    assert torch.equal(integers.round() * scale.float(), found) and integers.abs().max() <= 127.01
    step = scale.float().expand_as(rows)
    if dtype == "I4":  # values are up to 27 of 128 apart, of a group's largest, and one end is cut off
        groups = torch.nn.functional.pad(rows, (0, -width % GROUP)).unflatten(1, (-1, GROUP))
        step = step + groups.abs().amax(2, keepdim=True).expand_as(groups).flatten(1)[:, :width] * (2 * 27 / 128)
    assert ((found - rows).abs() <= step / 2 + rows.abs() / 256 + 1e-40).all()
    assert (found[-1] == 0).all()


def test_four_bits_are_worth_what_their_values_promise():
    """Against sixteen equal steps, of the scale that suits each group best, on normally distributed weights."""
    import torch
    from dgrt_export.quantise import GROUP, dequantise, quantise

    rows = torch.randn((64, 2048), generator=torch.Generator().manual_seed(5))
    found = dequantise(*quantise(rows, "I4"), "I4", tuple(rows.shape))
    groups = rows.unflatten(1, (-1, GROUP))
    largest = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    steps = [largest / -limit for limit in (7.0, 7.5, 8.0, 8.5, 9.0)]
    errors = [(groups - (groups / step).round().clamp(-8, 7) * step).square().sum(2) for step in steps]
    equal = torch.stack(errors).amin(0).sum()
    assert float((found - rows).square().sum()) < 0.85 * float(equal)


def test_values_are_those_of_the_kernels():
    from pathlib import Path

    from dgrt_export import quantise

    header = (Path(__file__).parents[2] / "csrc/kernels/weights.h").read_text()
    assert f"kInt4Values[16] = {{{', '.join(map(str, quantise.VALUES))}}};" in header
    assert f"kCodeGroup = {quantise.GROUP};" in header


# The package


@pytest.mark.parametrize(
    ("name", "precision"), [("odd", "int8"), ("odd", "int4"), ("bf16_sharded", "int4")]
)
def test_heavy_matrices_become_integers_and_pass_the_gate(checkpoints, odd, tmp_path, name, precision):
    import torch
    from dgrt_export import check, contract
    from dgrt_export.quantise import dequantise, is_heavy
    from safetensors.torch import load_file

    source = odd if name == "odd" else checkpoints(name)
    report = export(source, tmp_path / "e", precision=precision)
    manifest = json.loads((tmp_path / "e" / "manifest.json").read_text())
    assert (manifest["precision"], report.weights) == (precision, "converted")
    assert manifest["operators"] == contract.OPERATORS_VERSION
    assert 1e-4 < manifest["parity"]["max_abs_error"] < 5 * check.ROUNDED_TOLERANCE
    graph = onnx.load(tmp_path / "e" / "denoise.onnx", load_external_data=False).graph
    scaled = {node.op_type for node in graph.node if any(value.endswith(".scale") for value in node.input)}
    assert {op for op in scaled if op not in ("Qk", "Cast")} == {"Qkv", "LinearNormAdd", "FeedForward"}
    allowed = 0
    for path in (tmp_path / "e").glob("*.safetensors"):
        found, original = load_file(path), load_file(source / path.name)
        heavy = {tensor for tensor in found if is_heavy(tensor)}
        assert heavy and found.keys() - original.keys() == {f"{tensor}.scale" for tensor in heavy}
        for tensor in heavy:
            dtype = "I4" if precision == "int4" and ".experts." in tensor else "I8"
            rows, shape = original[tensor].float(), tuple(original[tensor].shape)
            value = dequantise(found[tensor], found[f"{tensor}.scale"], dtype, shape)
            assert float((value - rows).norm() / rows.norm()) < (0.02 if dtype == "I8" else 0.13), tensor
            row_bytes = (17 * math.ceil(shape[-1] / 32) if dtype == "I4" else shape[-1]) + 2
            allowed += math.prod(shape[:-1]) * row_bytes
        for tensor in original.keys() & found.keys() - heavy:
            assert torch.equal(found[tensor], original[tensor].bfloat16()), tensor
            allowed += 2 * found[tensor].numel()
    assert report.weight_bytes == allowed


def test_what_is_heavy_and_what_is_not():
    from dgrt_export.checkpoint import text_tensors
    from dgrt_export.config import parse_config
    from dgrt_export.quantise import is_heavy

    config = parse_config(models.config_json(models.spec("plain")))
    kept = [name for name, shape in text_tensors(config) if len(shape) > 1 and not is_heavy(name)]
    assert kept == [
        "model.decoder.embed_tokens.weight",
        "model.decoder.layers.0.router.proj.weight", "model.decoder.layers.1.router.proj.weight",
        *(f"model.decoder.self_conditioning.{part}_proj.weight" for part in ("gate", "up", "down")),
    ]  # fmt: skip
    assert not any(is_heavy(name) for name, shape in text_tensors(config) if len(shape) == 1)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_rows_are_quantised_in_chunks_of_any_size(checkpoints, tmp_path, monkeypatch, precision):
    from dgrt_export import weights
    from dgrt_export.checkpoint import open_checkpoint
    from dgrt_export.config import parse_config, read_json

    source = checkpoints("six_layers_bf16")
    plan = weights.plan_weights(open_checkpoint(source, parse_config(read_json(source / "config.json"))), precision)
    for folder, size in (("a", 4 << 20), ("b", 1000)):
        monkeypatch.setattr(weights, "_QUANTISED_BYTES", size)
        (tmp_path / folder).mkdir()
        written = []
        assert plan.write(tmp_path / folder, written.append) == "converted" and sum(written) == plan.total_bytes
    first, second = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in "ab")
    assert first == second


def test_a_large_quantised_model_is_checked_on_a_prefix(checkpoints, tmp_path, monkeypatch):
    from dgrt_export import check

    for name, value in (("_WHOLE_MODEL_PARAMETERS", 0), ("_MAX_VOCAB", 100), ("_EXPERT_PARAMETERS", 1)):
        monkeypatch.setattr(check, name, value)
    report = export(checkpoints("six_layers_bf16"), tmp_path / "e", precision="int4")
    assert report.manifest["parity"]["layers"] == [0, 5] and not list((tmp_path / "e").glob("check_*"))


def test_the_gate_sees_another_order_of_the_nibbles(checkpoints, tmp_path, monkeypatch):
    from dgrt_export import ParityError, reference

    right = reference.dequantise
    swap = lambda stored: (stored << 4 | stored >> 4) if str(stored.dtype) == "torch.uint8" else stored  # noqa: E731
    monkeypatch.setattr(reference, "dequantise", lambda stored, *rest: right(swap(stored), *rest))
    with pytest.raises(ParityError, match=r"expected a difference of at most .* found \d"):
        export(checkpoints("plain"), tmp_path / "e", precision="int4")
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_that_is_interrupted_leaves_nothing(checkpoints, tmp_path):
    def interrupt(stage, done, total):
        if stage == "weights" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(checkpoints("plain"), tmp_path / "e", precision="int4", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_no_numbers_are_named(checkpoints, tmp_path):
    import torch
    from dgrt_export import InvalidCheckpoint
    from safetensors.torch import load_file, save_file

    source = models.copy_checkpoint(checkpoints("plain"), tmp_path / "c")
    tensors = load_file(source / "model.safetensors")
    tensors["model.decoder.layers.0.mlp.down_proj.weight"][0, 0] = torch.inf
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(InvalidCheckpoint, match=r"layers\.0\.mlp\.down_proj\.weight: expected finite values, found"):
        export(source, tmp_path / "e", precision="int8")
    assert not (tmp_path / "e").exists()


def test_the_portable_profile_refuses_quantised_weights(checkpoints, tmp_path, capsys):
    words = ["export", str(checkpoints("plain")), "-o", str(tmp_path / "e"), "--precision", "int4"]
    words += ["--profile", "portable"]
    assert main(words) == 2
    assert "profile of precision 'int4': expected 'fused'" in capsys.readouterr().err and not (tmp_path / "e").exists()


# The operators


def bfloat16(name, values):
    halves = (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return helper.make_tensor(name, TensorProto.BFLOAT16, halves.shape, halves.tobytes(), raw=True)


ONES = np.ones((3, 5), np.float32)


def run_linear(weight, scale, x=ONES):
    return run_operator("Linear", {"x": x, "weight": weight, **({} if scale is None else {"scale": scale})})[0]


def int8(shape):
    return onnx.numpy_helper.from_array(np.arange(math.prod(shape), dtype=np.int8).reshape(shape) - 7, "weight")


def test_an_operator_reads_what_the_specification_says():
    x = np.full((3, 5), 127, np.float32)  # of a scale of 1
    assert np.array_equal(run_linear(int8((2, 5)), bfloat16("scale", [[0.5], [2]]), x), [[-12.5 * 127, 0]] * 3)


def test_int8_products_are_the_formula_bit_for_bit_and_the_oracle_has_the_same_rows():
    import torch
    from dgrt_export.quantise import rounded_rows

    random = np.random.default_rng(3)
    x = (random.standard_normal((40, 45)) * np.logspace(-30, 30, 40)[:, None]).astype(np.float32)
    x[7] = 0
    x[8] = np.arange(45) % 127 + 0.5  # ties, of a scale of 1
    x[8, 0] = 127
    weight = random.integers(-127, 128, (9, 45), dtype=np.int8)
    scale = torch.from_numpy(random.random((9, 1), dtype=np.float32) / 99).bfloat16().float().numpy()
    found = run_linear(onnx.numpy_helper.from_array(weight, "weight"), bfloat16("scale", scale), x)
    steps = np.abs(x).max(1, keepdims=True) / np.float32(127)
    integers = np.rint(x / np.where(steps == 0, np.float32(1), steps)).astype(np.int64)
    assert np.abs(integers).max() == 127
    assert np.array_equal(found, (integers @ weight.T.astype(np.int64)).astype(np.float32) * steps * scale.T)
    assert np.array_equal(rounded_rows(torch.from_numpy(x)).numpy(), integers.astype(np.float32) * steps)


def test_an_int8_row_that_could_overflow_is_refused():
    width = (2**31 - 1) // (127 * 128)
    x = np.full((1, width), -1, np.float32)
    weight = onnx.numpy_helper.from_array(np.full((1, width), -128, np.int8), "weight")
    one = bfloat16("scale", [[1]])
    assert run_linear(weight, one, x) == np.float32(width * 127 * 128) * (np.float32(1) / np.float32(127))
    x, weight = np.ones((1, width + 1), np.float32), np.ones((1, width + 1), np.int8)
    with pytest.raises(Exception, match=f"Linear, input 1: expected rows of at most {width}, found {width + 1}"):
        run_linear(onnx.numpy_helper.from_array(weight, "weight"), one, x)


@pytest.mark.parametrize(
    ("weight", "scale", "message"),
    [
        (int8((2, 5)), None, "input 2: expected scales, found none"),
        (int8((2, 5)), (2, 5), r"input 2: expected \[2, 1\], found \[2, 5\]"),
        (int8((2, 5)), (2,), r"input 2: expected \[2, 1\], found \[2\]"),
        (int8((2, 4)), (2, 1), r"input 1: expected \[\?, 5\], found \[2, 4\]"),
        (int8((2, 5)), (1, 1), r"input 2: expected \[2, 1\], found \[1, 1\]"),
        (bfloat16("weight", np.ones((2, 5))), (2, 1), "input 2: expected none, found scales"),
    ],
)
def test_an_operator_refuses_scales_that_do_not_fit(weight, scale, message):
    with pytest.raises(Exception, match=message):
        run_linear(weight, None if scale is None else bfloat16("scale", np.ones(scale)))
