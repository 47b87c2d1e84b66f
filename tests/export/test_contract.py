"""The contract is the only list of names: the C++ header is generated from it, the graphs obey it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import onnx

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_header_is_what_the_contract_generates():
    contract = importlib.import_module("dgrt_export.contract")
    header = (ROOT / "csrc" / "engine" / "contract.h").read_text()
    assert header == contract.header_text(), "stale: run `python -m dgrt_export.contract` in export/"


def test_graphs_have_the_inputs_and_outputs_of_the_contract_in_order(engines):
    contract = importlib.import_module("dgrt_export.contract")
    folder = engines("bf16_sharded")
    numbers = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}
    for name, sides in contract.GRAPHS.items():
        graph = onnx.load(folder / f"{name}.onnx", load_external_data=False).graph
        for values, tensors in zip((graph.input, graph.output), sides, strict=True):
            layered = [t for t in tensors if "{layer}" in t.name]
            expected = [t for t in tensors if t not in layered]
            expected += [
                contract.Tensor(contract.layer_tensor(t, i), t.axes, t.dtype) for i in range(3) for t in layered
            ]
            assert [v.name for v in values] == [t.name for t in expected]
            for value, tensor in zip(values, expected, strict=True):
                assert value.type.tensor_type.elem_type == numbers[tensor.dtype]
                assert len(value.type.tensor_type.shape.dim) == len(tensor.axes)


def test_importing_the_package_loads_neither_torch_nor_onnx_nor_the_runtime():
    code = "import sys, dgrt_export; print([m for m in ('torch', 'onnx', 'dgrt', 'transformers') if m in sys.modules])"
    paths = [str(ROOT / "export")]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
