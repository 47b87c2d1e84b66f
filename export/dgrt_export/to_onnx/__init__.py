"""Lowering of a traced graph to ONNX with standard operators (opset 23) and weights bound by file and offset."""
