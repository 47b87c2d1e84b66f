// The operators of the fused profile (domain `dgrt`, specified in export/README.md): our kernels as custom operators of ONNX
// Runtime. Used by ort_engine.cc; other programs register them through RegisterCustomOps, which this library exports.
#pragma once

#include <memory>

#include <onnxruntime_cxx_api.h>

namespace dgrt {

class ThreadPool;

// The operators of one engine. Must outlive every session it was added to, and the pool must outlive it.
class OrtOperators {
 public:
  explicit OrtOperators(ThreadPool& pool);
  ~OrtOperators();

  OrtCustomOpDomain* domain() const;  // for Ort::SessionOptions::Add

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace dgrt
