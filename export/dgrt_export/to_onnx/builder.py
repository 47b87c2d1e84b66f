"""Collects the nodes of one ONNX graph. Weights become external initializers in their checkpoint layout.

Only checkpoint tensors are initializers; everything derived (shape constants, frequencies, unit norm weights) is a
`Constant` node. Nothing carries source paths. Arithmetic is float32: a bfloat16 weight gets a Cast next to its use, and
goes as it is into an operator of our own domain only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .. import contract
from ..checkpoint import TensorEntry
from ..quantise import SCALE, stored_shape

OPSET = 23  # the first with Attention, RotaryEmbedding and RMSNormalization
IR_VERSION = 11
_DTYPES = {"F32": TensorProto.FLOAT, "BF16": TensorProto.BFLOAT16, "I8": TensorProto.INT8, "I4": TensorProto.UINT8}
_IO_DTYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


class GraphBuilder:
    """Nodes, constants and weights of one graph. Values are referred to by name."""

    def __init__(self, weights: Mapping[str, TensorEntry]):
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._taken: set[str] = set()
        self._scopes: list[list[onnx.NodeProto]] = []
        self._opsets = {"": OPSET}

    # Values

    def fresh(self, hint: str) -> str:
        """A value name that is not used yet, `hint` if possible."""
        name, number = hint, 1
        while name in self._taken:
            name, number = f"{hint}.{number}", number + 1
        self._taken.add(name)
        return name

    def node(self, op: str, inputs: Sequence[str], hint: str = "", **attributes: Any) -> str:
        """Appends a standard node with one output and returns the output's name."""
        return self.nodes(op, inputs, 1, hint, **attributes)[0]

    def operator(self, op: str, inputs: Sequence[str], hint: str, **attributes: Any) -> str:
        """Appends an operator of our own domain and returns its output's name."""
        return self.operators(op, inputs, 1, hint, **attributes)[0]

    def operators(self, op: str, inputs: Sequence[str], outputs: int, hint: str, **attributes: Any) -> list[str]:
        """Appends an operator of our own domain with several outputs and returns their names."""
        domain = contract.OPERATOR_DOMAIN
        self._opsets[domain] = contract.OPERATORS_VERSION
        return self.nodes(op, inputs, outputs, hint, domain=domain, **attributes)

    def nodes(self, op: str, inputs: Sequence[str], outputs: int, hint: str = "", **attributes: Any) -> list[str]:
        """Appends a standard node with several outputs and returns their names."""
        names = [self.fresh(hint or op.lower()) for _ in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, name=names[0], **attributes))
        return names

    def constant(self, value: np.ndarray | Sequence[int] | int | float, hint: str = "const") -> str:
        """A Constant; equal ones are emitted once. Python ints become int64, floats float32."""
        array = np.asarray(value)
        if not isinstance(value, np.ndarray):
            array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            name = self.fresh(hint)
            node = helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(array))
            (self._scopes[0] if self._scopes else self._nodes).append(node)  # bodies read outer values
            self._constants[key] = name
        return self._constants[key]

    # Weights

    @property
    def has_fp32_weights(self) -> bool:
        """Whether any weight of the package is stored in fp32."""
        return any(entry.dtype == "F32" for entry in self._weights.values())

    def stored(self, name: str, expert: int | None = None, *, rows: bool = False) -> tuple[str, int]:
        """A weight as it is stored: (value name, ONNX dtype).

        Args:
            name: the checkpoint's tensor name.
            expert: takes one slice [e] of a tensor with experts first, as initializer `name#e`.
            rows: flattens all but the last axis, e.g. [E, 2I, D] to [E * 2I, D]; the bytes are the same.
        """
        entry = self._weights[name]
        shape, offset, num_bytes = stored_shape(entry.dtype, entry.shape), entry.offset, entry.num_bytes
        if expert is not None:
            name, shape, num_bytes = f"{name}#{expert}", shape[1:], num_bytes // shape[0]
            offset += expert * num_bytes
        if rows:
            shape = (int(np.prod(shape[:-1])), shape[-1])
        if name not in self._initializers:
            self._taken.add(name)
            tensor = TensorProto(name=name, data_type=_DTYPES[entry.dtype], dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", entry.file.name), ("offset", offset), ("length", num_bytes)):
                tensor.external_data.add(key=key, value=str(value))
            self._initializers[name] = tensor
        return name, _DTYPES[entry.dtype]

    def scales(self, names: Sequence[str]) -> list[str]:
        """The scales of those of the weights that are quantised, as they are stored."""
        return [self.stored(name + SCALE)[0] for name in names if name + SCALE in self._weights]

    def weight(self, name: str, expert: int | None = None) -> str:
        """A weight as float32."""
        return self.as_float(*self.stored(name, expert))

    def as_float(self, value: str, dtype: int) -> str:
        if dtype == TensorProto.FLOAT:
            return value
        return self.node("Cast", [value], f"{value}.f32", to=TensorProto.FLOAT)

    # Whole graphs

    def begin_body(self) -> None:
        """Starts a subgraph; nodes go into it until `end_body`."""
        self._scopes.append(self._nodes)
        self._nodes = []

    def end_body(self, name: str, inputs: list[Any], outputs: list[Any]) -> onnx.GraphProto:
        body = helper.make_graph(self._nodes, name, inputs, outputs)
        self._nodes = self._scopes.pop()
        return body

    def model(
        self, name: str, inputs: Sequence[contract.Tensor], outputs: Mapping[str, contract.Tensor]
    ) -> onnx.ModelProto:
        """The finished model. `outputs` maps value names to the contract tensors they become."""
        renamed = {value: tensor.name for value, tensor in outputs.items()}
        for node in self._nodes:
            for field in (node.input, node.output):
                field[:] = [renamed.get(value, value) for value in field]
        graph = helper.make_graph(
            self._nodes, name, [_value_info(t) for t in inputs], [_value_info(t) for t in outputs.values()],
            initializer=list(self._initializers.values()),
        )  # fmt: skip
        opsets = [helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="dgrt_export")
        model.ir_version = IR_VERSION
        return model


def _value_info(tensor: contract.Tensor) -> onnx.ValueInfoProto:
    shape = [int(axis) if axis.isdigit() else axis for axis in tensor.axes]
    return helper.make_tensor_value_info(tensor.name, _IO_DTYPES[tensor.dtype], shape)
