// dgrt._native.Options: the options of one generation over the defaults of its engine.
#include <optional>
#include <utility>
#include <vector>

#include <pybind11/stl.h>

#include "python/objects.h"
#include "python/register.h"

namespace py = pybind11;

namespace dgrt::python {
namespace {

template <typename T>
void Override(T& value, const std::optional<T>& given) {
  if (given) value = *given;
}

GenerateOptions NewOptions(const RuntimeObject& runtime, int64_t max_new_tokens, uint64_t seed, uint32_t request,
                           std::optional<int32_t> max_denoising_steps, std::optional<float> entropy_bound,
                           std::optional<float> t_min, std::optional<float> t_max,
                           std::optional<int32_t> stability_threshold, std::optional<float> confidence_threshold,
                           std::optional<std::vector<int32_t>> stop_ids, int32_t guarantee, int32_t drafter,
                           float causal_temperature, int32_t pipeline, bool logprobs, double deadline_ms) {
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
  options.deadline_ms = deadline_ms;
  return options;
}

}  // namespace

void RegisterOptions(py::module_& module) {
  py::class_<GenerateOptions>(module, "Options", "Options of one generation; what is None comes from the engine.")
      .def(py::init(&NewOptions), py::arg("runtime"), py::kw_only(), py::arg("max_new_tokens") = -1,
           py::arg("seed") = 0, py::arg("request") = 0, py::arg("max_denoising_steps") = py::none(),
           py::arg("entropy_bound") = py::none(), py::arg("t_min") = py::none(), py::arg("t_max") = py::none(),
           py::arg("stability_threshold") = py::none(), py::arg("confidence_threshold") = py::none(),
           py::arg("stop_ids") = py::none(), py::arg("guarantee") = 0, py::arg("drafter") = 0,
           py::arg("causal_temperature") = 1.0f, py::arg("pipeline") = 0, py::arg("logprobs") = false,
           py::arg("deadline_ms") = 0.0);
}

}  // namespace dgrt::python
