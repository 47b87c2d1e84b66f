// dgrt._native.Options: the options of one generation over the defaults of its engine.
#include <array>
#include <charconv>
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

// A default as a reader of the signature expects it: 0.9, not the digits of the float next to it.
double Shortest(float value) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.begin(), text.end(), value).ptr;
  double shortest = 0;
  std::from_chars(text.begin(), end, shortest);
  return shortest;
}

GenerateOptions NewOptions(const RuntimeObject& runtime, int64_t max_new_tokens, uint64_t seed, uint32_t request,
                           std::optional<int32_t> max_denoising_steps, std::optional<float> entropy_bound,
                           std::optional<float> t_min, std::optional<float> t_max,
                           std::optional<int32_t> stability_threshold, std::optional<float> confidence_threshold,
                           std::optional<std::vector<int32_t>> stop_ids, int32_t guarantee, int32_t drafter,
                           float causal_temperature, int32_t pipeline, bool logprobs, double deadline_ms,
                           std::vector<int32_t> draft, float verify_trust, int32_t verify_folds,
                           float verify_causal_floor, float verify_causal_budget, float verify_min_confirmed,
                           bool verify_one_pass, bool verify_always, float verify_expected_steps,
                           int32_t verify_packing, int32_t verify_redraft) {
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
  options.draft = std::move(draft);
  options.verify = {.trust = verify_trust, .folds = verify_folds, .causal_floor = verify_causal_floor,
                    .causal_budget = verify_causal_budget, .min_confirmed = verify_min_confirmed,
                    .one_pass = verify_one_pass, .always = verify_always, .expected_steps = verify_expected_steps,
                    .packing = static_cast<Packing>(verify_packing),
                    .redraft = static_cast<Redraft>(verify_redraft)};
  return options;
}

}  // namespace

void RegisterOptions(py::module_& module) {
  const VerifyOptions verify;
  py::class_<GenerateOptions>(module, "Options", "Options of one generation; what is None comes from the engine.")
      .def(py::init(&NewOptions), py::arg("runtime"), py::kw_only(), py::arg("max_new_tokens") = -1,
           py::arg("seed") = 0, py::arg("request") = 0, py::arg("max_denoising_steps") = py::none(),
           py::arg("entropy_bound") = py::none(), py::arg("t_min") = py::none(), py::arg("t_max") = py::none(),
           py::arg("stability_threshold") = py::none(), py::arg("confidence_threshold") = py::none(),
           py::arg("stop_ids") = py::none(), py::arg("guarantee") = 0, py::arg("drafter") = 0,
           py::arg("causal_temperature") = 1.0f, py::arg("pipeline") = 0, py::arg("logprobs") = false,
           py::arg("deadline_ms") = 0.0, py::arg("draft") = std::vector<int32_t>(),
           py::arg("verify_trust") = verify.trust, py::arg("verify_folds") = verify.folds,
           py::arg("verify_causal_floor") = verify.causal_floor, py::arg("verify_causal_budget") = verify.causal_budget,
           py::arg("verify_min_confirmed") = Shortest(verify.min_confirmed),
           py::arg("verify_one_pass") = verify.one_pass, py::arg("verify_always") = verify.always,
           py::arg("verify_expected_steps") = verify.expected_steps, py::arg("verify_packing") = static_cast<int32_t>(verify.packing),
           py::arg("verify_redraft") = static_cast<int32_t>(verify.redraft));
}

}  // namespace dgrt::python
