// Options of a runtime and of one generation. Defaults of the sampler come from the engine's manifest
// (generation_config.json of the checkpoint), never from here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dgrt {

struct RuntimeOptions {
  int threads = 0;                   // CPU threads for engine and kernels; 0: all the process may use
  std::string ort_library;           // path of libonnxruntime; empty: DGRT_ORT_LIBRARY, then the default search
  bool verify_weights = false;       // also hash the weight files at load (reads them once)
  int64_t memory_limit_bytes = 0;    // KV + workspace of one session; 0: none
};

struct SamplerOptions {
  int32_t max_denoising_steps = 48;  // N
  float entropy_bound = 0.1f;        // nats
  float t_min = 0.4f;                // temperature of the schedule at n = 0
  float t_max = 0.8f;                // temperature at n = N
  int32_t stability_threshold = 1;   // steps the argmax canvas must stay unchanged; 0: stability is not asked for
  float confidence_threshold = 0.005f;  // mean entropy below which a stable canvas stops, nats
};

struct GenerateOptions {
  int64_t max_new_tokens = -1;       // -1: until a stop id or the context ends
  uint64_t seed = 0;
  uint32_t request = 0;              // distinguishes requests that share a seed; < 2^24
  SamplerOptions sampler;
  std::vector<int32_t> stop_ids;
};

}  // namespace dgrt
