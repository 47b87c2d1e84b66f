// dgrt._native.Session.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <pybind11/stl.h>

#include "python/arrays.h"
#include "python/objects.h"
#include "python/register.h"
#include "python/step_sink.h"

namespace py = pybind11;

namespace dgrt::python {
namespace {

template <typename T>
void Override(T& value, const std::optional<T>& given) {
  if (given) value = *given;
}

std::unique_ptr<SessionObject> NewSession(const RuntimeObject& runtime, int64_t max_new_tokens, uint64_t seed,
                                          uint32_t request, std::optional<int32_t> max_denoising_steps,
                                          std::optional<float> entropy_bound, std::optional<float> t_min,
                                          std::optional<float> t_max, std::optional<int32_t> stability_threshold,
                                          std::optional<float> confidence_threshold,
                                          std::optional<std::vector<int32_t>> stop_ids, int32_t guarantee,
                                          int32_t drafter, float causal_temperature, int32_t pipeline, bool logprobs) {
  GenerateOptions options = runtime.runtime->default_options();
  options.max_new_tokens = max_new_tokens;
  options.seed = seed;
  options.request = request;
  Override(options.sampler.max_denoising_steps, max_denoising_steps);
  Override(options.sampler.entropy_bound, entropy_bound);
  Override(options.sampler.t_min, t_min);
  Override(options.sampler.t_max, t_max);
  Override(options.sampler.stability_threshold, stability_threshold);
  Override(options.sampler.confidence_threshold, confidence_threshold);
  if (stop_ids) options.stop_ids = *std::move(stop_ids);
  options.guarantee = static_cast<Guarantee>(guarantee);
  options.drafter = static_cast<DrafterKind>(drafter);
  options.causal_temperature = causal_temperature;
  options.pipeline = static_cast<Pipeline>(pipeline);
  options.logprobs = logprobs;
  const py::gil_scoped_release release;
  return std::unique_ptr<SessionObject>(
      new SessionObject{runtime.runtime, Session(runtime.runtime.get(), options)});
}

// Copied: other Python threads may write to the array while the GIL is released.
std::vector<int32_t> Tokens(const py::array& array, const char* name) {
  const auto view = View<int32_t>(array, 1, name, "[n]");
  return {view.begin(), view.end()};
}

void Prefill(SessionObject& self, const py::array& prompt) {
  const auto tokens = Tokens(prompt, "prompt");
  const auto use = self.use.Enter();
  const py::gil_scoped_release release;
  self.session.Prefill(tokens);
}

py::array_t<int32_t> NextCanvas(SessionObject& self, py::object on_step, bool with_soft) {
  const auto use = self.use.Enter();
  StepSink sink(std::move(on_step), with_soft, self.runtime->model());
  std::span<const int32_t> emitted;
  {
    const py::gil_scoped_release release;
    emitted = self.session.NextCanvas(&sink);
  }
  return Copy(emitted);
}

void SetCanvas(SessionObject& self, const py::array& canvas) {
  const auto tokens = Tokens(canvas, "canvas");
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

py::dict StatsDict(SessionObject& self) {
  const auto use = self.use.Enter();
  const Stats& stats = self.session.stats();
  py::dict result;
  result["prefill_passes"] = stats.prefill_passes;
  result["denoise_passes"] = stats.denoise_passes;
  result["commit_passes"] = stats.commit_passes;
  result["causal_passes"] = stats.causal_passes;
  result["packed_passes"] = stats.packed_passes;
  result["packed_commits"] = stats.packed_commits;
  result["draft_calls"] = stats.draft_calls;
  result["accepted_drafts"] = stats.accepted_drafts;
  result["row_tokens"] = stats.row_tokens;
  result["canvases"] = stats.canvases;
  result["steps_per_canvas"] = stats.steps_per_canvas;
  result["prompt_tokens"] = stats.prompt_tokens;
  result["tokens"] = stats.tokens;
  result["tokens_per_pass"] = stats.tokens_per_pass();
  result["prefill_ms"] = stats.prefill_ms;
  result["denoise_ms"] = stats.denoise_ms;
  result["commit_ms"] = stats.commit_ms;
  result["causal_ms"] = stats.causal_ms;
  result["packed_ms"] = stats.packed_ms;
  result["head_ms"] = stats.head_ms;
  result["draft_ms"] = stats.draft_ms;
  result["total_ms"] = stats.total_ms;
  result["peak_kv_bytes"] = stats.peak_kv_bytes;
  return result;
}

}  // namespace

void RegisterSession(py::module_& module) {
  py::class_<SessionObject>(module, "Session", py::release_gil_before_calling_cpp_dtor(),
                            "One sequence. One thread at a time; `cancel` from any thread.")
      .def(py::init(&NewSession), py::arg("runtime"), py::kw_only(), py::arg("max_new_tokens") = -1,
           py::arg("seed") = 0, py::arg("request") = 0, py::arg("max_denoising_steps") = py::none(),
           py::arg("entropy_bound") = py::none(), py::arg("t_min") = py::none(), py::arg("t_max") = py::none(),
           py::arg("stability_threshold") = py::none(), py::arg("confidence_threshold") = py::none(),
           py::arg("stop_ids") = py::none(), py::arg("guarantee") = 0, py::arg("drafter") = 0,
           py::arg("causal_temperature") = 1.0f, py::arg("pipeline") = 0,
           py::arg("logprobs") = false)
      .def("prefill", &Prefill, py::arg("prompt"), "Runs the prompt, int32 [n], through the model; once.")
      .def("next_canvas", &NextCanvas, py::arg("on_step") = py::none(), py::kw_only(), py::arg("with_soft") = false,
           "Refines and commits one canvas and returns the emitted tokens.")
      .def("set_canvas", &SetCanvas, py::arg("canvas"), "Starts the next canvas from these tokens, int32 [L].")
      .def("canvas", &GetCanvas, "The argmax canvas of the last step, int32 [L].")
      .def("cancel", [](SessionObject& self) { self.session.Cancel(); },
           "Any thread: stops between two denoise steps.")
      .def_property_readonly("finish_reason", &FinishReasonText)
      .def_property_readonly("tokens", &EmittedTokens)
      .def_property_readonly("logprobs", &EmittedLogprobs)
      .def_property_readonly("kv_len", &KvLen)
      .def("stats", &StatsDict, "The fields of dgrt.Stats.");
}

}  // namespace dgrt::python
