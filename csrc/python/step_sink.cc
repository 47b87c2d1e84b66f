// Implementation of step_sink.h.
#include "python/step_sink.h"

#include <utility>

#include "python/arrays.h"

namespace py = pybind11;

namespace dgrt::python {
namespace {

// Taking the GIL may have to wait for another Python thread (5 ms), so not on every step.
constexpr auto kSignalInterval = std::chrono::milliseconds(100);

py::object SoftArray(std::span<const float> soft, const ModelFacts& model) {
  if (soft.empty()) return py::none();
  return py::array_t<float>({model.canvas_len, model.hidden_size}, soft.data());
}

}  // namespace

StepSink::StepSink(py::object on_step, bool with_soft, const ModelFacts& model)
    : on_step_(std::move(on_step)),
      with_soft_(with_soft),
      model_(model),
      last_signal_check_(std::chrono::steady_clock::now()) {
  if (!on_step_.is_none() && PyCallable_Check(on_step_.ptr()) == 0) {
    throw InvalidArgument(Message("on_step: expected a callable or None, found ",
                                  std::string(py::str(py::type::handle_of(on_step_)))));
  }
}

void StepSink::OnStep(const StepView& step) {
  if (on_step_.is_none()) {
    CheckSignals();
    return;
  }
  const py::gil_scoped_acquire gil;
  on_step_(ToDict(step));
}

void StepSink::CheckSignals() {
  const auto now = std::chrono::steady_clock::now();
  if (now - last_signal_check_ < kSignalInterval) return;
  last_signal_check_ = now;
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

py::dict StepSink::ToDict(const StepView& step) const {
  py::array_t<bool> accepted(static_cast<py::ssize_t>(step.accepted.size()));
  for (size_t i = 0; i < step.accepted.size(); ++i) accepted.mutable_data()[i] = step.accepted[i] != 0;
  py::dict result;
  result["canvas_index"] = step.canvas_index;
  result["step"] = step.step;
  result["temperature"] = step.temperature;
  result["kv_len"] = step.kv_len;
  result["canvas_in"] = Copy(step.canvas_in);
  result["soft_in"] = with_soft_ ? SoftArray(step.soft_in, model_) : py::none();
  result["argmax"] = Copy(step.argmax);
  result["entropy"] = Copy(step.entropy);
  result["sampled"] = Copy(step.sampled);
  result["accepted"] = accepted;
  result["canvas_out"] = Copy(step.canvas_out);
  result["soft_out"] = with_soft_ ? SoftArray(step.soft_out, model_) : py::none();
  result["stopped"] = step.stopped;
  return result;
}

}  // namespace dgrt::python
