// dgrt._native.Session.
#include <memory>
#include <utility>
#include <vector>

#include <pybind11/stl.h>

#include "python/arrays.h"
#include "python/dicts.h"
#include "python/objects.h"
#include "python/register.h"
#include "python/step_sink.h"

namespace py = pybind11;

namespace dgrt::python {
namespace {

std::unique_ptr<SessionObject> NewSession(const RuntimeObject& runtime, const GenerateOptions& options) {
  const py::gil_scoped_release release;
  return std::unique_ptr<SessionObject>(
      new SessionObject{runtime.runtime, Session(runtime.runtime.get(), options)});
}

void Prefill(SessionObject& self, const py::array& prompt) {
  const auto tokens = CopyTokens(prompt, "prompt");
  const auto use = self.use.Enter();
  const py::gil_scoped_release release;
  self.session.Prefill(tokens);
}

void Extend(SessionObject& self, const py::array& tokens) {
  const auto copied = CopyTokens(tokens, "tokens");
  const auto use = self.use.Enter();
  const py::gil_scoped_release release;
  self.session.Extend(copied);
}

py::array_t<int32_t> NextCanvas(SessionObject& self, py::object on_step, bool with_soft) {
  const auto use = self.use.Enter();
  StepSink sink(std::move(on_step), with_soft, self.runtime->model());
  std::span<const int32_t> emitted;
  {
    const py::gil_scoped_release release;
    emitted = self.session.NextCanvas(&sink);
  }
  self.origins.assign(sink.origins().begin(), sink.origins().end());
  return Copy(emitted);
}

py::tuple Draft(SessionObject& self, int64_t most) {
  const int64_t len = self.runtime->model().canvas_len;
  if (most < 0 || most > len) throw InvalidArgument(Message("most: expected 0 to ", len, ", found ", most));
  const auto use = self.use.Enter();
  std::vector<int32_t> tokens(static_cast<size_t>(most));
  std::vector<float> confidence(tokens.size());
  size_t drafted = 0;
  {
    const py::gil_scoped_release release;
    drafted = static_cast<size_t>(self.session.Draft(tokens, confidence));
  }
  return py::make_tuple(Copy(std::span<const int32_t>(tokens).first(drafted)),
                        Copy(std::span<const float>(confidence).first(drafted)));
}

void SetCanvas(SessionObject& self, const py::array& canvas) {
  const auto tokens = CopyTokens(canvas, "canvas");
  const auto use = self.use.Enter();
  self.session.SetCanvas(tokens);
}

py::array_t<int32_t> GetCanvas(SessionObject& self) {
  const auto use = self.use.Enter();
  return Copy(self.session.canvas());
}

py::array_t<int32_t> EmittedTokens(SessionObject& self) {
  const auto use = self.use.Enter();
  return Copy(self.session.tokens());
}

py::array_t<uint8_t> EmittedOrigins(SessionObject& self) {
  const auto use = self.use.Enter();
  return Copy(std::span<const uint8_t>(self.origins));
}

py::array_t<float> EmittedLogprobs(SessionObject& self) {
  const auto use = self.use.Enter();
  return Copy(self.session.logprobs());
}

int64_t KvLen(SessionObject& self) {
  const auto use = self.use.Enter();
  return self.session.kv_len();
}

const char* FinishReasonText(SessionObject& self) {
  const auto use = self.use.Enter();
  return FinishReasonName(self.session.finish_reason());
}

py::dict SessionStats(SessionObject& self) {
  const auto use = self.use.Enter();
  return ToDict(self.session.stats());
}

}  // namespace

void RegisterSession(py::module_& module) {
  py::class_<SessionObject>(module, "Session", py::release_gil_before_calling_cpp_dtor(),
                            "One sequence. One thread at a time; `cancel` from any thread.")
      .def(py::init(&NewSession), py::arg("runtime"), py::arg("options"))
      .def("prefill", &Prefill, py::arg("prompt"), "Runs the prompt, int32 [n], through the model; once.")
      .def("extend", &Extend, py::arg("tokens"), "Another turn after stop or length: int32 [n] behind all text so far.")
      .def("next_canvas", &NextCanvas, py::arg("on_step") = py::none(), py::kw_only(), py::arg("with_soft") = false,
           "Refines and commits one canvas and returns the emitted tokens.")
      .def("draft", &Draft, py::arg("most"), "What the drafter expects next: (tokens int32 [n], confidence [n]).")
      .def("set_canvas", &SetCanvas, py::arg("canvas"), "Starts the next canvas from these tokens, int32 [L].")
      .def("canvas", &GetCanvas, "The argmax canvas of the last step, int32 [L].")
      .def("cancel", [](SessionObject& self) { self.session.Cancel(); },
           "Any thread: stops between two denoise steps.")
      .def_property_readonly("finish_reason", &FinishReasonText)
      .def_property_readonly("tokens", &EmittedTokens)
      .def_property_readonly("origins", &EmittedOrigins)
      .def_property_readonly("logprobs", &EmittedLogprobs)
      .def_property_readonly("kv_len", &KvLen)
      .def("stats", &SessionStats, "The fields of dgrt.Stats.");
}

}  // namespace dgrt::python
