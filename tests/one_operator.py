"""One of our operators alone, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper


def run_operator(
    op: str, inputs: Mapping[str, np.ndarray | TensorProto | None], outputs: int = 1, **attributes: Any
) -> list[np.ndarray]:
    """Outputs of a node. Of its inputs arrays are fed, tensors are initializers, and None is left out."""
    from dgrt_export import contract
    from dgrt_export.operators import find_library
    from onnxruntime import InferenceSession, SessionOptions

    fed = {name: value for name, value in inputs.items() if isinstance(value, np.ndarray)}
    names = ["" if value is None else name for name, value in inputs.items()]
    results = [f"y{i}" for i in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, results, domain=contract.OPERATOR_DOMAIN, **attributes)], "g",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in fed.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results],
        initializer=[value for value in inputs.values() if isinstance(value, TensorProto)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(contract.OPERATOR_DOMAIN, contract.OPERATORS_VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=11)
    options = SessionOptions()
    options.register_custom_ops_library(str(find_library()))
    options.log_severity_level = 4
    session = InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, fed)
