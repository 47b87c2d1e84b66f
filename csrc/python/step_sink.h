// Carries the events of a running generation to Python.
#pragma once

#include <chrono>
#include <vector>

#include <pybind11/pybind11.h>

#include "runtime/runtime.h"

namespace dgrt::python {

// Throws InvalidArgument unless it is a callable or None.
void RequireCallable(const pybind11::object& object, const char* name);

// Runs without the GIL and takes it for each callback. What the callback raises ends the generation and reaches the
// caller unchanged. Without a callback, Ctrl-C is looked for now and then (Python only notices it on its main thread).
class StepSink : public GenerateSink {
 public:
  // `on_step`: a callable or None. Created and destroyed with the GIL held.
  StepSink(pybind11::object on_step, bool with_soft, const ModelFacts& model);
  void OnStep(const StepView& step) override;
  void OnCommit(int32_t canvas_index, std::span<const int32_t> tokens, std::span<const TokenOrigin> origins) override;

  // Of the committed tokens.
  std::span<const uint8_t> origins() const { return origins_; }

 private:
  void CheckSignals();

  pybind11::object on_step_;
  bool with_soft_;
  const ModelFacts& model_;
  std::chrono::steady_clock::time_point last_signal_check_;
  std::vector<uint8_t> origins_;
};

}  // namespace dgrt::python
