// Compares the inputs and outputs of a loaded graph with the contract. Used by ort_engine.cc.
#pragma once

#include <string>

#include <onnxruntime_cxx_api.h>

#include "engine/engine.h"

namespace dgrt {

// Throws ContractMismatch that names the file, the tensor, what was expected and what was found. The order of inputs
// and outputs is free.
void CheckPrefillGraph(const Ort::Session& session, const ModelFacts& model, const std::string& file);
void CheckScoreGraph(const Ort::Session& session, const ModelFacts& model, const std::string& file);
void CheckDenoiseGraph(const Ort::Session& session, const ModelFacts& model, const std::string& file);
void CheckPackedGraph(const Ort::Session& session, const ModelFacts& model, const std::string& file);
void CheckCheckGraph(const Ort::Session& session, const ModelFacts& model, const std::string& file);
void CheckDrafterGraph(const Ort::Session& session, const ModelFacts& model, const std::string& file);

}  // namespace dgrt
