// Carries the events of a running generation to Python.
#pragma once

#include <chrono>

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

 private:
  void CheckSignals();

  pybind11::object on_step_;
  bool with_soft_;
  const ModelFacts& model_;
  std::chrono::steady_clock::time_point last_signal_check_;
};

}  // namespace dgrt::python
