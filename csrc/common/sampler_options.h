// Options of the sampler and the one rule that says which values can be used. A package states its defaults in them
// (engine/), a request overrides them (runtime/).
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "common/check.h"

namespace dgrt {

struct SamplerOptions {
  int32_t max_denoising_steps = 48;     // N
  float entropy_bound = 0.1f;           // nats
  float t_min = 0.4f;                   // temperature of the schedule at n = 0
  float t_max = 0.8f;                   // temperature at n = N
  int32_t stability_threshold = 1;      // steps the argmax canvas must stay unchanged; 0: stability is not asked for
  float confidence_threshold = 0.005f;  // mean entropy below which a stable canvas stops, nats
};

// A lower temperature would push scores out of the range of float before the softmax.
inline constexpr float kLowestTemperature = 1e-4f;

// The first option that cannot be used, as "name: expected ..., found ..."; empty when all can.
inline std::string BrokenSampler(const SamplerOptions& sampler) {
  const auto broken = [](const char* option, const auto& expected, auto found) {
    return Message(option, ": expected ", expected, ", found ", found);
  };
  // Negated comparisons, so that NaN is rejected too.
  if (sampler.max_denoising_steps <= 0) return broken("max_denoising_steps", "at least 1", sampler.max_denoising_steps);
  if (!(sampler.entropy_bound > 0)) return broken("entropy_bound", "a number above 0", sampler.entropy_bound);
  if (!(sampler.t_min >= 0) || !std::isfinite(sampler.t_min)) return broken("t_min", "a number from 0", sampler.t_min);
  if (!(sampler.t_max > sampler.t_min) || !std::isfinite(sampler.t_max)) {
    return broken("t_max", Message("a number above t_min (", sampler.t_min, ")"), sampler.t_max);
  }
  const float last = sampler.t_min + (sampler.t_max - sampler.t_min) / static_cast<float>(sampler.max_denoising_steps);
  if (last < kLowestTemperature) {
    return broken("t_min", Message("a temperature of at least ", kLowestTemperature, " on the last step"), last);
  }
  if (sampler.stability_threshold < 0) return broken("stability_threshold", "at least 0", sampler.stability_threshold);
  if (!(sampler.confidence_threshold > 0)) {
    return broken("confidence_threshold", "a number above 0", sampler.confidence_threshold);
  }
  return "";
}

}  // namespace dgrt
