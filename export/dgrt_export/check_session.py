"""One graph in ONNX Runtime as the parity gate runs it: weights stay in the mapped file, routers may be overruled."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import torch

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else it reports to its maker what is exported
import onnxruntime

from .contract import FUSED
from .errors import Unsupported, mismatch
from .to_onnx.fused import FEED_FORWARD, NUM_FEED_FORWARD_INPUTS

_CHOICE = "choice."  # and the layer: input of a graph that is given its experts


def take_choices(model: onnx.ModelProto) -> onnx.ModelProto:
    """Makes the experts of each row an input per layer, in the place of what the layer's router chooses."""
    layers = [node for node in model.graph.node if node.op_type == FEED_FORWARD]
    for layer, node in enumerate(layers):
        name = f"{_CHOICE}{layer}"
        scales = NUM_FEED_FORWARD_INPUTS - 1 - len(node.input)
        node.input.extend([*[""] * scales, name])
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None))
    return model


class CheckSession:
    """A graph, ready to run."""

    def __init__(self, path: Path, library: Path | None):
        """`library` registers the operators of our own domain, if the graph has any."""
        options = onnxruntime.SessionOptions()
        if library is not None:
            try:
                options.register_custom_ops_library(str(library))
            except Exception as error:  # of ONNX Runtime's own kinds: no such symbol, no such file
                expected = f"the operators of this version in {library.name}"
                raise Unsupported(mismatch(f"profile {FUSED!r}", expected, error)) from None
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # No prepacked copies of weights, and below no folded casts of them.
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
        )
        self._choices = [i.name for i in self._session.get_inputs() if i.name.startswith(_CHOICE)]

    def run(self, feeds: dict[str, np.ndarray], choices: list[np.ndarray]) -> list[np.ndarray]:
        """`choices`: the experts [S, k] of every layer, for those layers of the graph that take them as an input."""
        return self._session.run(None, {**feeds, **dict(zip(self._choices, choices, strict=False))})
