// The engine that runs an exported package with ONNX Runtime on the CPU. Opened by runtime/open.cc; knows nothing of
// canvases, sampling or sessions.
#pragma once

#include <memory>
#include <string>

#include "engine/engine.h"
#include "engine/manifest.h"

namespace dgrt {

class ThreadPool;

struct OrtEngineOptions {
  // For our operators; the size of a pool is also that of ONNX Runtime's own pools. Both outlive the engine.
  ThreadPool* pool = nullptr;        // of passes with PassThreads::kAll
  ThreadPool* one_thread = nullptr;  // of size one
  std::string ort_library;  // see ort_library.h
};

// Throws Unsupported (no or too old ONNX Runtime), ContractMismatch (graphs that ONNX Runtime refuses or whose inputs
// and outputs are not those of contract.h with the manifest's facts), OutOfMemory.
std::unique_ptr<Engine> OpenOrtEngine(const Manifest& manifest, const OrtEngineOptions& options);

}  // namespace dgrt
