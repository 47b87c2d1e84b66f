// Implementation of ort_contract.h: contract.h's names with the manifest's sizes.
#include "engine/ort_contract.h"

#include <algorithm>
#include <map>
#include <vector>

#include "common/check.h"
#include "engine/contract.h"

namespace dgrt {
namespace {

constexpr int64_t kDynamic = -1;  // S and P of the contract; also how ONNX Runtime reports a symbolic axis

struct TensorType {
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::vector<int64_t> dims;
  bool operator==(const TensorType&) const = default;
};

using Tensors = std::map<std::string, TensorType>;

std::string Text(const TensorType& tensor) {
  std::string text;
  switch (tensor.type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: text = "float32"; break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: text = "int64"; break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: text = "int32"; break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: text = "float16"; break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16: text = "bfloat16"; break;
    default: text = Message("element type ", static_cast<int>(tensor.type));
  }
  text += " [";
  for (size_t i = 0; i < tensor.dims.size(); ++i) {
    if (i > 0) text += ", ";
    text += tensor.dims[i] == kDynamic ? "?" : std::to_string(tensor.dims[i]);
  }
  return text + "]";
}

TensorType Found(const Ort::TypeInfo& info) {
  if (info.GetONNXType() != ONNX_TYPE_TENSOR) return {};
  const auto tensor = info.GetTensorTypeAndShapeInfo();
  return {tensor.GetElementType(), tensor.GetShape()};
}

Tensors FoundInputs(const Ort::Session& session) {
  Ort::AllocatorWithDefaultOptions allocator;
  Tensors tensors;
  for (size_t i = 0; i < session.GetInputCount(); ++i) {
    tensors.emplace(session.GetInputNameAllocated(i, allocator).get(), Found(session.GetInputTypeInfo(i)));
  }
  return tensors;
}

Tensors FoundOutputs(const Ort::Session& session) {
  Ort::AllocatorWithDefaultOptions allocator;
  Tensors tensors;
  for (size_t i = 0; i < session.GetOutputCount(); ++i) {
    tensors.emplace(session.GetOutputNameAllocated(i, allocator).get(), Found(session.GetOutputTypeInfo(i)));
  }
  return tensors;
}

void Compare(const Tensors& expected, const Tensors& found, const std::string& file, const char* kind) {
  for (const auto& [name, tensor] : expected) {
    const auto at = found.find(name);
    if (at == found.end() || at->second != tensor) {
      throw ContractMismatch(Message(file, ": ", kind, " ", name, ": expected ", Text(tensor), ", found ",
                                     at == found.end() ? "none" : Text(at->second)));
    }
  }
  for (const auto& [name, tensor] : found) {
    if (!expected.contains(name)) {
      throw ContractMismatch(Message(file, ": ", kind, "s: expected ", expected.size(), " as the contract names them, "
                                     "found also ", name, " ", Text(tensor)));
    }
  }
}

constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;

// One tensor [1, rows, K] per layer.
void AddLayers(Tensors& tensors, const char* prefix, const ModelFacts& model, int64_t rows = kDynamic) {
  for (size_t i = 0; i < model.layers.size(); ++i) {
    tensors.emplace(prefix + std::to_string(i), TensorType{kFloat, {1, rows, model.layers[i].kv_width()}});
  }
}

// `outputs`: those beside the new rows.
void CheckCausalGraph(const Ort::Session& session, const ModelFacts& model, const std::string& file, Tensors outputs) {
  Tensors inputs = {{contract::kTokens, {kInt64, {1, kDynamic}}}, {contract::kPositions, {kInt64, {1, kDynamic}}}};
  AddLayers(inputs, contract::kPastK, model);
  AddLayers(inputs, contract::kPastV, model);
  AddLayers(outputs, contract::kNewK, model);
  AddLayers(outputs, contract::kNewV, model);
  Compare(inputs, FoundInputs(session), file, "input");
  Compare(outputs, FoundOutputs(session), file, "output");
}

}  // namespace

void CheckPrefillGraph(const Ort::Session& session, const ModelFacts& model, const std::string& file) {
  CheckCausalGraph(session, model, file, {});
}

void CheckScoreGraph(const Ort::Session& session, const ModelFacts& model, const std::string& file) {
  CheckCausalGraph(session, model, file, {{contract::kHidden, {kFloat, {1, kDynamic, model.hidden_size}}}});
}

void CheckDenoiseGraph(const Ort::Session& session, const ModelFacts& model, const std::string& file) {
  const int64_t rows = model.canvas_len, width = model.hidden_size;
  Tensors inputs = {{contract::kCanvas, {kInt64, {1, rows}}},
                    {contract::kPositions, {kInt64, {1, rows}}},
                    {contract::kSoft, {kFloat, {1, rows, width}}}};
  AddLayers(inputs, contract::kPastK, model);
  AddLayers(inputs, contract::kPastV, model);
  const Tensors outputs = {{contract::kHidden, {kFloat, {1, rows, width}}}};
  Compare(inputs, FoundInputs(session), file, "input");
  Compare(outputs, FoundOutputs(session), file, "output");
}

void CheckPackedGraph(const Ort::Session& session, const ModelFacts& model, const std::string& file) {
  const int64_t rows = model.canvas_len, width = model.hidden_size;
  Tensors inputs = {{contract::kTokens, {kInt64, {1, 3 * rows}}},
                    {contract::kPositions, {kInt64, {1, 3 * rows}}},
                    {contract::kSoft, {kFloat, {1, rows, width}}},
                    {contract::kNextSoft, {kFloat, {1, rows, width}}}};
  for (const char* past : {contract::kPastK, contract::kPastV, contract::kNextPastK, contract::kNextPastV}) {
    AddLayers(inputs, past, model);
  }
  Tensors outputs = {{contract::kHidden, {kFloat, {1, rows, width}}}, {contract::kNextHidden, {kFloat, {1, rows, width}}}};
  AddLayers(outputs, contract::kNewK, model, rows);
  AddLayers(outputs, contract::kNewV, model, rows);
  Compare(inputs, FoundInputs(session), file, "input");
  Compare(outputs, FoundOutputs(session), file, "output");
}

void CheckCheckGraph(const Ort::Session& session, const ModelFacts& model, const std::string& file) {
  const int64_t width = model.hidden_size;
  Tensors inputs = {{contract::kCanvases, {kInt64, {kDynamic, model.canvas_len}}},
                    {contract::kTokens, {kInt64, {1, kDynamic}}},
                    {contract::kPositions, {kInt64, {1, kDynamic}}},
                    {contract::kSoft, {kFloat, {1, model.canvas_len, width}}}};
  AddLayers(inputs, contract::kPastK, model);
  AddLayers(inputs, contract::kPastV, model);
  Tensors outputs = {{contract::kCanvasHidden, {kFloat, {kDynamic, model.canvas_len, width}}},
                     {contract::kHidden, {kFloat, {1, kDynamic, width}}}};
  AddLayers(outputs, contract::kNewK, model);
  AddLayers(outputs, contract::kNewV, model);
  Compare(inputs, FoundInputs(session), file, "input");
  Compare(outputs, FoundOutputs(session), file, "output");
}

void CheckDrafterGraph(const Ort::Session& session, const ModelFacts& model, const std::string& file) {
  const TensorType states = {kFloat, {1, kDynamic, model.hidden_size}};
  Tensors inputs = {{contract::kTokens, {kInt64, {1, 1}}},
                    {contract::kPositions, {kInt64, {1, kDynamic}}},
                    {contract::kEvidence, states}};
  for (const int32_t layer : model.drafter.value().kv_layers) {
    const TensorType rows = {kFloat, {1, kDynamic, model.layers[static_cast<size_t>(layer)].kv_width()}};
    for (const char* past : {contract::kPastK, contract::kPastV}) inputs.emplace(past + std::to_string(layer), rows);
  }
  Compare(inputs, FoundInputs(session), file, "input");
  Compare({{contract::kHidden, states}}, FoundOutputs(session), file, "output");
}

}  // namespace dgrt
