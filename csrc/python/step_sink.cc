// Implementation of step_sink.h.
#include "python/step_sink.h"

#include <utility>

#include "python/arrays.h"
#include "python/dicts.h"

namespace py = pybind11;

namespace dgrt::python {
namespace {

// Taking the GIL may have to wait for another Python thread (5 ms), so not on every step.
constexpr auto kSignalInterval = std::chrono::milliseconds(100);

}  // namespace

void RequireCallable(const py::object& object, const char* name) {
  if (object.is_none() || PyCallable_Check(object.ptr()) != 0) return;
  throw InvalidArgument(Message(name, ": expected a callable or None, found ",
                                std::string(py::str(py::type::handle_of(object)))));
}

StepSink::StepSink(py::object on_step, bool with_soft, const ModelFacts& model)
    : on_step_(std::move(on_step)),
      with_soft_(with_soft),
      model_(model),
      last_signal_check_(std::chrono::steady_clock::now()) {
  RequireCallable(on_step_, "on_step");
}

void StepSink::OnStep(const StepView& step) {
  if (on_step_.is_none()) {
    CheckSignals();
    return;
  }
  const py::gil_scoped_acquire gil;
  on_step_(ToDict(step, with_soft_, model_));
}

void StepSink::OnCommit(int32_t, std::span<const int32_t>, std::span<const TokenOrigin> origins) {
  const auto numbers = OriginNumbers(origins);
  origins_.assign(numbers.begin(), numbers.end());
}

void StepSink::CheckSignals() {
  const auto now = std::chrono::steady_clock::now();
  if (now - last_signal_check_ < kSignalInterval) return;
  last_signal_check_ = now;
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

}  // namespace dgrt::python
